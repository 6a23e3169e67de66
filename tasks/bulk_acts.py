"""The acts of a bulk action: each a verb, whose it may be, and how it is done once though its worker may die in it.

Refunds and reruns carry the row's key, which their verbs honour; a redelivery the moment at which all were asked for.
The others leave an event: where a row was begun before and its event is there, it was done then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from django.db.models import Sum

from billing.exceptions import Refusal
from billing.models import Transfer
from tasks import callbacks, lifecycle
from tasks.exceptions import IllegalMove, TaskNotFound
from tasks.identifiers import public_id
from tasks.models import BulkAction, BulkActionRow, Callback, Task, TaskEvent
from tasks.refunds import ALREADY as REFUNDED_BEFORE
from tasks.refunds import REFUNDED, Batch, Share
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
    """An act on a row of an action, whose permission it needs, and the event that proves that it was done."""

    permission: str
    verb: Callable[[BulkAction, BulkActionRow], Did]
    event: str = ""
    moves: str = ""


def perform(action: BulkAction, row: BulkActionRow, *, begun_before: bool) -> Did:
    """Do it to the row's task, or find that it was done. Raises Refusal or IllegalMove, and nothing is done then."""
    act = ACTS[action.act]
    if begun_before and _is_proven(act, action, row):
        return Did("Done, before its worker was lost.")
    try:
        return act.verb(action, row)
    except REFUSALS:
        if _is_proven(act, action, row):
            return Did("Done, by a worker that was thought lost.")
        raise


def _is_proven(act: BulkAct, action: BulkAction, row: BulkActionRow) -> bool:
    """Whether the act's event was written for this operator since the row was begun."""
    since = TaskEvent.objects.filter(task_id=row.task_id, actor=action.by, created_at__gte=row.begun_at)
    return bool(act.event) and since.filter(type=act.event).exists()


def _cancel(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.cancel(row.task_id, by=action.by, reason=action.reason):
        raise No("It has ended.")
    released = Transfer.objects.filter(task_id=row.task_id, kind="release")
    return Did("Canceled.", released.aggregate(total=Sum("amount"))["total"] or Decimal(0))


def _pause(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.pause(row.task_id, by=action.by, reason=action.reason):
        raise No("It is paused already.")
    return Did("Paused.")


def _resume(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.resume(row.task_id, by=action.by, reason=action.reason):
        raise No("It is not paused.")
    return Did("Resumed.")


def _extend(action: BulkAction, row: BulkActionRow) -> Did:
    """The deadline was foretold, so that minutes are not given twice."""
    if row.target is None:
        raise No("No new deadline was foretold.")
    lifecycle.extend_deadline(row.task_id, row.target, by=action.by, reason=action.reason)
    return Did(f"Its deadline is {row.target:%Y-%m-%d %H:%M:%S} UTC.")


def _reprioritize(action: BulkAction, row: BulkActionRow) -> Did:
    priority = int(action.data["priority"])
    if not lifecycle.change_priority(row.task_id, priority, by=action.by, reason=action.reason):
        raise No("It has this priority already.")
    return Did(f"Its priority is {priority}.")


def _refund(action: BulkAction, row: BulkActionRow) -> Did:
    percent = action.data.get("percent")
    share = Share(percent=Decimal(percent) if percent else None)
    batch = Batch(action.pk, share, action.reason, action.by)
    found = next(batch.refund(Task.objects.filter(pk=row.task_id)), None)
    if found is None:
        raise TaskNotFound
    if found.outcome not in (REFUNDED, REFUNDED_BEFORE):
        raise No(found.why or "Nothing was charged.")
    return Did(f"Refunded {found.credits:f}.", found.credits)


def _redeliver(action: BulkAction, row: BulkActionRow) -> Did:
    """Of a task's own callbacks, the newest that has something to send. Nobody owes one twice since the start."""
    own = Callback.objects.filter(task_id=row.task_id, endpoint=None).exclude(body="")
    newest = own.only("pk", "redelivered_at").order_by("-pk").first()
    if newest is None:
        raise No("It has no callback to send.")
    only = Callback.objects.filter(pk=newest.pk)
    owed = callbacks.redeliver_many(only, since=action.started_at, by=action.by, reason=action.reason)
    if not owed and not only.filter(redelivered_at__gte=action.started_at).exists():
        raise No("Its content was deleted.")
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
        **_keyed(action, row),
    )
    return Did(f"Submitted again as {public_id(again.task_id)}.", row.credits)


def _rerun_free(action: BulkAction, row: BulkActionRow) -> Did:
    again = lifecycle.rerun_free(row.task_id, by=action.by, reason=action.reason, **_keyed(action, row))
    return Did(f"Submitted again, free of charge, as {public_id(again.task_id)}.")


def _account_of(row: BulkActionRow) -> UUID:
    account_id = Task.objects.filter(pk=row.task_id).values_list("account_id", flat=True).first()
    if account_id is None:
        raise TaskNotFound
    return account_id


def _keyed(action: BulkAction, row: BulkActionRow) -> dict[str, str]:
    key = stored_key("bulk", str(action.pk), str(row.task_id))
    return {"idempotency_key": key, "fingerprint": key}


def _delete(action: BulkAction, row: BulkActionRow) -> Did:
    if not lifecycle.delete_content(row.task_id, by=action.by, reason=action.reason):
        raise No("It is deleted already.")
    return Did("Deleted its content.")


ACTS = {
    "cancel": BulkAct("tasks.cancel_task", _cancel, "task.canceled", "released"),
    "pause": BulkAct("tasks.pause_task", _pause, "task.paused"),
    "resume": BulkAct("tasks.pause_task", _resume, "task.resumed"),
    "extend_deadline": BulkAct("tasks.extend_deadline", _extend, "task.deadline_extended"),
    "change_priority": BulkAct("tasks.change_priority", _reprioritize, "task.priority_changed"),
    "refund": BulkAct("billing.refund_charge", _refund, moves="refunded"),
    "redeliver": BulkAct("tasks.redeliver_callback", _redeliver),
    "rerun": BulkAct("tasks.rerun_task", _rerun, moves="held"),
    "rerun_free": BulkAct("tasks.rerun_task", _rerun_free),
    "delete_content": BulkAct("tasks.delete_content", _delete, "task.content_deleted"),
}
