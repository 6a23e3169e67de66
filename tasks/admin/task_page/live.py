"""Whether what a task's page shows has changed: asked every few seconds, answered by one statement."""

from typing import Any
from uuid import UUID

from billing.statements import one
from tasks.models import Task
from tasks.statuses import FINAL

# Seconds between two questions: of a task that is at work, and of one that only owes a callback.
UNFINISHED, OWING = 2, 15
# `seq` rises with every visible change; a run's text, tries at callbacks and the history move without it. The length of
# a text in bytes is known without reading it.
SEEN = """
SELECT concat_ws('-', t.seq,
    (SELECT octet_length(r.partial_text) FROM tasks_run r WHERE r.task_id = t.id AND r.number = t.attempt),
    (SELECT count(*) || '.' || coalesce(sum(c.attempt_count), 0) || '.' || count(c.waits_for_id) || '.'
        || count(*) FILTER (WHERE c.status = 'pending') FROM tasks_callback c WHERE c.task_id = t.id),
    (SELECT max(l.id) FROM django_admin_log l WHERE l.object_id = t.id::text))
FROM tasks_task t WHERE t.id = %s
"""


def seen(task_id: UUID) -> str:
    """What changes when the page would; empty for a task that is gone."""
    row = one(SEEN, [task_id])
    return row[0] if row else ""


def interval(task: Task, callbacks: list[Any]) -> int:
    """Seconds until the page asks again; 0 ends it."""
    if task.status not in FINAL:
        return UNFINISHED
    return OWING if any(callback.status == callback.Status.PENDING for callback in callbacks) else 0
