"""A task's content, deleted by its owner: what was sent, made, streamed and told goes; money, times and usage stay."""

from uuid import UUID

from django.db import transaction

from billing.statements import rows
from tasks import events
from tasks.exceptions import TaskNotFinal, TaskNotFound
from tasks.models import Task
from tasks.sql import load
from tasks.statuses import FINAL

REASON = "content_deleted"


@transaction.atomic(durable=True)
def delete_content(task_id: UUID, *, by: str, reason: str | None = None, key: str | None = None) -> bool:
    """Delete the content of a final task: nobody is given its files or told of it from now on.

    The files themselves go with the sweeper's next round. False says that it had been deleted already, and not by this
    key. Raises TaskNotFound or TaskNotFinal.
    """
    task = Task.objects.select_for_update(no_key=True).only("status", "content_deleted_at").filter(pk=task_id).first()
    if task is None:
        raise TaskNotFound
    if task.status not in FINAL:
        raise TaskNotFinal
    if task.content_deleted_at:
        return events.was_done(task_id, key)
    unheard = rows(load("delete_content"), {"id": task_id, "reason": REASON})
    events.record(task_id, "task.content_deleted", actor=by, **events.private(reason, key))
    for attempts, tasks_own in unheard:
        if tasks_own:
            events.record(task_id, "callback.failed", actor="system", attempt_count=attempts, error=REASON)
    return True
