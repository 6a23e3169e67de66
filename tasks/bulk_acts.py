"""The acts of a bulk action: each a verb, whose it may be, and how it is done once though its worker may die in it.

Every verb is given the key of its row, which is the same in all retries of an action: done again, it is the act that
was done. What moves credits or time, or makes a copy, is also given what the row showed when it was foretold, and is
refused when the row shows something else by now.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db.models import Sum

from billing.exceptions import Refusal
from billing.models import Transfer
from tasks import callbacks, events, lifecycle
from tasks.exceptions import IllegalMove, TaskNotFound
from tasks.identifiers import public_id
from tasks.models import BulkAction, BulkActionRow, Task
from tasks.submission import stored_key

REFUSALS = (Refusal, IllegalMove)


@dataclass(frozen=True)
class Did:
    """What was done to a task, in a sentence, and the credits that it moved."""

    told: str
    moved: Decimal | None = None


class No(Refusal):
    """The act is not for this task, or not any more."""


@dataclass(frozen=True)
class BulkAct:
    """An act on a row of an action, whose permission it needs, and what its credits are."""

    permission: str
    verb: Callable[[BulkAction, BulkActionRow], Did]
    moves: str = ""


def perform(action: BulkAction, row: BulkActionRow) -> Did:
    """Do it to the row's task, or find that it was done. Raises Refusal or IllegalMove, and nothing is done then."""
    return ACTS[action.act].verb(action, row)


def was_done(action: BulkAction, row: BulkActionRow) -> bool:
    """Whether the row's act is done: by its transfer, its new task or its event, whichever has its key."""
    key = _key(action, row)
    return (
        events.was_done(row.task_id, key)
        or Transfer.objects.filter(key=key).exists()
        or Task.objects.filter(
            account__in=Task.objects.filter(pk=row.task_id).values("account"), idempotency_key=stored_key(key)
        ).exists()
    )


def _key(action: BulkAction, row: BulkActionRow) -> str:
    return f"bulk:{action.root}:{row.task_id}"


def _said(action: BulkAction, row: BulkActionRow) -> dict[str, str]:
    """Who, why, and the key that makes a repeated act the same act."""
    return {"by": action.by, "reason": action.reason, "key": _key(action, row)}


def _cancel(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.cancel(row.task_id, **_said(action, row)):
        raise No("It has ended.")
    released = Transfer.objects.filter(task_id=row.task_id, kind="release")
    return Did("Canceled.", released.aggregate(total=Sum("amount"))["total"] or Decimal(0))


def _pause(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.pause(row.task_id, **_said(action, row)):
        raise No("It is paused already.")
    return Did("Paused.")


def _resume(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.resume(row.task_id, **_said(action, row)):
        raise No("It is not paused.")
    return Did("Resumed.")


def _extend(action: BulkAction, row: BulkActionRow) -> Did:
    """The deadline was foretold from the one that is seen, so that minutes are not given twice."""
    if row.target is None:
        raise No("No new deadline was foretold.")
    seen = datetime.fromisoformat(row.seen)
    lifecycle.extend_deadline(row.task_id, row.target, seen=seen, **_said(action, row))
    return Did(f"Its deadline is {row.target:%Y-%m-%d %H:%M:%S} UTC.")


def _reprioritize(action: BulkAction, row: BulkActionRow) -> Did:
    priority = int(action.data["priority"])
    if not lifecycle.change_priority(row.task_id, priority, **_said(action, row)):
        raise No("It has this priority already.")
    return Did(f"Its priority is {priority}.")


def _refund(action: BulkAction, row: BulkActionRow) -> Did:
    """What was foretold, of what was left then."""
    given = lifecycle.refund(row.task_id, row.credits, seen=Decimal(row.seen or 0), **_said(action, row))
    return Did(f"Refunded {given.amount:f}.", given.amount)


def _redeliver(action: BulkAction, row: BulkActionRow) -> Did:
    callbacks.redeliver(row.task_id, **_said(action, row))
    return Did("Its callback is due again.")


def _rerun(action: BulkAction, row: BulkActionRow) -> Did:
    """At the price that was foretold; another is refused."""
    again = lifecycle.rerun(
        row.task_id,
        account_id=_account_of(row),
        api_key_id=None,
        actor=action.by,
        because=action.reason,
        agreed=row.credits,
        reruns=int(row.seen),
        **_keyed(action, row),
    )
    return Did(f"Submitted again as {public_id(again.task_id)}.", row.credits)


def _rerun_free(action: BulkAction, row: BulkActionRow) -> Did:
    again = lifecycle.rerun_free(
        row.task_id, by=action.by, reason=action.reason, reruns=int(row.seen), **_keyed(action, row)
    )
    return Did(f"Submitted again, free of charge, as {public_id(again.task_id)}.")


def _account_of(row: BulkActionRow) -> UUID:
    account_id = Task.objects.filter(pk=row.task_id).values_list("account_id", flat=True).first()
    if account_id is None:
        raise TaskNotFound
    return account_id


def _keyed(action: BulkAction, row: BulkActionRow) -> dict[str, str]:
    key = stored_key(_key(action, row))
    return {"idempotency_key": key, "fingerprint": key}


def _delete(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.delete_content(row.task_id, **_said(action, row)):
        raise No("It is deleted already.")
    return Did("Deleted its content.")


ACTS = {
    "cancel": BulkAct("tasks.cancel_task", _cancel, moves="released"),
    "pause": BulkAct("tasks.pause_task", _pause),
    "resume": BulkAct("tasks.pause_task", _resume),
    "extend_deadline": BulkAct("tasks.extend_deadline", _extend),
    "change_priority": BulkAct("tasks.change_priority", _reprioritize),
    "refund": BulkAct("billing.refund_charge", _refund, moves="refunded"),
    "redeliver": BulkAct("tasks.redeliver_callback", _redeliver),
    "rerun": BulkAct("tasks.rerun_task", _rerun, moves="held"),
    "rerun_free": BulkAct("tasks.rerun_task", _rerun_free),
    "delete_content": BulkAct("tasks.delete_content", _delete),
}
