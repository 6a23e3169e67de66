"""`seed_tasks`: rows as a service in use has them, for looking at the admin and for measuring."""

import random
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from tasks import seeding
from tasks.models import Task

MOST = 10_000_000


class Command(BaseCommand):
    help = (
        "Fill the database with tasks as a service in use has them, over the last days, of accounts of their own, with "
        "runs, events, charges and callbacks. Nothing is sent and no worker takes them: queued ones are of drained "
        "models, receivers are of reserved names and due in a month. A few are stuck until a sweeper runs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tasks", type=int, help="How many tasks.")
        parser.add_argument("--accounts", type=int, help="Of how many new accounts (one for 500 tasks, 20 to 2000).")
        parser.add_argument("--days", type=int, default=30, help="Over how many days, until now (30).")
        parser.add_argument("--seed", type=int, default=0, help="Another number gives another world (0).")
        parser.add_argument("--unaudited", action="store_true", help="Keep the rows; `audit` proves them later.")
        parser.add_argument("--anyway", action="store_true", help="Even in production, and beside real tasks.")

    def handle(self, *, tasks: int, accounts: int | None, days: int, seed: int, **options: Any) -> None:
        accounts = min(max(tasks // 500, 20), 2000) if accounts is None else accounts
        _check(tasks, accounts, days)
        if not options["anyway"]:
            _check_place()
        started = time.monotonic()
        chance = random.Random(seed)  # noqa: S311 - dice
        say = self._say(options["verbosity"])
        try:
            made = seeding.seed(
                tasks, accounts=accounts, days=days, chance=chance, say=say, audited=not options["unaudited"]
            )
        except seeding.NotHere as error:
            raise CommandError(str(error)) from error
        proven = f"all {len(made.report.results)} checks of the audit hold" if made.report else "not yet audited"
        seconds = time.monotonic() - started
        self.stdout.write(f"{made.tasks} tasks of {made.accounts} accounts in {seconds:.1f} s; {proven}.")

    def _say(self, verbosity: int) -> Any:
        begun = time.monotonic()

        def say(step: str) -> None:
            if verbosity > 1:
                self.stdout.write(f"{time.monotonic() - begun:7.1f} s  {step}")

        return say


def _check(tasks: int, accounts: int, days: int) -> None:
    if not 1 <= tasks <= MOST:
        raise CommandError(f"Seed 1 to {MOST} tasks.")
    if not 1 <= accounts <= 100_000:
        raise CommandError("Seed tasks of 1 to 100000 accounts.")
    if not 1 <= days <= seeding.MOST_DAYS:
        raise CommandError(f"Seed the last 1 to {seeding.MOST_DAYS} days.")


def _check_place() -> None:
    """Seeded rows are never taken away again, so they go where nobody works."""
    if not (settings.DEBUG or settings.EMBEDDED.embeds_postgres):
        raise CommandError("This is a database of production: seeded rows stay for ever. --anyway seeds it.")
    if Task.objects.exclude(queue=seeding.QUEUE).exists():
        raise CommandError("There are real tasks here, and seeded rows stay for ever. --anyway seeds beside them.")
