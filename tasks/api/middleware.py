"""The request id: the client's, or one of ours, on the answer and on every log line."""

from collections.abc import Callable
from uuid import uuid4

from django.http import HttpRequest, HttpResponse, JsonResponse
from structlog.contextvars import bound_contextvars

from tasks.api import errors

MAX_LENGTH = 128


class RequestIdMiddleware:
    """Echoes `X-Request-Id` (up to 128 printable ASCII characters), or makes one."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        fits = len(given) <= MAX_LENGTH and given.isascii() and given.isprintable()
        request.request_id = given if given and fits else f"req_{uuid4().hex}"  # type: ignore[attr-defined]
        if not fits:
            response: HttpResponse = self._refuse(request)
        else:
            with bound_contextvars(request_id=request.request_id):  # type: ignore[attr-defined]
                response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response

    def _refuse(self, request: HttpRequest) -> JsonResponse:
        message = f"X-Request-Id is up to {MAX_LENGTH} printable ASCII characters."
        return JsonResponse(errors.body(request, status=400, code="invalid_header", message=message), status=400)
