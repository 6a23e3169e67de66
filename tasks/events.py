"""A task's timeline: written in the transaction of what it tells."""

from datetime import UTC
from uuid import UUID

from psycopg.types.json import Jsonb

from billing.statements import one
from tasks import wire
from tasks.models import TaskEvent

# Two writers of one task take turns on its row, so every event has its own seq.
RECORD = """
WITH task AS (UPDATE tasks_task SET seq = seq + 1 WHERE id = %(id)s RETURNING id, seq)
INSERT INTO tasks_taskevent (task_id, seq, type, data, actor) SELECT id, seq, %(type)s, %(data)s, %(actor)s FROM task
RETURNING seq
"""


def record(task_id: UUID, type_: str, *, actor: str, **data: object) -> int | None:
    """Write an event with the task's next `seq`; returns that seq, or None when the task is gone.

    What stands under `private` is shown to operators only.
    """
    row = one(RECORD, {"id": task_id, "type": type_, "data": Jsonb(data), "actor": actor})
    wire.look_on_commit(task_id)
    return row[0] if row else None


def private(reason: str | None, key: str | None = None) -> dict[str, object]:
    """Why somebody did what an event tells, and the key of that act, as its data keeps them; nothing for neither."""
    said = {name: told for name, told in (("reason", reason), ("key", key)) if told}
    return {"private": said} if said else {}


def was_done(task_id: UUID, key: str | None) -> bool:
    """Whether an event of the task has this key: the act was done, and whoever repeats it finds it so."""
    return key is not None and TaskEvent.objects.filter(task_id=task_id, data__private__key=key).exists()


def public(event: TaskEvent) -> dict[str, object]:
    """The event as the account's keys see it: the kind of the actor, and nothing under `private`."""
    return {
        "object": "event",
        "seq": event.seq,
        "type": event.type,
        "created_at": event.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "actor": event.actor.partition(":")[0],
        "data": {name: value for name, value in event.data.items() if name != "private"},
    }


def follow(task_id: UUID, *, after: int = 0, limit: int = 100) -> list[TaskEvent]:
    """The events with a seq above `after`, in order."""
    return list(TaskEvent.objects.filter(task_id=task_id, seq__gt=after).order_by("seq")[:limit])
