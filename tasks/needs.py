"""What needs a person now: how many rows of each kind, since when, and what each queue is doing.

The numbers stop at `MOST`: beyond, how many more there are changes nothing about what to do.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.utils.timezone import now

from billing.statements import rows
from tasks import queues
from tasks.sql import load

MOST = 10_000
# After its deadline a task has ten seconds to become final: only then it is stuck.
GRACE = timedelta(seconds=10)
# A callback is late when due for so long, and long owed when its event is so old. A failed one is told of for so long.
LATE, OWED, FAILED = timedelta(minutes=1), timedelta(hours=1), timedelta(days=7)
# A queue stands still when a task could have started for so long and none was claimed; it is slow when one waits on.
STILL, SLOW = timedelta(minutes=1), timedelta(minutes=10)


@dataclass(frozen=True)
class Need:
    """So many rows need somebody, the oldest since then."""

    number: int
    since: datetime | None

    @property
    def capped(self) -> bool:
        return self.number >= MOST


@dataclass(frozen=True)
class Queue:
    """A queue as it is now; `oldest` is the task that could have started longest ago."""

    name: str
    waiting: int
    running: int
    oldest: UUID | None
    since: datetime | None
    claimed_at: datetime | None

    @property
    def capped(self) -> bool:
        return self.waiting >= MOST

    @property
    def still(self) -> bool:
        """A task could start, and nobody has taken any for a while."""
        return self._waited(STILL) and (self.claimed_at is None or now() - self.claimed_at > STILL)

    @property
    def slow(self) -> bool:
        return self._waited(SLOW)

    def _waited(self, time: timedelta) -> bool:
        return self.since is not None and now() - self.since > time


def needs() -> dict[str, Need]:
    """Stuck tasks, lost workers, paused and failing receivers, callbacks late, owed and failed; `delivered` has no
    number and says when the last callback was."""
    times = {"grace": GRACE, "late": LATE, "owed": OWED, "failed": FAILED}
    found = rows(load("needs"), times | {"most": MOST})
    return {name: Need(number, since) for name, number, since in found}


def of_queues() -> list[Queue]:
    """Every queue that a deployment names or a task waits in."""
    return [Queue(*row) for row in rows(load("queues_now"), {"queues": queues.in_use(), "most": MOST})]
