"""What of a task is looked up rather than read: its times, its policy, its ids."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing.admin.screens import compact, yes_or_no
from billing.models import per_unit
from tasks.models import Task


@dataclass(frozen=True)
class Group:
    """Pairs of a name and a value under a heading; an id is copied rather than read."""

    title: str
    pairs: list[tuple[str, Any]]
    ids: bool = False


def technical(task: Task, *, money: bool) -> list[Group]:
    return [_times(task), _policy(task), *([_quote(task)] if money else []), _ids(task)]


def _times(task: Task) -> Group:
    names = (
        "created_at", "not_before", "available_at", "started_at", "completed_at", "paused_at", "cancel_requested_at",
        "content_deleted_at", "expires_at", "deadline",
    )  # fmt: skip
    return Group("Times", [(_said(name), getattr(task, name)) for name in names if getattr(task, name)])


def _policy(task: Task) -> Group:
    names = (
        "queue", "priority", "attempt", "max_retries", "retries_left", "blocked", "seq", "capability", "resolved_model",
        "test_outcome", "callback_format",
    )  # fmt: skip
    pairs = [(_said(name), getattr(task, name)) for name in names if getattr(task, name) is not None]
    return Group("Work", [*pairs, ("timeout of a run", f"{task.timeout} s"), ("test", yes_or_no(task.test))])


def _quote(task: Task) -> Group:
    quote = task.quote
    rates = [
        (f"{rate['meter']} at", per_unit(Decimal(rate["credits"]), int(rate["unit_size"]), rate["unit"]))
        for rate in quote.get("rates", [])
    ]
    most = compact(quote.get("bound")) or "nothing metered"
    partial = yes_or_no(bool(quote.get("bills_partial_output")))
    pairs = [("most usage", most), *rates, ("bills partial output", partial)]
    return Group("Quote", [*pairs, ("usage", compact(task.usage) or "none"), ("credits for one USD", task.usd_rate)])


def _ids(task: Task) -> Group:
    pairs = [
        ("task", str(task)),
        ("task, as a UUID", task.pk),
        ("account", task.account_id),
        ("deployment", task.deployment_id),
        ("API key", task.api_key_id),
        ("first of its reruns", task.rerun_root),
        ("client reference", task.client_reference),
        ("idempotency key, hashed", task.idempotency_key),
        ("callback URL", task.callback_url),
    ]
    return Group("Ids", [(name, value) for name, value in pairs if value], ids=True)


def _said(name: str) -> str:
    return name.removesuffix("_at").replace("_", " ")
