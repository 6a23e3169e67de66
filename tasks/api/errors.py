"""One shape for every error: `{"error": {"code", "message", "retryable", "request_id", "param", "details"}}`."""

import logging
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError, connection
from django.http import Http404, HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from rest_framework import exceptions
from rest_framework.response import Response

from billing.exceptions import Refusal
from billing.redaction import without_keys
from tasks.api.codes import CODES, OF_STATUS
from tasks.pointers import first_error, shorten

logger = logging.getLogger(__name__)


class Unauthorized(Refusal):
    code, status, message = "unauthorized", 401, "Send an API key: `Authorization: Bearer cf_...`."


class InvalidApiKey(Refusal):
    code, status, message = "invalid_api_key", 401, "This API key is unknown, revoked or expired."


class AccountDisabled(Refusal):
    code, status, message = "account_disabled", 403, "This account is disabled."


class InsufficientScope(Refusal):
    code, status, message = "insufficient_scope", 403, "This API key lacks the scope that the request needs."


class InvalidJson(Refusal):
    code, status, message = "invalid_json", 400, "The body is not JSON."


class InvalidHeader(Refusal):
    code, status = "invalid_header", 400


class PayloadTooLarge(Refusal):
    code, status, message = "payload_too_large", 413, "The body is larger than 1 MiB."


class RateLimited(Refusal):
    code, status, retryable = "rate_limited", 429, True

    def __init__(self, *, limit: int, wait: int) -> None:
        super().__init__(f"This key may make {limit} requests a minute; wait {wait} s.")
        self.retry_after = wait


class InvalidCursor(Refusal):
    code, message = "invalid_cursor", "The cursor is not one of ours, or belongs to other filters."


class Unavailable(Refusal):
    code, status, retryable, retry_after = "unavailable", 503, True, 5


def body(
    request: HttpRequest, *, code: str, message: str, param: str | None = None, details: Any = None
) -> dict[str, Any]:
    """The error object; what it quotes of the request is cut."""
    return {
        "error": {
            "code": code,
            "message": without_keys(shorten(message)),
            "retryable": CODES[code].retryable,
            "request_id": getattr(request, "request_id", None),
            "param": param and without_keys(shorten(param)),
            "details": details,
        }
    }


def handle(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: every exception of a view becomes the one shape, and none escapes."""
    answer = _answer(error)
    headers = {}
    if retry_after := answer.pop("retry_after", None):
        headers["Retry-After"] = str(retry_after)
    status = CODES[answer["code"]].status
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    # JSON, whatever the endpoint would have answered with.
    answered = body(context["request"], **answer)
    return Response(answered, status=status, headers=headers, content_type="application/json")


def _answer(error: Exception) -> dict[str, Any]:
    match error:
        case Refusal():
            return {
                "code": error.code,
                "message": error.message,
                "param": error.param,
                "details": error.details,
                "retry_after": error.retry_after,
            }
        case exceptions.ValidationError():
            pointer, message = first_error(error.detail)
            return {"code": "invalid_request", "message": message, "param": pointer or None}
        case RequestDataTooBig():
            return {"code": "payload_too_large", "message": PayloadTooLarge.message}
        case exceptions.APIException() if error.status_code in OF_STATUS:
            return {"code": OF_STATUS[error.status_code], "message": str(error.detail)}
        case Http404():
            return {"code": "not_found", "message": "There is nothing here."}
        case PermissionDenied():
            return {"code": "forbidden", "message": "This is not allowed."}
        case BadRequest():
            return {"code": "invalid_json", "message": str(error)}
        case OperationalError() | InterfaceError():
            logger.error("the database is away", exc_info=error)
            connection.close()
            return {"code": "unavailable", "message": "The service is unavailable; try again.", "retry_after": 2}
    logger.error("a request crashed", exc_info=error)
    return {"code": "internal_error", "message": "Something went wrong on our side."}


@csrf_exempt
def not_found(request: HttpRequest, *_: Any) -> JsonResponse:
    """What an unknown path below /v1 answers, whatever the method."""
    return JsonResponse(body(request, code="not_found", message="There is no such path."), status=404)
