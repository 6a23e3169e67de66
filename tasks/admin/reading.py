"""What a page may cost and be asked: none is read for longer than an operator waits, or by text that is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import DatabaseError, DataError, OperationalError, connection
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.views.defaults import page_not_found
from psycopg.errors import QueryCanceled

# Of each statement. What streams a file is read after the page was answered, and takes the time that it needs.
SECONDS = 12


class ReadingMiddleware:
    """Ends what reads for too long, and says so; nothing has a NUL in its name."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response
        self.root = reverse("admin:index")

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.method not in ("GET", "HEAD") or not request.path_info.startswith(self.root):
            return self.get_response(request)
        with limited(SECONDS):
            return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not request.path_info.startswith(self.root):
            return None
        if isinstance(error, OperationalError) and isinstance(error.__cause__, QueryCanceled):
            return _too_slow(request)
        return page_not_found(request, Http404()) if _unread(request, error) else None


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """No statement of this thread's connection takes longer."""
    _run(f"SET statement_timeout = {int(seconds * 1000)}")
    try:
        yield
    finally:
        with suppress(DatabaseError):  # a connection that is lost has no limit any more
            _run("RESET statement_timeout")


def _run(statement: str) -> None:
    """Beside the statements of the page, which are counted."""
    connection.ensure_connection()
    with connection.wrap_database_errors:
        connection.connection.execute(statement)


def _too_slow(request: HttpRequest) -> HttpResponse:
    context = {**admin.site.each_context(request), "title": "This takes too long", "seconds": SECONDS}
    return render(request, "admin/counterfoil/slow.html", context, status=503)


def _unread(request: HttpRequest, error: Exception) -> bool:
    """Whether the address has what cannot be an id, what no column holds, or what no text holds."""
    return isinstance(error, (ValidationError, DataError)) or (isinstance(error, ValueError) and _has_nul(request))


def _has_nul(request: HttpRequest) -> bool:
    asked = [request.path_info, *(value for name, values in request.GET.lists() for value in (name, *values))]
    return any("\x00" in text for text in asked)
