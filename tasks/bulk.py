"""Many at once: frozen at the start, foretold, then done row by row in the background.

    freeze  look  start  act_on_many  abort  again

Rows are the truth. A worker holds an action by a short lease, one small batch at a time, and writes what became of each
row before it takes the next; whoever is killed leaves its batch to the next worker, and no row is acted on twice
(`bulk_acts`). An action that ended meanwhile is taken once more, for what its worker had done and not written. One
action is at work at a time, a batch of each in turn, so that tasks and callbacks keep their room.
"""

import logging
import time
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.contrib.admin.models import CHANGE
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractUser
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import EmptyResultSet
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models import Q, QuerySet
from django.db.models.functions import Now
from django.utils.timezone import now
from psycopg.errors import LockNotAvailable
from psycopg.types.json import Jsonb

from billing.exceptions import ChangedSince, Refusal
from billing.failpoints import here
from billing.statements import one, rows
from tasks import foretelling, queues
from tasks.bulk_acts import ACTS, REFUSALS, Did, perform, was_done
from tasks.identifiers import public_id
from tasks.models import BulkAction, BulkActionRow, Task
from tasks.models.bulk import BULK_QUEUE

logger = logging.getLogger(__name__)

# Tasks that one action takes.
MOST = 100_000
# Rows of a batch, after which it is another action's turn, and how long a worker's process is kept.
BATCH, TURN_SECONDS = 20, 5.0
LEASE_SECONDS = 20.0

TAKE = """
UPDATE tasks_bulkaction SET lease_token = %(token)s, served_at = clock_timestamp(),
    lease_expires_at = clock_timestamp() + make_interval(secs => %(lease)s)
WHERE id = (
    SELECT id FROM tasks_bulkaction WHERE (status = 'running' OR lease_token IS NOT NULL)
        AND (lease_expires_at IS NULL OR lease_expires_at <= now()) AND NOT EXISTS (
            SELECT FROM tasks_bulkaction held WHERE held.status = 'running' AND held.lease_expires_at > now())
    ORDER BY served_at NULLS FIRST LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id
"""
GIVE_BACK = """
UPDATE tasks_bulkaction SET lease_token = NULL, lease_expires_at = NULL,
    status = CASE WHEN %(done)s AND status = 'running' THEN 'done' ELSE status END,
    ended_at = CASE WHEN %(done)s AND status = 'running' THEN now() ELSE ended_at END
WHERE id = %(id)s AND lease_token = %(token)s RETURNING id
"""
BEGIN = """
WITH waiting AS MATERIALIZED (
    SELECT id FROM tasks_bulkactionrow
    WHERE action_id = %(id)s AND outcome = '' ORDER BY number LIMIT %(batch)s
)
UPDATE tasks_bulkactionrow r SET begun_at = coalesce(begun_at, now()) FROM waiting WHERE r.id = waiting.id
RETURNING r.id
"""
# The outcome, the totals, the lease and the entry in the history: all or none, and once.
RECORD = """
WITH written AS (
    UPDATE tasks_bulkactionrow SET outcome = %(outcome)s, told = %(told)s, moved = %(moved)s, acted_at = now()
    WHERE id = %(id)s AND outcome = '' RETURNING action_id
), history AS (
    INSERT INTO django_admin_log (action_time, object_id, object_repr, action_flag, change_message, content_type_id,
        user_id)
    SELECT now(), %(task)s, %(name)s, %(flag)s, %(message)s, %(type)s, %(user)s FROM written
    WHERE %(outcome)s = 'done'
)
UPDATE tasks_bulkaction a SET done = a.done + w.done, refused = a.refused + w.refused, moved = a.moved + w.moved,
    lease_expires_at = CASE WHEN lease_token = %(token)s
        THEN clock_timestamp() + make_interval(secs => %(lease)s) ELSE lease_expires_at END
FROM (SELECT count(*) FILTER (WHERE %(outcome)s = 'done') AS done,
             count(*) FILTER (WHERE %(outcome)s = 'refused') AS refused,
             count(*) * coalesce(%(moved)s::numeric, 0) AS moved FROM written) w
WHERE a.id = %(action)s RETURNING a.status = 'running' AND a.lease_token = %(token)s
"""
FREEZE = """
WITH chosen AS MATERIALIZED (SELECT id, row_number() OVER (ORDER BY id) AS number FROM ({chosen}) AS c(id)),
written AS (
    INSERT INTO tasks_bulkactionrow (action_id, number, task_id, foretold, seen, credits, outcome, told)
    SELECT %s, number, id, '', '', 0, '', '' FROM chosen WHERE number <= %s RETURNING 1
)
SELECT (SELECT count(*) FROM written), (SELECT count(*) FROM chosen)
"""
REFUSE_FORETOLD = """
WITH refused AS (
    UPDATE tasks_bulkactionrow SET outcome = 'refused', told = foretold, acted_at = now()
    WHERE action_id = %(id)s AND outcome = '' AND foretold <> '' RETURNING 1
)
SELECT count(*) FROM refused
"""


class NotStarted(Refusal):
    """The action is not begun; the message says why."""

    code, status = "not_started", 409


def may(user: AbstractUser, act: str) -> bool:
    """Whether this person may do it, to however many."""
    return bool(user.is_active and user.is_staff and user.has_perm(ACTS[act].permission))


@transaction.atomic
def freeze(
    chosen: QuerySet[Task],
    *,
    act: str,
    data: dict[str, Any],
    operator: AbstractUser,
    filters: dict[str, Any],
    words: str,
    retry_of: BulkAction | None = None,
) -> BulkAction:
    """Write down which tasks these are now, the oldest first and MOST at most, and what the act would do to each."""
    action = BulkAction(act=act, data=data, operator=operator, chosen=filters, words=words, retry_of=retry_of)
    action.root = retry_of.root if retry_of else action.pk
    action.save(force_insert=True)
    total, found = _frozen(action, chosen)
    BulkAction.objects.filter(pk=action.pk).update(total=total, cut=found > total)
    return look(action.pk)


def _frozen(action: BulkAction, chosen: QuerySet[Task]) -> tuple[int, int]:
    try:
        sql, params = chosen.order_by("pk").values("pk").distinct()[: MOST + 1].query.sql_with_params()
    except EmptyResultSet:
        return 0, 0
    with connection.cursor() as cursor:
        cursor.execute(FREEZE.format(chosen=sql), [*params, action.pk, MOST])
        return cursor.fetchone()


@transaction.atomic
def look(action_id: UUID) -> BulkAction:
    """Foretell anew what the act would do to each row. What has been started keeps what was foretold then."""
    action = _locked(action_id)
    if action.status == BulkAction.Status.READY:
        _look(action)
    return action


def _locked(action_id: UUID) -> BulkAction:
    return BulkAction.objects.select_for_update(of=("self",)).select_related("operator").get(pk=action_id)


def _look(action: BulkAction) -> bool:
    """Foretell and write it down; whether something would be done that was not foretold before."""
    told = rows(foretelling.statement(action.act), {"action": action.pk, "data": Jsonb(action.data)})
    suits = next((row for row in told if not row[0]), ("", 0, Decimal(0), 0, 0, ""))
    _, action.suited, action.credits, action.accounts, more, _ = suits
    action.foretold = [{"why": row[0], "tasks": row[1]} for row in told if row[0]]
    action.digest = told[0][-1] if told else ""
    action.looked_at = now()
    action.save(update_fields=["suited", "credits", "accounts", "foretold", "digest", "looked_at"])
    return more > 0


def start(action_id: UUID, *, operator: AbstractUser, reason: str, number: int, seen: str) -> BulkAction:
    """Begin to act, in the background, on the rows that the act suits now; the others are refused at once.

    `seen` is the digest of what the operator saw, `number` the one that was typed. Raises ChangedSince when somebody
    looked meanwhile, or a row would be done otherwise than it showed, and NotStarted.
    """
    action = _start(action_id, operator=operator, reason=reason, number=number, seen=seen)
    if action is None:
        raise ChangedSince("It changed since you looked: something else would be done by now. Look at it again.")
    return action


@transaction.atomic(durable=True)
def _start(action_id: UUID, *, operator: AbstractUser, reason: str, number: int, seen: str) -> BulkAction | None:
    """None says that it changed; what it is now is written down for the next look."""
    action = _locked(action_id)
    if action.status != BulkAction.Status.READY:
        raise NotStarted(f"It is {action.status} already.")
    if not may(operator, action.act):
        raise NotStarted("You may not do this.")
    if not action.suited:
        raise NotStarted("There is no task that it suits.")
    if number != action.suited and seen == action.digest:
        raise NotStarted(f"Type {action.suited}, the number of tasks that this is about to change.")
    was = action.digest
    if _look(action) or seen != was or not action.suited:
        return None
    (action.refused,) = one(REFUSE_FORETOLD, {"id": action.pk}) or (0,)
    action.operator, action.reason = operator, reason
    action.status, action.started_at = BulkAction.Status.RUNNING, Now()
    action.save(update_fields=["refused", "operator", "reason", "status", "started_at"])
    queues.wake_on_commit(BULK_QUEUE)
    return action


def abort(action_id: UUID, *, by: str) -> bool:
    """Stop before the next row. What is done stays done. False says that it was over already."""
    going = BulkAction.objects.filter(pk=action_id, status__in=["ready", "running"])
    if not going.update(status=BulkAction.Status.ABORTED, ended_at=Now(), ended_by=by):
        return False
    action = BulkAction.objects.select_related("operator").get(pk=action_id)
    if not _is_held(action):
        _write_what_was_done(action)
    return True


def again(action: BulkAction, *, operator: AbstractUser) -> BulkAction:
    """The one new action on the rows that were refused or never reached. Raises NotStarted before it is over."""
    if action.started_at is None or action.ended_at is None:
        raise NotStarted("It has not been over yet, so there is nothing to try again.")
    if _is_held(action):
        raise NotStarted("Its worker has not come back from its last task yet. Try again in half a minute.")
    _write_what_was_done(action)
    return _again(action, operator=operator)


@transaction.atomic
def _again(action: BulkAction, *, operator: AbstractUser) -> BulkAction:
    _locked(action.pk)
    if retry := action.retries.filter(Q(status="ready") | Q(started_at__isnull=False)).first():
        return retry
    left = action.rows.exclude(outcome="done").values("task_id")
    return freeze(
        Task.objects.filter(pk__in=left),
        act=action.act,
        data=action.data,
        operator=operator,
        filters=action.chosen,
        words=f"Not done by {action}: {action.words}",
        retry_of=action,
    )


def _is_held(action: BulkAction) -> bool:
    """Whether a worker may still be at a row of it."""
    return bool(action.lease_expires_at and action.lease_expires_at > now())


def _write_what_was_done(action: BulkAction, token: UUID | None = None) -> None:
    """The outcome of rows that were done by a worker that was lost before it could write so. The others that it had
    begun are as if it had not: a retry of them has their keys."""
    begun = action.rows.filter(outcome="", begun_at__isnull=False)
    for row in begun.order_by("number"):
        if was_done(action, row):
            _record(action, row, "done", perform(action, row), token)
    begun.update(begun_at=None)


def act_on_many() -> None:
    """Do batches of what operators have started, an action after the other, for as long as a turn lasts."""
    until = time.monotonic() + TURN_SECONDS
    while time.monotonic() < until:
        token = uuid4()
        taken = one(TAKE, {"token": token, "lease": _lease()})
        if taken is None:
            return
        _serve(taken[0], token)
    queues.wake(BULK_QUEUE)


def _lease() -> float:
    return min(LEASE_SECONDS, settings.LEASE_SECONDS)


def _serve(action_id: UUID, token: UUID) -> None:
    """A batch of the action, if whoever started it still may."""
    action = BulkAction.objects.select_related("operator").get(pk=action_id)
    if action.status == BulkAction.Status.RUNNING and not may(
        get_user_model().objects.get(pk=action.operator_id), action.act
    ):
        _stop(action, f"{action.operator} may not do this any more.")
    over = False
    if action.status == BulkAction.Status.RUNNING:
        over = not _batch(action, token)
    else:
        _write_what_was_done(action, token)
    one(GIVE_BACK, {"id": action_id, "token": token, "done": over})


def _stop(action: BulkAction, why: str) -> None:
    action.status = BulkAction.Status.STOPPED
    going = BulkAction.objects.filter(pk=action.pk, status=BulkAction.Status.RUNNING)
    going.update(status=action.status, ended_at=Now(), ended_by=why)


def _batch(action: BulkAction, token: UUID) -> bool:
    """Act on a few rows; False says that there was none left."""
    begun = [pk for (pk,) in rows(BEGIN, {"id": action.pk, "batch": BATCH})]
    for row in BulkActionRow.objects.filter(pk__in=begun).order_by("number"):
        outcome, did = _act(action, row)
        here("bulk.before_record")
        if not _record(action, row, outcome, did, token):
            break
    return bool(begun)


def _act(action: BulkAction, row: BulkActionRow) -> tuple[str, Did]:
    """Do it, or say why not. Only a database that is away leaves the row as it is, for whoever comes next."""
    try:
        return "done", perform(action, row)
    except REFUSALS as refusal:
        return "refused", Did(str(refusal))
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        return "refused", Did("Somebody held it for too long.")
    except InterfaceError:
        raise
    except Exception as error:
        logger.exception("%s failed for %s", action.act, row.task_id)
        return "refused", Did(f"It failed, by a fault of ours: {type(error).__name__}.")


def _record(action: BulkAction, row: BulkActionRow, outcome: str, did: Did, token: UUID | None) -> bool:
    """Write what became of the row; False says to stop: the action was ended, or is somebody else's."""
    said = one(
        RECORD,
        {
            "id": row.pk,
            "action": action.pk,
            "outcome": outcome,
            "told": did.told,
            "moved": did.moved if outcome == "done" else None,
            "task": str(row.task_id),
            "name": public_id(row.task_id),
            "flag": CHANGE,
            "message": f"{did.told} Reason: {action.reason}",
            "type": ContentType.objects.get_for_model(Task).pk,
            "user": action.operator_id,
            "token": token,
            "lease": _lease(),
        },
    )
    return said == (True,)
