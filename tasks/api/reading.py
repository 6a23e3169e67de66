"""One task and the key that asks for it, read in one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request

from billing.statements import one
from tasks.api.answers import as_json
from tasks.api.authentication import check_scope, digest_of
from tasks.api.errors import AccountDisabled, InvalidApiKey
from tasks.exceptions import TaskNotFound
from tasks.identifiers import parse_id
from tasks.sql import load


@dataclass(frozen=True)
class Reading:
    """A task as one key sees it. Without a seq there is none; without a text the client has seen it."""

    api_key_id: UUID
    requests_per_minute: int
    is_active: bool
    scopes: list[str]
    task_id: UUID
    seq: int | None
    retry_after: int | None
    text: str | None
    seen: int | None

    @classmethod
    def of(cls, request: Request, task_id: str, *, seen: int | None) -> Self:
        """Raises Unauthorized, InvalidApiKey or AccountDisabled."""
        row = one(load("read"), {"digest": digest_of(request), "id": parse_id(task_id), "seen": seen})
        if row is None:
            raise InvalidApiKey
        reading = cls(*row, seen)
        if not reading.is_active:
            raise AccountDisabled
        return reading

    def check(self, enough: Sequence[str]) -> None:
        """Raises InsufficientScope or TaskNotFound."""
        check_scope(self.scopes, enough)
        if self.seq is None:
            raise TaskNotFound

    @property
    def unchanged(self) -> bool:
        return self.seq is not None and self.seq == self.seen

    @property
    def final(self) -> bool:
        return self.retry_after is None

    def response(self) -> HttpResponse:
        """The whole object, or 304."""
        response = as_json(self.text) if self.text else HttpResponse(status=304)
        response["ETag"] = f'"{self.seq}"'
        if self.retry_after:
            response["Retry-After"] = str(self.retry_after)
        return response
