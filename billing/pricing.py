"""Meters times prices, as pure functions: quotes before the work, lines after it.

Every line is rounded once, half to even, to four places, and lists MOST at most: more could not be written, and a quote
that high is refused, so it is cut whatever it lists for. A line never costs more than the line of a larger quantity, so
usage within its bound always costs at most its quote.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal

PLACES = Decimal("0.0001")
MOST = Decimal("9999999999999999.9999")
USD_PLACES = Decimal("0.0000001")
FLAT = "task"
EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)

UNITS = {
    "input_tokens": "token",
    "output_tokens": "token",
    "cache_read_tokens": "token",
    "cache_creation_tokens": "token",
    "reasoning_tokens": "token",
    "image_count": "image",
    "image_pixels": "pixel",
    "video_seconds": "second",
    "audio_seconds": "second",
    "characters": "character",
    FLAT: "task",
}
METERS = tuple(meter for meter in UNITS if meter != FLAT)


@dataclass(frozen=True)
class Rate:
    """The price of `unit_size` units of a meter, in credits."""

    price_id: str
    meter: str
    unit: str
    unit_size: int
    credits: Decimal


@dataclass(frozen=True)
class Line:
    """One metered amount: what it lists for, and what of it is billed."""

    rate: Rate
    quantity: Decimal
    listed: Decimal
    billed: Decimal
    estimated: bool = False


@dataclass(frozen=True)
class Bill:
    """The lines of a task and their sum. `cut` says that the usage exceeded the ceiling."""

    lines: tuple[Line, ...]
    charged: Decimal
    cut: bool


def amount(quantity: Decimal, rate: Rate) -> Decimal:
    """Credits for a quantity, rounded half to even to four places; never more than MOST."""
    exact = EXACT.divide(EXACT.multiply(quantity, rate.credits), Decimal(rate.unit_size))
    return min(exact, MOST).quantize(PLACES, context=EXACT)


def ceiling(bound: Mapping[str, Decimal], rates: Iterable[Rate]) -> Decimal:
    """The most that usage within `bound` can cost: what a quote says and a hold takes."""
    return sum((line.listed for line in listed(bound, rates)), Decimal(0))


def bill(
    usage: Mapping[str, Decimal], rates: Iterable[Rate], *, at_most: Decimal, estimated: frozenset[str] = frozenset()
) -> Bill:
    """The lines of this usage; what exceeds `at_most` is cut from the last lines."""
    room, lines = at_most, []
    for line in listed(usage, rates, estimated=estimated):
        billed = min(line.listed, room)
        room -= billed
        lines.append(replace(line, billed=billed))
    total = sum((line.listed for line in lines), Decimal(0))
    charged = sum((line.billed for line in lines), Decimal(0))
    return Bill(tuple(lines), charged, cut=total > charged)


def waived(usage: Mapping[str, Decimal], rates: Iterable[Rate], *, estimated: frozenset[str] = frozenset()) -> Bill:
    """Lines listed in full and billed nothing: a free rerun."""
    return replace(bill(usage, rates, at_most=Decimal(0), estimated=estimated), cut=False)


def usd(credits_: Decimal, *, credits_per_usd: Decimal) -> Decimal:
    """The reference amount in US dollars, seven places, for display only."""
    return EXACT.divide(credits_, credits_per_usd).quantize(USD_PLACES, rounding=ROUND_HALF_UP, context=EXACT)


def listed(
    quantities: Mapping[str, Decimal], rates: Iterable[Rate], *, estimated: frozenset[str] = frozenset()
) -> list[Line]:
    """Lines in the order of the rates, for every priced meter that was used; the flat price counts one task."""
    used = {**quantities, FLAT: Decimal(1)}
    return [
        Line(rate, used[rate.meter], due := amount(used[rate.meter], rate), due, rate.meter in estimated)
        for rate in rates
        if used.get(rate.meter)
    ]


def place_of(meter: str) -> int:
    """Where a meter's line stands: the flat price first, then the meters as they are listed."""
    order = (FLAT, *METERS)
    return order.index(meter) if meter in order else len(order)
