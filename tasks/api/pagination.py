"""Pages, bounded in rows and bytes. Cursors are opaque and signed: they survive inserts, and belong to the filters
they were made with.
"""

import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from uuid import UUID

from django.core import signing
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet
from rest_framework.request import Request

from tasks.api.errors import InvalidCursor
from tasks.exceptions import Invalid
from tasks.sql import load

SALT = "tasks.cursor"
DEFAULT, MOST = 20, 100
MOST_BYTES = 8 * 2**20
FREE = {"cursor", "limit", "expand"}


@dataclass(frozen=True)
class Page:
    """Where a list begins, how long it is and which way it runs."""

    after: str | None
    limit: int
    descending: bool
    filters: str

    def read(self, tasks: QuerySet, parts: list[str] | None) -> tuple[list[tuple[UUID, str | None]], bool]:
        """The ids and JSON of the page, and whether there is another; of a task deleted meanwhile, the id only.

        The page ends with the task that makes it `MOST_BYTES` long; none after it is built.
        """
        try:
            ids, params = self._ids(tasks).query.sql_with_params()
        except EmptyResultSet:
            return [], False
        with connection.cursor() as cursor:
            cursor.execute(load("list").format(ids=ids), [*params, parts, MOST_BYTES, self.limit])
            rows = cursor.fetchall()
        return [row[:2] for row in rows], bool(rows) and rows[-1][2]

    def _ids(self, tasks: QuerySet) -> QuerySet:
        return self._part(tasks, "id").values("id")

    def rows(self, rows: QuerySet, *, by: str) -> tuple[list[Any], bool]:
        """The rows of the page, in the order of a column that no two of them share, and whether there is another."""
        found = list(self._part(rows, by))
        return found[: self.limit], len(found) > self.limit

    def _part(self, rows: QuerySet, by: str) -> QuerySet:
        """One row more than the page, so that it is known whether there is another page."""
        if self.after is not None:
            rows = rows.filter(**{f"{by}__lt" if self.descending else f"{by}__gt": self.after})
        return rows.order_by(f"-{by}" if self.descending else by)[: self.limit + 1]

    def cursor(self, last: object) -> str:
        """The cursor of the page that follows this row."""
        return signing.dumps([str(last), self.filters], salt=SALT, compress=False)


def page_of(request: Request) -> Page:
    """The page a request asks for. Raises Invalid or InvalidCursor."""
    order = request.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        raise Invalid("The order is asc or desc.", param="/order")
    filters = _fingerprint(request)
    return Page(_after(request, filters), _limit(request), order == "desc", filters)


def _limit(request: Request) -> int:
    given = request.query_params.get("limit", str(DEFAULT))
    if not (given.isascii() and given.isdigit() and len(given) < 10 and int(given) >= 1):
        raise Invalid(f"The limit is a number from 1 to {MOST}.", param="/limit")
    return min(int(given), MOST)


def _after(request: Request, filters: str) -> str | None:
    given = request.query_params.get("cursor")
    if given is None:
        return None
    try:
        last, made_with = signing.loads(given, salt=SALT)
    except signing.BadSignature as error:
        raise InvalidCursor(param="/cursor") from error
    if made_with != filters:
        raise InvalidCursor(param="/cursor")
    return str(last)


def _fingerprint(request: Request) -> str:
    """What a cursor is bound to: the list, the account and every filter."""
    given = parse_qsl(request.META.get("QUERY_STRING", ""), keep_blank_values=True)
    pairs = sorted(pair for pair in given if pair[0] not in FREE)
    return hashlib.sha256(repr((request.path, request.user.account_id, pairs)).encode()).hexdigest()[:16]
