"""Death in the middle of a verb: at a statement or around the commit, by an exception or by the end of the session."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import OperationalError, connection

MOMENTS = ("before", "after", "ended", "before commit", "ended commit", "after commit")


class Died(OperationalError):
    """The session ends here: what Django is told of one that was lost, so that it leaves the transaction."""


@dataclass
class Crash:
    """Die at the n-th statement, or around the first commit; `committed` says that there was one before."""

    moment: str
    at: int
    killer: psycopg.Connection
    committed: bool = False
    struck: bool = False
    _seen: int = field(default=0, repr=False)

    def attempt(self, verb: Callable[[], Any]) -> Any:
        """What the verb answers with, if it lives; else Died, with the session gone."""
        try:
            with self._armed():
                return verb()
        except OperationalError:
            if not self.struck:
                raise
            connection.close()
            raise Died from None

    @contextmanager
    def _armed(self) -> Iterator[None]:
        connection.ensure_connection()
        execute, commit = psycopg.Cursor.execute, connection._commit

        def executing(cursor, *args, **kwargs):
            if cursor.connection is not connection.connection or self.struck:
                return execute(cursor, *args, **kwargs)
            self._seen += 1
            if self._seen == self.at and self.moment in ("before", "ended"):
                self._die(now=self.moment == "before")
            done = execute(cursor, *args, **kwargs)
            if self._seen == self.at and self.moment == "after":
                self._die(now=True)
            return done

        def committing():
            if self.moment in ("before commit", "ended commit") and not self.struck:
                self._die(now=self.moment == "before commit")
            commit()
            self.committed = True
            if self.moment == "after commit" and not self.struck:
                self._die(now=True)

        psycopg.Cursor.execute, connection._commit = executing, committing
        try:
            yield
        finally:
            psycopg.Cursor.execute = execute
            del connection._commit

    def _die(self, *, now: bool) -> None:
        """Raise, or let PostgreSQL end the session so that what comes next finds it gone."""
        self.struck = True
        if now:
            raise Died
        pid = connection.connection.info.backend_pid
        self.killer.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
