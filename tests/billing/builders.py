"""What the books begin with: charges, lines and a look at every row."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID, uuid4

from django.db import connection
from uuid_utils.compat import uuid7

from billing import ledger, pricing
from billing.models import Account, Charge, Price, RateCard, Transfer, UsageLine
from billing.pricing import UNITS

TABLES = (Account, Transfer, Charge, UsageLine, Price)
EMPTY = pricing.Bill((), Decimal(0), cut=False)
WHY = {"reason": "goodwill", "actor": "operator:ann"}


def rates(*prices: tuple[str, str]) -> list[pricing.Rate]:
    """Rates with price rows behind them: (meter, credits for one unit)."""
    card = RateCard.objects.create(name=str(uuid4()))
    rows = [
        Price.objects.create(rate_card=card, meter=meter, unit=UNITS[meter], credits=Decimal(credits_))
        for meter, credits_ in prices
    ]
    return [pricing.Rate(str(row.pk), row.meter, row.unit, row.unit_size, row.credits) for row in rows]


def billed(*amounts: str) -> pricing.Bill:
    """A bill of these amounts, a line each."""
    meters = [meter for meter in UNITS if meter != pricing.FLAT][: len(amounts)]
    usage = dict.fromkeys(meters, Decimal(1))
    found = rates(*zip(meters, amounts, strict=True))
    return pricing.bill(usage, found, at_most=sum(map(Decimal, amounts)))


def hold(account_id: UUID, amount: Decimal, *, task_id: UUID) -> Transfer:
    """Set credits aside, as the statement that creates a task does."""
    return ledger._post(account_id, "hold", amount, task_id=task_id, key=f"hold:{task_id}")


def release(account_id: UUID, amount: Decimal, *, task_id: UUID) -> Transfer:
    """Give back what a task holds; in the service only settling does."""
    return ledger._post(account_id, "release", amount, task_id=task_id, key=f"release:{task_id}")


def held(account: Account, amount: str) -> UUID:
    """A task that holds credits; a later one has a greater id."""
    task_id = uuid7()
    hold(account.pk, Decimal(amount), task_id=task_id)
    return task_id


def charged(account: Account, *amounts: str, of: str | None = None) -> UUID:
    """A task that was billed these lines; `of` is what it held, if more."""
    bill = billed(*amounts)
    amount = of or str(bill.charged)
    task_id = held(account, amount)
    settle(account, task_id, bill, held=amount)
    return task_id


def settle(account: Account, task_id: UUID, bill: pricing.Bill, *, held: str) -> None:
    ledger.settle(account.pk, bill, task_id=task_id, held=Decimal(held), credits_per_usd=Decimal(1000))


def line_ids(task_id: UUID) -> list[int]:
    return list(UsageLine.objects.filter(task_id=task_id).order_by("position").values_list("pk", flat=True))


def charge(task_id: UUID) -> dict[str, Decimal]:
    return Charge.objects.values("held", "charged", "refunded").get(pk=task_id)


def every_row() -> dict[str, list[tuple]]:
    """Every row of the books, as text: two equal looks say that nothing changed."""
    return {model.__name__: run_sql(f"SELECT t::text FROM {model._meta.db_table} t ORDER BY 1") for model in TABLES}


def run_sql(statement: str) -> list[tuple]:
    """What the statement answers with, if it answers."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def at_once(count: int, act: Callable[[int], object]) -> list[object]:
    """What `act(0)` to `act(count - 1)` return or raise, each in a thread and a session of its own, begun together."""
    together = threading.Barrier(count)

    def one(number: int) -> object:
        try:
            connection.ensure_connection()
            together.wait(10)
            return act(number)
        except Exception as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))
