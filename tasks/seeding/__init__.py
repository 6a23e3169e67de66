"""Rows as a service in use has them, for looking at the admin and for measuring: written set by set, then audited."""

from tasks.seeding.rows import MOST_DAYS, QUEUE, NotHere, Seeded, seed

__all__ = ["MOST_DAYS", "QUEUE", "NotHere", "Seeded", "seed"]
