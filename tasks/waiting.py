"""What decides when a task runs, changed by its owner or an operator: pause, priority, deadline; a deployment's drain.

While a task is paused or its deployment drained, ttl and deadline run on. Each verb looks at the locked row, writes its
event with it, and changes nothing where there is nothing to change. A key makes a verb safe to repeat: what it did once
is found by its event, and is not done again.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from billing.exceptions import ChangedSince
from billing.statements import one
from tasks import events, queues
from tasks.exceptions import Invalid, TaskEnded, TaskNotFound, TaskNotQueued
from tasks.models import Deployment, Task
from tasks.statuses import FINAL, Status


@transaction.atomic(durable=True)
def pause(task_id: UUID, *, by: str, reason: str | None = None, key: str | None = None) -> bool:
    """Keep a queued task from being claimed. False says that it is paused already. Raises TaskNotQueued."""
    if _was_done(task_id, key):
        return True
    task = _queued(task_id)
    if task.paused_at:
        return False
    _write(task, "task.paused", by, reason, key, {"paused_at": Now()})
    return True


@transaction.atomic(durable=True)
def resume(task_id: UUID, *, by: str, reason: str | None = None, key: str | None = None) -> bool:
    """Let a paused task be claimed again. False says that it is not paused. Raises TaskNotQueued."""
    if _was_done(task_id, key):
        return True
    task = _queued(task_id)
    if not task.paused_at:
        return False
    _write(task, "task.resumed", by, reason, key, {"paused_at": None})
    queues.wake_on_commit(task.queue)
    return True


@transaction.atomic(durable=True)
def change_priority(task_id: UUID, priority: int, *, by: str, reason: str, key: str | None = None) -> bool:
    """Give an unfinished task another place in its account's order. False says that it has it. Raises TaskEnded."""
    if not 0 <= priority <= 9:
        raise Invalid("A priority is 0 to 9.", param="/priority")
    if _was_done(task_id, key):
        return True
    task = _unfinished(task_id)
    if task.priority == priority:
        return False
    changed = {"priority": priority, "before": task.priority}
    _write(task, "task.priority_changed", by, reason, key, {"priority": priority}, **changed)
    return True


@transaction.atomic(durable=True)
def extend_deadline(
    task_id: UUID, deadline: datetime, *, by: str, reason: str, seen: datetime | None = None, key: str | None = None
) -> None:
    """Give an unfinished task more time, within its deployment's `max_lifetime`; its worker hears of it.

    `seen` is the deadline that the caller saw. Raises TaskEnded, ChangedSince when it is another by now, or Invalid for
    a time that is not later, has passed or is too late.
    """
    if _was_done(task_id, key):
        return
    task = _unfinished(task_id)
    if seen not in (None, task.deadline):
        raise ChangedSince(f"It changed since you looked: the deadline is {task.deadline.isoformat()} now.")
    (now,) = one("SELECT now()", {}) or ()
    last = task.created_at + timedelta(seconds=task.deployment.max_lifetime)
    if not max(task.deadline, now) < deadline <= last:
        raise Invalid(f"The new deadline lies after the present one, until {last.isoformat()}.", param="/deadline")
    told = {"deadline": deadline.isoformat(), "before": task.deadline.isoformat()}
    _write(task, "task.deadline_extended", by, reason, key, {"deadline": deadline}, **told)


def drain(deployment_id: UUID) -> bool:
    """Let the deployment's tasks wait, later ones too; running ones end. False says that it is drained already."""
    drained = Deployment.objects.filter(pk=deployment_id, drained_at=None)
    return bool(drained.update(drained_at=Now()))


@transaction.atomic
def undrain(deployment_id: UUID) -> bool:
    """Let the deployment's tasks be claimed again. False says that it was not drained."""
    drained = Deployment.objects.filter(pk=deployment_id, drained_at__isnull=False)
    queue = drained.values_list("queue", flat=True).first()
    if not drained.update(drained_at=None):
        return False
    queues.wake_on_commit(str(queue))
    return True


def _locked(task_id: UUID) -> Task:
    locked = Task.objects.select_for_update(of=("self",), no_key=True).select_related("deployment")
    task = locked.only("status", "paused_at", "priority", "queue", "created_at", "deadline", "deployment__max_lifetime")
    if (found := task.filter(pk=task_id).first()) is None:
        raise TaskNotFound
    return found


def _was_done(task_id: UUID, key: str | None) -> bool:
    """Whether this key's act is done; who does it just now is waited for."""
    return key is not None and bool(_locked(task_id)) and events.was_done(task_id, key)


def _queued(task_id: UUID) -> Task:
    task = _locked(task_id)
    if task.status != Status.QUEUED:
        raise TaskNotQueued
    return task


def _unfinished(task_id: UUID) -> Task:
    task = _locked(task_id)
    if task.status in FINAL:
        raise TaskEnded
    return task


def _write(
    task: Task, type_: str, by: str, reason: str | None, key: str | None, columns: dict[str, Any], **told: Any
) -> None:
    Task.objects.filter(pk=task.pk).update(**columns)
    events.record(task.pk, type_, actor=by, **told, **events.private(reason, key))
