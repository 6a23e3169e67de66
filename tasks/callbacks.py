"""Callbacks: owed by a row that is written with the final status, delivered by a job, made up for by the sweep."""

from collections.abc import Callable
from uuid import UUID

from django.conf import settings

from billing.statements import one
from tasks import queues
from tasks.models.deployment import CALLBACKS_QUEUE

TRIES = len(settings.CALLBACK_SCHEDULE)

# The body is the task as it is at its end, the callback's own block included; every try sends these bytes.
FREEZE_STANDARD = """
UPDATE tasks_callback
SET body = '{"type":"' || event || '","timestamp":"' || rfc3339(now()) || '","data":' || task_json(task_id) || '}'
WHERE id = %(id)s RETURNING id
"""


def freeze_standard(callback_id: UUID) -> None:
    """Store the Standard Webhooks body of a callback."""
    one(FREEZE_STANDARD, {"id": callback_id})


# How a body is written, by format. A compat package adds its own when its app is ready.
FORMATS: dict[str, Callable[[UUID], None]] = {"standard": freeze_standard}


def freeze(callback_id: UUID, format_: str) -> None:
    """Render the body in the transaction of the final status, and wake the deliverer when it commits."""
    FORMATS[format_](callback_id)
    queues.wake_on_commit(CALLBACKS_QUEUE)
