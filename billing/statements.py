"""Hot statements, prepared on the server.

Django prepares nothing: it passes no threshold and binds on the client, and planning these statements costs four times
their execution. `wrap_database_errors` keeps Django informed of a connection that died.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection
from psycopg.types.json import JsonbLoader


def one(statement: str, params: Mapping[str, Any] | Sequence[Any]) -> tuple[Any, ...] | None:
    """The first row of the prepared statement, or None."""
    with _cursor() as cursor:
        return cursor.execute(statement, params, prepare=True).fetchone()


def rows(statement: str, params: Mapping[str, Any] | Sequence[Any]) -> list[tuple[Any, ...]]:
    """Every row of the prepared statement."""
    with _cursor() as cursor:
        return cursor.execute(statement, params, prepare=True).fetchall()


@contextmanager
def _cursor() -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
    """A cursor that binds on the server and reads jsonb, which Django's own connection leaves as text."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        cursor.adapters.register_loader("jsonb", JsonbLoader)
        yield cursor


def constraint_of(error: Exception) -> str | None:
    """The name of the constraint or guard that refused, if one did."""
    return getattr(getattr(error.__cause__, "diag", None), "constraint_name", None)
