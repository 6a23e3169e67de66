"""A period of an account as a spreadsheet: numbers that add up, and text that no program takes for a formula."""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.db import connection
from django.utils.text import slugify

from billing.models import Account, Transfer
from billing.periods import BALANCES, Balances, Period

HEADERS = (
    ["number", "time", "kind", "amount"]
    + [f"{name}_change" for name in BALANCES]
    + [f"{name}_after" for name in BALANCES]
    + ["task", "usage_line", "reason", "actor", "transfer"]
)
# With these a cell begins that a spreadsheet would run; the wide ones are the same to some.
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
# Says that UTF-8 follows to programs that would take it for something older.
MARK = "\ufeff"
LONGEST_NAME = 60


class Echo:
    """A file that gives back what is written to it."""

    def write(self, text: str) -> str:
        return text


def csv_of(period: Period) -> Iterator[str]:
    """The period, a chunk of rows at a time. Its changes add up to what lies between its first and its last row.

    No connection to the database is kept while a chunk is sent.
    """
    write = csv.writer(Echo()).writerow
    yield MARK + write(HEADERS) + write(_border("opening balance", period.opening))
    had = period.opening
    for rows in period.oldest_first():
        _let_go()
        lines = []
        for transfer in rows:
            has = Balances.after(transfer)
            lines.append(write(_row(transfer, has - had, has)))
            had = has
        yield "".join(lines)
    yield write(_border("closing balance", period.closing))


def file_name(account: Account, period: Period) -> str:
    """A name that every file system takes: the account's letters, its id, and the days."""
    name = slugify(account.name)[:LONGEST_NAME] or "account"
    days = [f"{day}" if day else word for day, word in ((period.since, "begin"), (period.until, "now"))]
    return f"statement-{name}-{account.pk}-{'-'.join(days)}.csv"


def harmless(text: str) -> str:
    """The text, marked as text where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULAS) or text.lstrip().startswith(FORMULAS) else text


def _row(transfer: Transfer, change: Balances, after: Balances) -> list[Any]:
    about = [str(transfer.task_id or ""), transfer.usage_line_id or "", harmless(transfer.reason)]
    return [
        transfer.account_seq,
        _iso(transfer.created_at),
        transfer.kind,
        f"{transfer.amount:f}",
        *_numbers(change),
        *_numbers(after),
        *about,
        harmless(transfer.actor),
        transfer.pk,
    ]


def _border(what: str, balances: Balances) -> list[Any]:
    return ["", "", what, "", *[""] * len(BALANCES), *_numbers(balances), "", "", "", "", ""]


def _numbers(balances: Balances) -> list[str]:
    return [f"{getattr(balances, name):f}" for name in BALANCES]


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _let_go() -> None:
    """Give the connection back for as long as the client takes; inside a transaction it is not ours to give."""
    if not connection.in_atomic_block:
        connection.close()
