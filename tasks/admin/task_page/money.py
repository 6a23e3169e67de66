"""What a task cost, and why: each line worked out from its rows, and the equations that must hold, with its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing import pricing
from billing.admin.screens import amount
from billing.models import Charge, UsageLine
from tasks import bills
from tasks.lifecycle import BILLED_IN_PART
from tasks.models import Task
from tasks.statuses import FINAL, Status

NONE = Decimal("0.0000")
# Digits of an exact amount that a line has room for.
DIGITS = 12


@dataclass(frozen=True)
class Explained:
    """A line, what its quantity at its price is exactly, and what rounding and the quote made of that."""

    line: UsageLine
    quantity: str
    price: str
    exact: str
    rounding: str
    cut: Decimal
    waived: bool
    wrong: str

    @property
    def holds(self) -> bool:
        return not self.wrong


@dataclass(frozen=True)
class Equation:
    """A sentence of the books with this task's numbers in it, and whether it is true."""

    name: str
    numbers: str
    holds: bool

    @property
    def shown(self) -> str:
        """The numbers with what is between them, which is never said wrongly."""
        return self.numbers if self.holds else self.numbers.replace(" = ", " ≠ ").replace(" ≤ ", " > ")


@dataclass(frozen=True)
class Sums:
    """What all transfers of the task add up to, by their kind."""

    held: Decimal = NONE
    captured: Decimal = NONE
    released: Decimal = NONE
    refunded: Decimal = NONE


@dataclass(frozen=True)
class Money:
    """All that the page says of a task's credits. `charge` is None for a task that never held any."""

    charge: Charge | None
    held: Decimal
    charged: Decimal
    refunded: Decimal
    net: Decimal
    lines: list[Explained]
    equations: list[Equation]

    @property
    def alarm(self) -> bool:
        return not all(holding.holds for holding in (*self.lines, *self.equations))


def money(task: Task, *, transfers: Sequence[Any]) -> Money:
    """The task's money, with its charge read before, its lines and, by any of its transfers, what they add up to."""
    charge = task.charge
    lines = list(UsageLine.objects.filter(task_id=task.pk).select_related("price").order_by("position"))
    held, charged, refunded = (charge.held, charge.charged, charge.refunded) if charge else (NONE, NONE, NONE)
    explained = [_explained(line, task) for line in lines]
    equations = _equations(task, lines, sums_of(transfers), held=held, charged=charged, refunded=refunded)
    return Money(charge, held, charged, refunded, charged - refunded, explained, equations)


def sums_of(transfers: Sequence[Any]) -> Sums:
    if not transfers:
        return Sums()
    one = transfers[0]
    return Sums(*(total or NONE for total in (one.all_hold, one.all_capture, one.all_release, one.all_refund)))


def _explained(line: UsageLine, task: Task) -> Explained:
    exact = pricing.EXACT.divide(pricing.EXACT.multiply(line.quantity, line.unit_price), Decimal(line.unit_size))
    return Explained(
        line=line,
        quantity=plain(line.quantity),
        price=plain(line.unit_price),
        exact=_digits(exact),
        rounding=_rounding(exact, line.listed_amount),
        cut=NONE if task.waived else line.listed_amount - line.billed_amount,
        waived=task.waived,
        wrong=_wrong(line, task),
    )


def _wrong(line: UsageLine, task: Task) -> str:
    """What of a line is not as it must be, in a sentence."""
    rate = pricing.Rate(str(line.price_id), line.meter, line.unit, line.unit_size, line.unit_price)
    price = line.price
    if (line.meter, line.unit, line.unit_size, line.unit_price) != (
        price.meter,
        price.unit,
        price.unit_size,
        price.credits,
    ):
        return f"Its price is not the one that it names: {price}."
    if pricing.amount(line.quantity, rate) != line.listed_amount or line.billed_amount > line.listed_amount:
        return "The line does not list what its quantity and price come to."
    used = "1" if line.meter == pricing.FLAT else str(task.usage.get(line.meter, 0))
    return "" if line.quantity == Decimal(used) else f"The task used {used} {line.unit}."


def _rounding(exact: Decimal, listed: Decimal) -> str:
    off = pricing.EXACT.subtract(listed, exact)
    if not off:
        return "exact"
    if abs(off) > pricing.PLACES:
        return "the most a line can list" if listed == pricing.MOST else "not what it comes to"
    even = ", half to even" if abs(off) * 2 == pricing.PLACES else ""
    return f"rounded {'up' if off > 0 else 'down'} by {_digits(abs(off))}{even}"


def _equations(
    task: Task, lines: list[UsageLine], sums: Sums, *, held: Decimal, charged: Decimal, refunded: Decimal
) -> list[Equation]:
    billed = sum((line.billed_amount for line in lines), NONE)
    net, due = charged - refunded, _due(task)
    held_then = Equation(
        f"Held = charged + released{' + still held' if held else ''}",
        f"{amount(sums.held)} = {amount(sums.captured)} + {amount(sums.released)}"
        + (f" + {amount(held)}" if held else ""),
        sums.held == sums.captured + sums.released + held,
    )
    added = " + ".join(amount(line.billed_amount) for line in lines) or amount(NONE)
    return [
        Equation("Sum of the lines = charged", f"{added} = {amount(charged)}", billed == charged),
        Equation("Charged ≤ quoted", f"{amount(charged)} ≤ {amount(task.quoted)}", charged <= task.quoted),
        held_then,
        Equation("Refunded ≤ charged", f"{amount(refunded)} ≤ {amount(charged)}", refunded <= charged),
        Equation(
            "Charged - refunded = net",
            f"{amount(sums.captured)} - {amount(sums.refunded)} = {amount(net)}",
            sums.captured - sums.refunded == net,
        ),
        Equation("Charged = due for its usage and end", f"{amount(charged)} = {amount(due)}", charged == due),
    ]


def plain(number: Decimal) -> str:
    """A number without the zeros that a column adds."""
    return f"{number.normalize():,f}"


def _due(task: Task) -> Decimal:
    """What its usage and its end come to at the prices of its quote."""
    if task.status not in FINAL:
        return NONE
    if task.status == Status.SUCCEEDED:
        usage = {meter: Decimal(str(used)) for meter, used in task.usage.items()}
        return bills.billed(usage, bills.rates_of(task.quote), held=task.quoted, waived=task.waived).charged
    if task.status == Status.CANCELED or (task.error or {}).get("code") in BILLED_IN_PART:
        return bills.partial(task.quote, task.usage, held=task.quoted, waived=task.waived).charged
    return NONE


def _digits(exact: Decimal) -> str:
    """An exact amount, as far as there is room for it."""
    whole, _, places = f"{exact:f}".partition(".")
    places = places.rstrip("0")
    return f"{whole}.{places[:DIGITS]}…" if len(places) > DIGITS else plain(exact)
