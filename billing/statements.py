"""Hot statements, prepared on the server.

Django prepares nothing: it passes no threshold and binds on the client, and planning these statements costs four times
their execution. `wrap_database_errors` keeps Django informed of a connection that died.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import connection


def one(statement: str, params: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The first row of the prepared statement, or None."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(statement, params, prepare=True).fetchone()


def rows(statement: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Every row of the prepared statement."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(statement, params, prepare=True).fetchall()


def constraint_of(error: Exception) -> str | None:
    """The name of the constraint or guard that refused, if one did."""
    return getattr(getattr(error.__cause__, "diag", None), "constraint_name", None)
