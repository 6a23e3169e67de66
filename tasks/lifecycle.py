"""The verbs of a task's life. Each owns its transaction, moves a status by the one table, and writes history with it.

    submit  claim  progress  succeed  fail  retry  give_back  cancel  expire  rerun  rerun_free  refund
    pause  resume  change_priority  extend_deadline  delete_content

Whoever locks the task's row first wins; the other changes nothing. A worker's verbs carry its lease token and raise
LeaseLost when it was refused. Locks that wait are taken in one order: task, then account (by the triggers).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import OperationalError, transaction
from psycopg.errors import LockNotAvailable
from psycopg.types.json import Json, Jsonb
from uuid_utils.compat import uuid7

from billing import ledger, pricing
from billing.exceptions import ChangedSince, KeyReused, NothingCharged
from billing.failpoints import here, once_committed
from billing.models import Charge, Transfer, UsageLine
from billing.statements import one, rows
from tasks import artifacts, bills, callbacks, events, queues, wire
from tasks.bills import NOTHING
from tasks.content import delete_content
from tasks.exceptions import IllegalMove, LeaseLost, TaskNotFound
from tasks.models.fields import dumps
from tasks.models.task import NO_PROGRESS
from tasks.sql import load
from tasks.statuses import FINAL, MOVES, Created, ErrorCode, Resolved, RunStatus, Status
from tasks.submission import rerun, rerun_free, submit
from tasks.waiting import change_priority, extend_deadline, pause, resume

__all__ = [
    "cancel", "change_priority", "claim", "delete_content", "expire", "expire_many", "extend_deadline", "fail",
    "give_back", "give_up", "give_up_many", "pause", "progress", "publish", "refund", "renew", "rerun", "rerun_free",
    "resume", "retry", "submit", "succeed",
]  # fmt: skip

MAX_BACKOFF_SECONDS = 600
# How often a claim looks again after somebody else was faster; the sweeper makes up for one that gave up.
RACES = 20
# How long it waits for an account whose row somebody holds, for instance one that submits without a pause.
PATIENCE = "1s"
# How often in a row a task is given back free of charge. Deployments of new workers need a few; work that ends its own
# worker would go on for ever.
FREE_RETURNS = 5
RETURNS = """
SELECT count(*) FROM tasks_run
WHERE task_id = %(id)s AND number < %(attempt)s AND number > (
    SELECT coalesce(max(number), 0) FROM tasks_run
    WHERE task_id = %(id)s AND number < %(attempt)s AND reason_resolved <> 'worker_shutdown')
"""
RESOLUTIONS = {
    ErrorCode.CAPABILITY_ERROR: (RunStatus.FAILED, Resolved.FAILED),
    ErrorCode.INVALID_INPUT: (RunStatus.EXCEPTION, Resolved.MALFORMED_PAYLOAD),
    ErrorCode.UPSTREAM_ERROR: (RunStatus.FAILED, Resolved.UPSTREAM_ERROR),
    ErrorCode.TIMEOUT: (RunStatus.FAILED, Resolved.TIMEOUT),
    ErrorCode.EXPIRED: (RunStatus.EXCEPTION, Resolved.EXPIRED),
    ErrorCode.DEADLINE_EXCEEDED: (RunStatus.EXCEPTION, Resolved.DEADLINE_EXCEEDED),
    ErrorCode.WORKER_LOST: (RunStatus.EXCEPTION, Resolved.CLAIM_EXPIRED),
    ErrorCode.DEPENDENCY_FAILED: (RunStatus.EXCEPTION, Resolved.RESOURCE_UNAVAILABLE),
    ErrorCode.INTERNAL_ERROR: (RunStatus.EXCEPTION, Resolved.INTERNAL_ERROR),
}
BILLED_IN_PART = {ErrorCode.TIMEOUT, ErrorCode.DEADLINE_EXCEEDED}


@dataclass(frozen=True)
class Claim:
    """A run that is ours until its lease ends."""

    token: UUID
    task_id: UUID
    account_id: UUID
    capability: str
    resolved_model: str
    input: dict[str, Any]
    attempt: int
    timeout: int
    time_left: timedelta
    settings: dict[str, Any]
    quote: dict[str, Any]
    test: bool
    test_outcome: str | None


@dataclass(frozen=True)
class Locked:
    """A task's row under lock, as `lock.sql` reads it."""

    id: UUID
    account_id: UUID
    status: Status
    seq: int
    queue: str
    attempt: int
    retries_left: int
    quoted: Decimal
    quote: dict[str, Any]
    waived: bool
    usd_rate: Decimal
    started: bool
    callback_url: str | None
    callback_format: str
    token: UUID | None
    usage: dict[str, str]
    partial_text: str
    overdue: bool
    past_ttl: bool
    lease_over: bool | None
    held: Decimal


def claim(queue: str, *, worker: str) -> Claim | None:
    """Take the next eligible task of a queue, or None: nothing is eligible, or every race was lost."""
    try:
        return _race(queue, worker=worker)
    except OperationalError as error:
        if isinstance(error.__cause__, LockNotAvailable):
            return None
        raise


def _race(queue: str, *, worker: str) -> Claim | None:
    """Try one account after the other; where all that are eligible are busy, wait for the first of them."""
    token = uuid4()
    asked = {"queue": queue, "worker": worker, "token": token, "lease": settings.LEASE_SECONDS}
    lost: list[UUID] = []
    for _ in range(RACES):
        row = _try(asked, lost=lost)
        if waited := row is None and bool(lost):
            row = _try(asked, lost=[], held=lost[0])
        if row and row[0]:
            wire.look_on_commit(row[0])
            return Claim(token, *row)
        if row is None and not waited:
            return None
        lost = [*lost, row[1]] if row and not waited else []
    return None


@transaction.atomic(durable=True)
def _try(asked: dict[str, Any], *, lost: list[UUID], held: UUID | None = None) -> tuple[Any, ...] | None:
    """Claim once; of an account that is to be `held`, wait for the row first, for a moment and with nothing in hand."""
    if held:
        one("SELECT set_config('lock_timeout', %(patience)s, true)", {"patience": PATIENCE})
        one("SELECT FROM billing_account WHERE id = %(id)s FOR NO KEY UPDATE", {"id": held})
    return one(load("claim"), asked | {"progress": Jsonb(NO_PROGRESS), "lost": lost, "held": held})


def renew(token: UUID) -> float | None:
    """Extend the lease; the seconds that are left to the deadline. None says that it was lost: the work is to stop."""
    row = one(load("renew"), {"token": token, "lease": settings.LEASE_SECONDS})
    return row[0] if row else None


def progress(claimed: Claim, *, percent: float | None, stage: str | None, message: str | None) -> None:
    """Show how far the work is. Raises LeaseLost."""
    shown = Jsonb({"percent": percent, "stage": stage, "message": message})
    if one(load("progress"), {"id": claimed.task_id, "token": claimed.token, "progress": shown}) is None:
        raise LeaseLost
    wire.look_on_commit(claimed.task_id)


def publish(claimed: Claim, *, text: str, offset: int, usage: dict[str, Decimal]) -> None:
    """Keep streamed text, from an offset in characters on, and the usage so far in the run's row. Raises LeaseLost."""
    measured = Jsonb({meter: f"{quantity:f}" for meter, quantity in usage.items()})
    said = {"token": claimed.token, "text": text, "offset": offset, "usage": measured}
    if one(load("publish"), said) is None:
        raise LeaseLost
    wire.say_on_commit(claimed.task_id, attempt=claimed.attempt, offset=offset, text=text)


@transaction.atomic(durable=True)
def succeed(
    claimed: Claim,
    *,
    output: Any,
    usage: dict[str, Decimal],
    warnings: list[dict[str, Any]],
    estimated: frozenset[str] = frozenset(),
    files: Sequence[artifacts.Made] = (),
) -> None:
    """End the run well: lines, capture, release, artifacts, status, event and callback, or LeaseLost and nothing."""
    task = _locked_by(claimed)
    artifacts.record(claimed.token, files)
    _end(
        [task],
        Status.SUCCEEDED,
        (RunStatus.SUCCEEDED, Resolved.COMPLETED),
        bill=bills.billed(usage, bills.rates_of(task.quote), held=task.held, waived=task.waived, estimated=estimated),
        output=output,
        usage=usage,
        warnings=warnings,
    )


USAGE_EXCEEDS_QUOTE = {
    "code": "usage_exceeds_quote",
    "message": "The usage lists for more than the quote; only the quote was charged.",
    "field": None,
}


@transaction.atomic(durable=True)
def fail(claimed: Claim, *, code: ErrorCode, message: str, retryable: bool = False) -> None:
    """End the run badly, free of charge unless its quote bills partial output. Raises LeaseLost."""
    _fail([_locked_by(claimed)], code, message, retryable=retryable)


@transaction.atomic(durable=True)
def retry(claimed: Claim, *, code: ErrorCode, message: str, resolved: Resolved) -> None:
    """Queue the task again after a back-off, or fail it when no retries are left. Raises LeaseLost."""
    _retry_or_fail([_locked_by(claimed)], code, message, resolved=resolved)


@transaction.atomic(durable=True)
def give_back(claimed: Claim) -> None:
    """Queue the task of a worker that is shut down again: free, and at once the first time, after a back-off the next
    times in a row; from the sixth time on it is a retry. Raises LeaseLost."""
    task = _locked_by(claimed)
    returns = one(RETURNS, {"id": task.id, "attempt": task.attempt})[0]
    _retry_or_fail(
        [task],
        ErrorCode.WORKER_LOST,
        "The worker was shut down.",
        resolved=Resolved.WORKER_SHUTDOWN,
        spend=0 if returns < FREE_RETURNS else 1,
        delay=backoff(returns) if returns else 0,
    )


@transaction.atomic(durable=True)
def cancel(task_id: UUID, *, by: str, reason: str | None = None, key: str | None = None) -> bool:
    """Cancel at once. False says that the task had already ended, and not by this key, and that nothing changed."""
    task = _lock(task_id)
    if task.status in FINAL:
        return events.was_done(task_id, key)
    _end(
        [task],
        Status.CANCELED,
        (RunStatus.EXCEPTION, Resolved.CANCELED),
        bill=_partial_bill(task),
        actor=by,
        cancel_reason=reason,
        key=key,
    )
    once_committed("cancel.after")
    return True


@transaction.atomic(durable=True)
def expire(task_id: UUID) -> bool:
    """End a task whose time is over: its deadline, or its wait for a first start. False says that it is not."""
    return _expire([_lock(task_id)]) > 0


@transaction.atomic(durable=True)
def expire_many(task_ids: list[UUID], *, of: list[UUID]) -> int:
    """`expire` for those of these tasks, of these accounts, that nobody holds, all at once; returns how many ended."""
    ended = _expire(_lock_free(task_ids, of=of))
    here("sweep.mid_batch")
    return ended


def _expire(tasks: list[Locked]) -> int:
    late = [task for task in tasks if task.status not in FINAL and task.overdue and task.started]
    unstarted = [task for task in tasks if task.status not in FINAL and not task.started]
    unstarted = [task for task in unstarted if task.overdue or task.past_ttl]
    _fail(late, ErrorCode.DEADLINE_EXCEEDED, "The deadline passed before the task ended.")
    _fail(unstarted, ErrorCode.EXPIRED, "The task waited too long for its first start.")
    return len(late) + len(unstarted)


@transaction.atomic(durable=True)
def give_up(task_id: UUID) -> bool:
    """Take a running task from a worker whose lease is over. False says that it is not."""
    return _give_up([_lock(task_id)]) > 0


@transaction.atomic(durable=True)
def give_up_many(task_ids: list[UUID], *, of: list[UUID]) -> int:
    """`give_up` for those of these tasks, of these accounts, that nobody holds, all at once; returns how many moved."""
    return _give_up(_lock_free(task_ids, of=of))


def _give_up(tasks: list[Locked]) -> int:
    lost = [task for task in tasks if task.status == Status.RUNNING and task.lease_over]
    _retry_or_fail(lost, ErrorCode.WORKER_LOST, "The worker was lost.", resolved=Resolved.CLAIM_EXPIRED)
    return len(lost)


@transaction.atomic(durable=True)
def refund(
    task_id: UUID,
    amount: Decimal | None = None,
    *,
    line: UsageLine | None = None,
    key: str,
    reason: str,
    by: str,
    seen: Decimal | None = None,
) -> Transfer:
    """Give back part of a charge, or all that is left of it. The same key gives the same refund.

    `seen` is what the caller saw to be left: of two who saw the same, one refunds. Raises ChangedSince, RefundTooLarge,
    NothingCharged, KeyReused or TaskNotFound; nothing is moved then.
    """
    _lock(task_id)
    line_id = line.pk if line else None
    if done := Transfer.objects.filter(key=key).first():
        if (done.kind, done.task_id, done.usage_line_id) != ("refund", task_id, line_id):
            raise KeyReused
        if amount not in (None, done.amount):
            raise KeyReused
        return done
    charge = Charge.objects.filter(task_id=task_id).first()
    left = charge.charged - charge.refunded if charge else Decimal(0)
    if seen not in (None, left):
        raise ChangedSince(f"It changed since you looked: {left:f} is left now, not {seen:f}. Nothing was refunded.")
    wanted = amount if amount is not None else left
    if charge is None or wanted <= 0:
        raise NothingCharged
    given = ledger.refund(
        charge.account_id,
        wanted,
        task_id=task_id,
        line_id=line_id,
        key=key,
        reason=reason,
        actor=by,
    )
    told = {"amount_credits": str(given.amount), **({"line": line.meter} if line else {})}
    events.record(task_id, "task.refunded", actor=by, **told, private={"reason": reason})
    callbacks.tell_endpoints(task_id, "task.refunded")
    once_committed("refund.after")
    return given


def _lock(task_id: UUID) -> Locked:
    row = one(load("lock"), {"ids": [task_id]})
    if row is None:
        raise TaskNotFound
    return Locked(*row)


def _lock_free(task_ids: list[UUID], *, of: list[UUID]) -> list[Locked]:
    """Those that are free just now, of these accounts. It waits for the first account alone, with nothing in hand: one
    that submits without a pause is served too."""
    one("SELECT FROM billing_account WHERE id = %(id)s FOR NO KEY UPDATE", {"id": of[0]})
    free = [task_id for (task_id,) in rows(load("lock_free"), {"ids": task_ids, "accounts": of})]
    return [Locked(*row) for row in rows(load("lock"), {"ids": free})]


def _locked_by(claimed: Claim) -> Locked:
    """The row, if the run is still ours: same token, same attempt, still running."""
    task = _lock(claimed.task_id)
    if (task.status, task.attempt, task.token) != (Status.RUNNING, claimed.attempt, claimed.token):
        raise LeaseLost
    return task


def _check(task: Locked, to: Status) -> None:
    if to not in MOVES[Status(task.status)]:
        raise IllegalMove(task.status, to)


def _end(
    tasks: list[Locked],
    to: Status,
    resolution: tuple[RunStatus, Resolved],
    *,
    bill: pricing.Bill,
    actor: str = "system",
    output: Any = None,
    error: dict[str, Any] | None = None,
    usage: dict[str, Decimal] | None = None,
    warnings: list[dict[str, Any]] | None = None,
    cancel_reason: str | None = None,
    key: str | None = None,
) -> None:
    """Check, settle, write, record: the steps of every end, in this order, on a locked row; or on several that end
    alike, for nothing."""
    for task in tasks:
        _check(task, to)
    _settle(tasks, bill)
    here("settle.mid")
    if usage is None:
        usage = {line.rate.meter: line.quantity for line in bill.lines}
        output = tasks[0].partial_text if bill.lines else output
    told = {"charged_credits": str(bill.charged), **({"error": error} if error else {})}
    owed = rows(
        load("finish"),
        {
            "ids": [task.id for task in tasks],
            "to": to,
            "output": None if output is None else Json(output, dumps=dumps),
            "error": None if error is None else Jsonb(error),
            "usage": Jsonb({meter: f"{quantity:f}" for meter, quantity in usage.items()}),
            "warnings": Jsonb([*(warnings or []), *([USAGE_EXCEEDS_QUOTE] if bill.cut else [])]),
            "cancel_reason": cancel_reason,
            "run_status": resolution[0],
            "resolved": resolution[1],
            "data": Jsonb(told | ({"reason": cancel_reason} if cancel_reason else {}) | events.private(None, key)),
            "actor": actor,
            "tries": callbacks.TRIES,
        },
    )
    callbacks.freeze(owed)
    _tell(tasks)


def _settle(tasks: list[Locked], bill: pricing.Bill) -> None:
    if bill.lines:
        (task,) = tasks
        ledger.settle(task.account_id, bill, task_id=task.id, held=task.held, credits_per_usd=task.usd_rate)
    elif holding := [task.id for task in tasks if task.held]:
        ledger.release(holding)


def _tell(tasks: list[Locked]) -> None:
    for queue in {task.queue for task in tasks}:
        queues.wake_on_commit(queue)
    wire.look_on_commit(*(task.id for task in tasks))


def _fail(
    tasks: list[Locked],
    code: ErrorCode,
    message: str,
    *,
    retryable: bool = False,
    resolution: tuple[RunStatus, Resolved] | None = None,
) -> None:
    """Those that are billed for what they streamed one by one, all others at once."""
    error = {"code": code, "message": message, "retryable": retryable}
    bills = [(task, _partial_bill(task) if code in BILLED_IN_PART else NOTHING) for task in tasks]
    ends = [([task], bill) for task, bill in bills if bill.lines]
    if free := [task for task, bill in bills if not bill.lines]:
        ends.append((free, NOTHING))
    for together, bill in ends:
        _end(together, Status.FAILED, resolution or RESOLUTIONS[code], bill=bill, error=error)


def _partial_bill(task: Locked) -> pricing.Bill:
    return bills.partial(task.quote, task.usage, held=task.held, waived=task.waived)


def _retry_or_fail(
    tasks: list[Locked],
    code: ErrorCode,
    message: str,
    *,
    resolved: Resolved,
    spend: int = 1,
    delay: float | None = None,
) -> None:
    spent = [task for task in tasks if task.retries_left < spend]
    _fail(spent, code, message, retryable=True, resolution=(RESOLUTIONS[code][0], resolved))
    for task in tasks:
        if task.retries_left >= spend:
            _retry(task, resolved=resolved, spend=spend, delay=backoff(task.attempt) if delay is None else delay)


def _retry(task: Locked, *, resolved: Resolved, spend: int, delay: float) -> None:
    _check(task, Status.QUEUED)
    one(
        load("requeue"),
        {
            "id": task.id,
            "attempt": task.attempt,
            "resolved": resolved,
            "spent": spend,
            "delay": delay,
            "progress": Jsonb(NO_PROGRESS),
            "run": uuid7(),
            "created": Created.RETRY,
        },
    )
    once_committed("requeue.after")
    _tell([task])


def backoff(attempt: int) -> float:
    """Seconds before the try after this one: 5 x 4^n, 20 % either way, at most ten minutes."""
    delay = min(settings.RETRY_BACKOFF_SECONDS * 4 ** (attempt - 1), MAX_BACKOFF_SECONDS)
    return delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
