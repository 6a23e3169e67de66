"""What a request passes first: its id, a look at the headers that Django trips on, and what a slow client may keep."""

from collections.abc import Callable, Iterator
from urllib.parse import unquote
from uuid import uuid4

from django.core.exceptions import DisallowedHost, TooManyFieldsSent
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.utils.http import parse_header_parameters
from structlog.contextvars import bound_contextvars

from billing.exceptions import Refusal
from billing.redaction import SECRET
from tasks.api import bodies, errors, seats
from tasks.api.endpoint import STREAM
from tasks.api.preference import let_go

MAX_LENGTH = 128
LONGEST_HEADER = 1000


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
                wrong = f"X-Request-Id is up to {MAX_LENGTH} printable ASCII characters."
                response = _refuse(request, errors.InvalidHeader(wrong))
            elif wrong := _wrong_with(request):
                response = _refuse(request, errors.InvalidHeader(wrong))
            else:
                response = self.get_response(request)
        response["X-Request-Id"] = request.request_id  # type: ignore[attr-defined]
        return response


class SlowClientMiddleware:
    """Reads what is sent to anything but the API, whose keys come first, and gives each file that is sent a seat."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        try:
            if bodies.announced(request) and not _of_the_api(request):
                bodies.take(request, who="without a key")
            response = self.get_response(request)
            return _seated(request, response)
        except Refusal as refusal:
            return _refuse(request, refusal)


def _seated(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """The response, which has a seat if it is a file; a stream has a place already. Raises Unavailable."""
    if isinstance(response, StreamingHttpResponse) and response["Content-Type"] != STREAM:
        let_go()
        try:
            response.streaming_content = Sent(response, who=_of_the_api(request))
        except errors.Unavailable:
            response.close()
            raise
    return response


class Sent:
    """A file on its way; it has a seat until it is closed, sent or not. Raises Unavailable."""

    def __init__(self, response: StreamingHttpResponse, *, who: bool) -> None:
        seats.files.take(who)
        self._pieces, self._who, self._open = response.streaming_content, who, True

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    def close(self) -> None:
        if self._open:
            self._open = False
            seats.files.leave(self._who)


def _of_the_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/v1/")


def _wrong_with(request: HttpRequest) -> str | None:
    """What a request says that takes long to read, or makes Django answer the API's with a page and a traceback."""
    long = request.META.get("counterfoil.long_header")
    if long or len(request.headers.get("Accept", "")) > LONGEST_HEADER:
        return f"{long or 'Accept'} is longer than {LONGEST_HEADER} characters."
    if not _of_the_api(request):
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


def _refuse(request: HttpRequest, refusal: Refusal) -> HttpResponse:
    headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after else {}
    told = errors.body(request, code=refusal.code, message=refusal.message)
    return JsonResponse(told, status=refusal.status, headers=headers)
