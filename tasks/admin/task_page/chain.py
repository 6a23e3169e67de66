"""A task among its reruns: what it was rerun from, up to the first, and what was rerun from it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import connection

from tasks.admin.task_page.head import COLOURS
from tasks.identifiers import public_id
from tasks.models import Task
from tasks.sql import load

# Of each direction.
MOST = 50


@dataclass(frozen=True)
class Link:
    """A task of the chain; `depth` counts reruns from this one, below zero for what it came from."""

    id: UUID
    depth: int
    rerun_of: UUID | None
    status: str
    waived: bool
    created_at: datetime
    charged: Decimal | None
    refunded: Decimal | None

    @property
    def public(self) -> str:
        return public_id(self.id)

    @property
    def tone(self) -> str:
        return COLOURS.get(self.status, "")

    @property
    def of(self) -> str:
        return public_id(self.rerun_of) if self.rerun_of else ""


def chain(task: Task) -> list[Link]:
    """The first of the chain, then the others in their order; only this task itself where it was never rerun."""
    with connection.cursor() as cursor:
        cursor.execute(load("chain"), {"id": task.pk, "most": MOST})
        found = [Link(*row) for row in cursor.fetchall()]
    return sorted(found, key=lambda link: (link.depth, link.id))
