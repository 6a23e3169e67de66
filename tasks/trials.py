"""Test runs: an operator tries a deployment with a real task, on the house's own account."""

from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

from billing import ledger
from billing.exceptions import InsufficientBalance, Refusal
from billing.house import house_account
from tasks import lifecycle, submission
from tasks.submission import Quoted, Request, Submitted, fingerprint, stored_key


def quote(model: str, input_: dict[str, Any]) -> Quoted:
    """What a test run costs at most. Refused as its submission would be, but for balance and room."""
    return submission.quote(_request(model, input_, by="system"))


def try_out(model: str, input_: dict[str, Any], *, key: UUID, by: str, reason: str) -> Submitted:
    """Submit it on the house's account, which is granted what it lacks with the task; the same key is the same task."""
    house = house_account()
    if not house.is_active:
        raise Refusal("The house's own account is disabled. Enable it first.")
    name = stored_key("admin", "try", str(key))
    request = _request(model, input_, by=by, idempotency_key=name, fingerprint=fingerprint([model, input_]))
    try:
        return lifecycle.submit(request)
    except InsufficientBalance:
        grant = partial(ledger.grant, house.pk, key=f"try:{key}", reason=reason, actor=by)
        return lifecycle.submit(replace(request, first=grant))


def _request(model: str, input_: dict[str, Any], *, by: str, **fields: str) -> Request:
    return Request(account_id=house_account().pk, api_key_id=None, actor=by, model=model, input=input_, **fields)
