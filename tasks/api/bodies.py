"""Reading a body: while it comes it keeps a thread, of which there are so many, and no connection to the database."""

from collections.abc import Hashable

from django.http import HttpRequest

from tasks.api import seats
from tasks.api.errors import InvalidJson, PayloadTooLarge
from tasks.api.preference import let_go

MAX_BODY = 2**20


class CutOff(InvalidJson):
    message = "The body ended before its end, or is empty though it was announced."


def take(request: HttpRequest, *, who: Hashable) -> bytes:
    """The whole body, which the request keeps. Raises PayloadTooLarge, CutOff or Unavailable."""
    length = None if in_chunks(request) else _length(request)
    if length is not None and length > MAX_BODY:
        raise PayloadTooLarge
    let_go()
    with seats.bodies.taken(who):
        raw = request.body
    if len(raw) > MAX_BODY:
        raise PayloadTooLarge
    if len(raw) < (1 if length is None else length):
        raise CutOff
    return raw


def announced(request: HttpRequest) -> bool:
    """Whether a body is to come."""
    return in_chunks(request) or _length(request) > 0


def in_chunks(request: HttpRequest) -> bool:
    return "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()


def _length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0
