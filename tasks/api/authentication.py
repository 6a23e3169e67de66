"""Bearer keys: who is calling, and what the key may do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from billing.credentials import digest
from billing.statements import one
from tasks.api.errors import AccountDisabled, InsufficientScope, InvalidApiKey, Unauthorized
from tasks.sql import load

SAFE = ("GET", "HEAD")


@dataclass(frozen=True)
class Caller:
    """The key behind a request, and its account."""

    account_id: UUID
    api_key_id: UUID
    prefix: str
    scopes: list[str]
    is_active: bool
    requests_per_minute: int
    is_authenticated = True

    @property
    def actor(self) -> str:
        return f"api_key:{self.prefix}"


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer cf_...`. Raises Unauthorized, InvalidApiKey or AccountDisabled."""

    def authenticate(self, request: Request) -> tuple[Caller, None]:
        row = one(load("caller"), {"digest": digest_of(request)})
        if row is None:
            raise InvalidApiKey
        caller = Caller(*row)
        if not caller.is_active:
            raise AccountDisabled
        return caller, None

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class HasScope(BasePermission):
    """A key needs one of the scopes that the endpoint names for reading, or for everything else."""

    def has_permission(self, request: Request, view: Any) -> bool:
        check_scope(request.user.scopes, view.reading if request.method in SAFE else view.writing)
        return True


def check_scope(scopes: list[str], enough: Sequence[str]) -> None:
    """Raises InsufficientScope unless one of the scopes is enough."""
    if not set(enough) & set(scopes):
        raise InsufficientScope(f"This API key lacks the scope {' or '.join(enough)}.")


def digest_of(request: Request) -> str:
    """The digest of the request's key. Raises Unauthorized without one, InvalidApiKey when it cannot be one."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthorized
    if not secret.isascii():
        raise InvalidApiKey
    return digest(secret)
