"""The WSGI application."""

import codecs
import os
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.utils.http import parse_header_parameters

from config import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
embedded.ensure()

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
MOST = 2**20
CHARSETS = {"utf-8", "ascii", "iso8859-1"}


def whole(application: Application) -> Application:
    """Give a body that comes in chunks its length, which Django goes by; one byte too many is enough to refuse it."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            body = environ["wsgi.input"].read(MOST + 1)
            environ = environ | {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return application(environ, start_response)

    return answer


def legible(application: Application) -> Application:
    """Take a content type that Django cannot read, and would fail on in silence, for one that nobody knows."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not _readable(environ.get("CONTENT_TYPE", "")):
            environ = environ | {"CONTENT_TYPE": "application/octet-stream"}
        return application(environ, start_response)

    return answer


def _readable(content_type: str) -> bool:
    try:
        _, options = parse_header_parameters(content_type)
        return codecs.lookup(options.get("charset", "utf-8")).name in CHARSETS
    except Exception:  # the header is the client's; what it makes the parser raise is not for us to list
        return False


application = whole(legible(get_wsgi_application()))
