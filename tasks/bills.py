"""What a task is billed: its usage at the rates of its quote."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from billing import pricing

NOTHING = pricing.Bill((), Decimal("0.0000"), cut=False)


def rates_of(quote: Mapping[str, Any]) -> list[pricing.Rate]:
    """The price rows that were used for the quote."""
    return [pricing.Rate(**rate | {"credits": Decimal(rate["credits"])}) for rate in quote["rates"]]


def billed(
    usage: Mapping[str, Decimal],
    rates: list[pricing.Rate],
    *,
    held: Decimal,
    waived: bool,
    estimated: frozenset[str] = frozenset(),
) -> pricing.Bill:
    """What this usage costs: at most what is held, and nothing where an operator waived it."""
    if waived:
        return pricing.waived(usage, rates, estimated=estimated)
    return pricing.bill(usage, rates, at_most=held, estimated=estimated)


def partial(quote: Mapping[str, Any], usage: Mapping[str, str], *, held: Decimal, waived: bool) -> pricing.Bill:
    """What was streamed so far, where the quote says that it is billed; never the flat price."""
    if not (quote.get("bills_partial_output") and usage):
        return NOTHING
    rates = [rate for rate in rates_of(quote) if rate.meter != pricing.FLAT]
    return billed({meter: Decimal(said) for meter, said in usage.items()}, rates, held=held, waived=waived)
