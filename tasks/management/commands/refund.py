"""`refund`: give credits back for many tasks, each once for a batch key."""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID, uuid4

from django.core.management.base import BaseCommand, CommandError

from tasks import refunds
from tasks.refunds import OUTCOMES, REFUNDED, REFUSED, Batch, Row, Share, UnknownFilter
from tasks.results import clean_text

FIRST = 10


class Command(BaseCommand):
    help = (
        "Refund the charges of many tasks. Each task is refunded once for a key: run it again with the same key after "
        "whatever cut it short. A percentage is of the charge, rounded half to even to four places. Exits with 0 when "
        "no task was refused, 1 otherwise."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--filter",
            action="append",
            default=[],
            dest="filters",
            metavar="NAME=VALUE",
            help=f"Which tasks: {refunds.KNOWN}. Names are joined by AND, values of one name by OR.",
        )
        share = parser.add_mutually_exclusive_group()
        share.add_argument("--percent", type=percent, help="Of each charge; without it all that is left.")
        share.add_argument("--amount", type=credits_, help="Credits for each task; without it all that is left.")
        parser.add_argument("--reason", required=True, type=said)
        parser.add_argument("--by", required=True, type=said, help="The operator who decided.")
        parser.add_argument("--key", type=UUID, help="The batch's UUID; made and printed when it is not given.")
        parser.add_argument("--dry-run", action="store_true", help="Say what would be done, and write nothing.")
        parser.add_argument("--yes", action="store_true", help="Do it.")

    def handle(self, *, filters: list[str], dry_run: bool, yes: bool, **options: Any) -> None:
        try:
            tasks = refunds.chosen(filters)
        except UnknownFilter as error:
            raise CommandError(str(error)) from error
        share = Share(percent=options["percent"], amount=options["amount"])
        key = options["key"] or uuid4()
        batch = Batch(key, share, reason=options["reason"], by=f"operator:{options['by']}")
        self._say(f"key {key}")
        if dry_run or not yes:
            self._foretell(batch.foretell(tasks))
            if not dry_run:
                raise CommandError(f"Nothing was done. To do it: the same with --key {key} --yes.")
        else:
            self._report(batch.refund(tasks), of=tasks.count())

    def _foretell(self, rows: Iterator[Row]) -> None:
        """The first rows and the totals."""
        count, credits_ = Counter[str](), Decimal(0)
        for row in rows:
            if count.total() < FIRST:
                self._say(line(row))
            count[row.outcome] += 1
            credits_ += row.credits if row.outcome == REFUNDED else 0
        self._say(f"would refund {credits_:.4f} credits; {totals(count)}")

    def _report(self, rows: Iterator[Row], *, of: int) -> None:
        """Each row as it is done, with how far the batch is, and the totals."""
        count, credits_ = Counter[str](), Decimal(0)
        for number, row in enumerate(rows, 1):
            self._say(f"{number}/{of} {line(row)}")
            count[row.outcome] += 1
            credits_ += row.credits if row.outcome == REFUNDED else 0
        self._say(f"refunded {credits_:.4f} credits; {totals(count)}")
        if count[REFUSED]:
            sys.exit(1)

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def line(row: Row) -> str:
    credits_ = f" {row.credits:.4f}" if row.credits else ""
    return f"{row.task}: {row.outcome}{credits_}{': ' if row.why else ''}{row.why}"


def totals(count: Counter[str]) -> str:
    return f"{count.total()} tasks: " + ", ".join(f"{count[outcome]} {outcome}" for outcome in OUTCOMES)


def number(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise ArgumentTypeError(f"{text!r} is no number") from error
    if not (value.is_finite() and 0 < value < 10**12):
        raise ArgumentTypeError(f"{text} is not above nothing and below 10^12")
    return value


def percent(text: str) -> Decimal:
    value = number(text)
    if value > 100 or value != round(value, 4):
        raise ArgumentTypeError(f"{text} is not a percentage up to 100 with at most four places")
    return value


def credits_(text: str) -> Decimal:
    value = number(text)
    if value != round(value, 4):
        raise ArgumentTypeError(f"{text} has more than four places")
    return value


def said(text: str) -> str:
    if not text.strip():
        raise ArgumentTypeError("it is empty")
    if clean_text(text) != text:
        raise ArgumentTypeError("it holds a NUL, or bytes that are not UTF-8")
    return text.strip()
