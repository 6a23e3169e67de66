"""How deployments stand: what waits, what runs, and what became of the last day."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from billing.statements import one, rows
from tasks.sql import load

# How far is counted; beyond, it is "more than".
MOST = 10_000
# So many of the last to end are looked at.
LOOK = 100_000
WAITING = """
SELECT count(*), min(created_at), min(least(deadline, CASE WHEN started_at IS NULL THEN expires_at END)) FROM (
    SELECT created_at, deadline, started_at, expires_at FROM tasks_task
    WHERE deployment_id = %(id)s AND status = 'queued' LIMIT %(most)s) waiting
"""


@dataclass(frozen=True)
class Standing:
    """A deployment now, and over the last day; `median` is seconds from the start to the end, None without any."""

    waiting: int
    running: int
    failed: int
    ended: int
    median: float | None


def standing(deployments: Iterable[UUID]) -> dict[UUID, Standing]:
    """By deployment, in one statement."""
    found = rows(load("standing"), {"ids": list(deployments), "most": MOST + 1, "look": LOOK})
    return {row[0]: Standing(*row[1:4], row[4], None if row[5] is None else float(row[5])) for row in found}


def waiting(deployment_id: UUID) -> tuple[int, datetime | None, datetime | None]:
    """How many of its tasks wait, since when the first does, and when the first of them ends unstarted."""
    row: Any = one(WAITING, {"id": deployment_id, "most": MOST + 1})
    return row


def up_to(number: int) -> str:
    return f"more than {MOST:,}" if number > MOST else f"{number:,}"
