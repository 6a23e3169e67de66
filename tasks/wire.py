"""What is said between processes when a task changes: "look", or the text that was just kept.

It is a hint, sent when everybody can see the row: whoever waits and hears nothing looks for himself within a second.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from django.db import transaction

from tasks import queues

CHANNEL = "counterfoil:tasks"
MAX_TEXT = 2**16  # longer texts are read from the row
ID = 32


@dataclass(frozen=True)
class Delta:
    """Streamed text of one attempt, from an offset in characters on."""

    attempt: int
    offset: int
    text: str


def look_on_commit(*task_ids: UUID) -> None:
    """Tell whoever waits for one of the tasks to look at its row."""
    _when_committed(partial(queues.publish, CHANNEL, *(task_id.hex for task_id in task_ids)))


def say_on_commit(task_id: UUID, *, attempt: int, offset: int, text: str) -> None:
    """Hand the text to whoever follows the task; a long one they read themselves."""
    said = json.dumps([attempt, offset, text], ensure_ascii=False) if len(text) <= MAX_TEXT else ""
    _when_committed(partial(queues.publish, CHANNEL, task_id.hex + said))


def heard(message: bytes) -> tuple[str, Delta | None]:
    """Whom a message is about, by the id's 32 digits, and the text in it."""
    about, said = message[:ID].decode(), message[ID:]
    return about, Delta(*json.loads(said)) if said else None


def _when_committed(tell: Callable[[], None]) -> None:
    transaction.on_commit(tell, robust=True)
