"""The WSGI application."""

import os
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from django.core.wsgi import get_wsgi_application

from config import embedded

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
embedded.ensure()

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
MOST = 2**20


def whole(application: Application) -> Application:
    """Give a body that comes in chunks its length, which Django goes by; one byte too many is enough to refuse it."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
            body = environ["wsgi.input"].read(MOST + 1)
            environ = environ | {"wsgi.input": BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return application(environ, start_response)

    return answer


application = whole(get_wsgi_application())
