"""A period of an account: the transfers between two days, and what the account had before and after them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

from django.db.models import QuerySet

from billing.models import Account, Transfer
from billing.statements import one

BALANCES = ("granted", "available", "held", "charged")
CHUNK = 5000

# The last transfer before a moment, found by halving: 41 looks into the index that numbers an account's transfers. They
# are numbered in the order in which they moved the balances, and two that waited for one another may bear times in the
# other order. Steps that do not depend on how many there are put the border between two periods always at the same one.
LAST_BEFORE = """
WITH RECURSIVE looked(seq, step) AS (
    SELECT 0::bigint, 1::bigint << 40
    UNION ALL
    SELECT CASE WHEN (
        SELECT t.created_at FROM billing_transfer t WHERE t.account_id = %(account)s AND t.account_seq = seq + step
    ) < %(moment)s THEN seq + step ELSE seq END, step >> 1
    FROM looked WHERE step > 0
)
SELECT seq FROM looked WHERE step = 0
"""


@dataclass(frozen=True)
class Balances:
    granted: Decimal = Decimal("0.0000")
    available: Decimal = Decimal("0.0000")
    held: Decimal = Decimal("0.0000")
    charged: Decimal = Decimal("0.0000")

    def __sub__(self, other: "Balances") -> "Balances":
        return Balances(*(getattr(self, name) - getattr(other, name) for name in BALANCES))

    @classmethod
    def after(cls, transfer: Transfer) -> "Balances":
        return cls(*(getattr(transfer, f"{name}_after") for name in BALANCES))


@dataclass(frozen=True)
class Period:
    """The transfers after `before` up to `last`, by their numbers; days are UTC, None is as far as there are any.

    Periods that follow one another have no transfer in common and leave none out.
    """

    account_id: UUID
    since: date | None
    until: date | None
    before: int
    last: int
    opening: Balances
    closing: Balances

    @property
    def change(self) -> Balances:
        return self.closing - self.opening

    @property
    def transfers(self) -> QuerySet[Transfer]:
        rows = Transfer.objects.filter(account_id=self.account_id, account_seq__gt=self.before)
        return rows.filter(account_seq__lte=self.last)

    def oldest_first(self) -> Iterator[list[Transfer]]:
        """Its transfers, a bounded number at a time, each by a statement of its own."""
        after = self.before
        while rows := list(self.transfers.filter(account_seq__gt=after).order_by("account_seq")[:CHUNK]):
            yield rows
            after = rows[-1].account_seq


def period(account_id: UUID, *, since: date | None = None, until: date | None = None) -> Period:
    """The account's period from the beginning of one UTC day to the end of another, as far as it is written."""
    before = _last_before(account_id, since) if since else 0
    newest = Account.objects.values_list("account_seq", flat=True).get(pk=account_id)
    last = _last_before(account_id, until + timedelta(days=1)) if until else newest
    borders = Transfer.objects.filter(account_id=account_id, account_seq__in=[before, last])
    found = {transfer.account_seq: Balances.after(transfer) for transfer in borders}
    nothing = Balances()
    return Period(account_id, since, until, before, last, found.get(before, nothing), found.get(last, nothing))


def _last_before(account_id: UUID, day: date) -> int:
    moment = datetime.combine(day, time.min, UTC)
    return one(LAST_BEFORE, {"account": account_id, "moment": moment})[0]  # type: ignore[index]
