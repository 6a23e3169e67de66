"""One shape for every error: `{"error": {"code", "message", "retryable", "request_id", "param", "details"}}`."""

import logging
from typing import Any

from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig
from django.db import InterfaceError, OperationalError, connection
from django.http import Http404, HttpRequest, JsonResponse
from rest_framework import exceptions, status
from rest_framework.response import Response

from billing.exceptions import Refusal
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


class InvalidCursor(Refusal):
    code, message = "invalid_cursor", "The cursor is not one of ours, or belongs to other filters."


CODES = {
    400: "invalid_json",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limited",
    500: "internal_error",
    503: "unavailable",
}
RETRYABLE = {429, 500, 503}


def body(
    request: HttpRequest,
    *,
    status: int,
    message: str,
    code: str | None = None,
    retryable: bool | None = None,
    param: str | None = None,
    details: Any = None,
) -> dict[str, Any]:
    """The error object; what it quotes of the request is cut."""
    return {
        "error": {
            "code": code or CODES[status],
            "message": shorten(message),
            "retryable": status in RETRYABLE if retryable is None else retryable,
            "request_id": getattr(request, "request_id", None),
            "param": param and shorten(param),
            "details": details,
        }
    }


def handle(error: Exception, context: dict[str, Any]) -> Response:
    """DRF's exception handler: every exception of a view becomes the one shape, and none escapes."""
    answer = _answer(error)
    headers = {}
    if retry_after := answer.pop("retry_after", None):
        headers["Retry-After"] = str(retry_after)
    if answer["status"] == status.HTTP_401_UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if allowed := answer.pop("allow", None):
        headers["Allow"] = allowed
    return Response(body(context["request"], **answer), status=answer["status"], headers=headers)


def _answer(error: Exception) -> dict[str, Any]:
    match error:
        case Refusal():
            return {
                "status": error.status,
                "code": error.code,
                "message": error.message,
                "retryable": error.retryable,
                "param": error.param,
                "details": error.details,
                "retry_after": error.retry_after,
            }
        case exceptions.ValidationError():
            pointer, message = first_error(error.detail)
            return {"status": 422, "message": message, "param": pointer or None}
        case RequestDataTooBig():
            return {"status": 413, "message": PayloadTooLarge.message}
        case exceptions.MethodNotAllowed():
            return {"status": 405, "message": str(error.detail)}
        case exceptions.APIException() if error.status_code in CODES:
            wait = getattr(error, "wait", None)
            return {"status": error.status_code, "message": str(error.detail), "retry_after": wait}
        case Http404():
            return {"status": 404, "message": "There is nothing here."}
        case PermissionDenied():
            return {"status": 403, "message": "This is not allowed."}
        case BadRequest():
            return {"status": 400, "message": str(error)}
        case OperationalError() | InterfaceError():
            logger.error("the database is away", exc_info=error)
            connection.close()
            return {"status": 503, "message": "The service is unavailable; try again.", "retry_after": 2}
    logger.error("a request crashed", exc_info=error)
    return {"status": 500, "message": "Something went wrong on our side.", "retryable": True}


def not_found(request: HttpRequest, *_: Any) -> JsonResponse:
    """What an unknown path below /v1 answers."""
    return JsonResponse(body(request, status=404, message="There is no such path."), status=404)
