"""The WSGI application."""

import codecs
import os
from collections.abc import Callable, Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

from config import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
embedded.ensure()

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
MOST = 2**20
LONGEST_HEADER = 1000  # what reads a header of this kind takes time by the square of its length
CHARSETS = {"utf-8", "ascii", "iso8859-1"}


def bounded(application: Application) -> Application:
    """Give a body that comes in chunks a length, which Django goes by; one byte too many is enough to refuse it."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            environ = environ | {"CONTENT_LENGTH": str(MOST + 1)}
        return application(environ, start_response)

    return answer


def legible(application: Application) -> Application:
    """Take a content type that Django cannot read, and would fail on in silence, for one that nobody knows.

    One that takes long to read is left to the middleware, which refuses it.
    """

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        given = environ.get("CONTENT_TYPE", "")
        if len(given) > LONGEST_HEADER:
            environ = environ | {"CONTENT_TYPE": "", "counterfoil.long_header": "Content-Type"}
        elif not _readable(given):
            environ = environ | {"CONTENT_TYPE": "application/octet-stream"}
        return application(environ, start_response)

    return answer


def _readable(content_type: str) -> bool:
    try:
        _, options = parse_header_parameters(content_type)
        return codecs.lookup(options.get("charset", "utf-8")).name in CHARSETS
    except Exception:  # the header is the client's; what it makes the parser raise is not for us to list
        return False


application = bounded(legible(get_wsgi_application()))
