"""What a request passes first: its id, the client's or one of ours, and a look at the headers that Django trips on."""

from collections.abc import Callable
from urllib.parse import unquote
from uuid import uuid4

from django.core.exceptions import DisallowedHost, TooManyFieldsSent
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.http import parse_header_parameters
from structlog.contextvars import bound_contextvars

from billing.redaction import SECRET
from tasks.api import errors

MAX_LENGTH = 128


class RequestIdMiddleware:
    """Echoes `X-Request-Id` (up to 128 printable ASCII characters), or makes one; refuses headers nobody can read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.headers.get("X-Request-Id", "")
        fits = len(given) <= MAX_LENGTH and given.isascii() and given.isprintable()
        request.request_id = given if given and fits else f"req_{uuid4().hex}"  # type: ignore[attr-defined]
        with bound_contextvars(request_id=request.request_id):  # type: ignore[attr-defined]
            if not fits:
                response = _refuse(request, f"X-Request-Id is up to {MAX_LENGTH} printable ASCII characters.")
            elif wrong := _wrong_with(request):
                response = _refuse(request, wrong)
            else:
                response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response


def _wrong_with(request: HttpRequest) -> str | None:
    """What a request of the API says that would make Django answer with a page, and log a traceback."""
    if not request.path_info.startswith("/v1/"):
        return None
    if SECRET.search(unquote(request.get_full_path_info())):
        return "A key stands in the Authorization header and never in a URL, which others log."
    try:
        request.get_host()
        len(request.GET)
        for accepted in request.headers.get("Accept", "").split(","):
            parse_header_parameters(accepted)
    except DisallowedHost:
        return "Host is not a name that this service goes by."
    except TooManyFieldsSent:
        return "The query has too many parameters."
    except Exception:  # Django's parser says in many ways that it cannot read a header
        return "Accept cannot be read."
    return None


def _refuse(request: HttpRequest, message: str) -> HttpResponse:
    return JsonResponse(errors.body(request, code="invalid_header", message=message), status=400)
