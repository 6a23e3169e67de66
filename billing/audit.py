"""The proof of the books, over all rows and in one snapshot: `proofs.CHECKS`, one after the other.

An app adds its own by `CHECKS.append(Check(...))` when it is ready, and the tables they look at to `COUNTED`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db import DataError, connection, transaction
from django.db.models import Sum

from billing.models import Account, Charge, Transfer, UsageLine
from billing.proofs import CHECKS, Check

__all__ = ["CHECKS", "COUNTED", "Check", "Report", "Result", "examine", "run"]

BUCKETS = ("granted", "available", "held", "charged")
COUNTED: dict[str, str] = {
    "accounts": Account._meta.db_table,
    "transfers": Transfer._meta.db_table,
    "charges": Charge._meta.db_table,
    "lines": UsageLine._meta.db_table,
}


@dataclass(frozen=True)
class Result:
    """What a check found: the first row that breaks it, or None."""

    check: Check
    offender: str | None

    @property
    def holds(self) -> bool:
        return self.offender is None


@dataclass(frozen=True)
class Report:
    """The results in the order of the checks, the credits of all accounts by bucket, and how many rows there were."""

    results: tuple[Result, ...]
    totals: Mapping[str, Decimal]
    counts: Mapping[str, int]

    @property
    def broken(self) -> list[Result]:
        return [result for result in self.results if not result.holds]

    @property
    def holds(self) -> bool:
        return not self.broken


def run() -> Report:
    """Every check in one snapshot, so that a busy system is seen at one moment; writes nothing."""
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return examine()


def examine() -> Report:
    """Every check, in the transaction of the caller."""
    with connection.cursor() as cursor:
        results = tuple(Result(check, _offender(cursor, check)) for check in CHECKS)
        return Report(results, _totals(), _counts(cursor))


def _offender(cursor: Any, check: Check) -> str | None:
    """The first row that breaks it; a value that cannot even be read breaks it too."""
    try:
        with transaction.atomic():
            cursor.execute(check.sql, check.params() if check.params else None)
            row = cursor.fetchone()
    except DataError as error:
        return f"a row cannot be read: {error}".strip()
    return row[0] if row else None


def _totals() -> dict[str, Decimal]:
    totals = Account.objects.aggregate(**{bucket: Sum(bucket, default=Decimal(0)) for bucket in BUCKETS})
    return {bucket: totals[bucket] for bucket in BUCKETS}


def _counts(cursor: Any) -> dict[str, int]:
    return {rows: _count(cursor, table) for rows, table in COUNTED.items()}


def _count(cursor: Any, table: str) -> int:
    cursor.execute(f"SELECT count(*) FROM {connection.ops.quote_name(table)}")  # noqa: S608 - tables are ours
    return cursor.fetchone()[0]
