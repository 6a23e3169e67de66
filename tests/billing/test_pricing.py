"""Pricing as arithmetic: whatever the usage and the prices, lines add up and never exceed the quote."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing import pricing
from billing.pricing import FLAT, UNITS, Rate

quantities = st.decimals(0, 10**9, places=6)
prices = st.decimals(0, 10**6, places=10)
sizes = st.sampled_from([1, 7, 1000, 1_000_000])
amounts = st.decimals(0, 10**6, places=4)
usages = st.dictionaries(st.sampled_from(pricing.METERS), quantities, max_size=6)


@st.composite
def cards(draw) -> list[Rate]:
    """The rates of a card, in the order of its lines."""
    meters = draw(st.lists(st.sampled_from(list(UNITS)), unique=True, max_size=6))
    return [
        Rate(f"price-{meter}", meter, UNITS[meter], draw(sizes), draw(prices))
        for meter in sorted(meters, key=pricing.place_of)
    ]


def rate(credits_: str, *, meter: str = "characters", size: int = 1) -> Rate:
    return Rate("price", meter, UNITS[meter], size, Decimal(credits_))


@given(quantities, prices, sizes)
def test_a_line_is_rounded_once_half_to_even(quantity, price, size):
    exact = Fraction(quantity) * Fraction(price) / size

    rounded = pricing.amount(quantity, Rate("price", "characters", "character", size, price))

    assert rounded == Decimal(round(exact * 10_000)).scaleb(-4)
    assert rounded.as_tuple().exponent == -4


@pytest.mark.parametrize(
    ("quantity", "expected"), [("0.5", "0.0000"), ("1.5", "0.0002"), ("2.5", "0.0002"), ("2.500001", "0.0003")]
)
def test_half_a_place_goes_to_the_even_one(quantity, expected):
    assert pricing.amount(Decimal(quantity), rate("0.0001")) == Decimal(expected)


@given(usages, cards(), amounts)
def test_billed_lines_add_up_to_the_charge_which_never_exceeds_the_most(usage, card, most):
    bill = pricing.bill(usage, card, at_most=most)

    assert sum(line.billed for line in bill.lines) == bill.charged <= most
    assert all(line.listed >= line.billed >= 0 for line in bill.lines)
    assert bill.cut == (sum(line.listed for line in bill.lines) > most)


@given(usages, cards(), amounts)
def test_only_the_last_lines_are_cut(usage, card, most):
    bill = pricing.bill(usage, card, at_most=most)

    whole = [line.billed == line.listed for line in bill.lines]
    first_cut = whole.index(False) if False in whole else len(whole)
    assert all(line.billed == 0 for line in bill.lines[first_cut + 1 :])


@given(cards(), st.dictionaries(st.sampled_from(pricing.METERS), st.tuples(quantities, quantities), max_size=6))
def test_usage_within_its_bound_costs_at_most_its_quote(card, pairs):
    bound = {meter: max(pair) for meter, pair in pairs.items()}
    usage = {meter: min(pair) for meter, pair in pairs.items()}
    quoted = pricing.ceiling(bound, card)

    bill = pricing.bill(usage, card, at_most=quoted)

    assert not bill.cut
    assert pricing.ceiling(usage, card) == bill.charged <= quoted


@given(usages, cards())
def test_a_waived_bill_lists_in_full_and_bills_nothing(usage, card):
    bill = pricing.waived(usage, card)

    assert bill.charged == 0
    assert not bill.cut
    assert all(line.billed == 0 for line in bill.lines)
    assert sum(line.listed for line in bill.lines) == pricing.ceiling(usage, card)


@given(amounts, st.decimals(Decimal("0.0001"), 10**6, places=4))
def test_the_dollar_reference_has_seven_places(credits_, credits_per_usd):
    dollars = pricing.usd(credits_, credits_per_usd=credits_per_usd)

    assert dollars.as_tuple().exponent == -7
    assert abs(Fraction(dollars) - Fraction(credits_) / Fraction(credits_per_usd)) <= Fraction(1, 2 * 10**7)


def test_the_flat_price_counts_one_task_and_stands_first():
    card = [rate("2", meter=FLAT), rate("0.5")]

    bill = pricing.bill({"characters": Decimal(3)}, card, at_most=Decimal(10))

    assert [(line.rate.meter, line.quantity, line.billed) for line in bill.lines] == [
        (FLAT, 1, Decimal("2.0000")),
        ("characters", 3, Decimal("1.5000")),
    ]
    assert pricing.place_of(FLAT) < min(pricing.place_of(meter) for meter in pricing.METERS)


def test_a_flat_price_is_charged_without_any_usage():
    assert pricing.bill({}, [rate("2", meter=FLAT)], at_most=Decimal(10)).charged == 2


def test_usage_without_a_price_and_prices_without_usage_make_no_line():
    bill = pricing.bill({"image_count": Decimal(3), "characters": Decimal(0)}, [rate("1")], at_most=Decimal(10))

    assert bill == pricing.Bill((), Decimal(0), cut=False)


def test_a_price_of_zero_makes_a_line_of_nothing():
    bill = pricing.bill({"characters": Decimal(3)}, [rate("0")], at_most=Decimal(10))

    assert [(line.quantity, line.listed, line.billed) for line in bill.lines] == [(3, 0, 0)]


def test_a_cut_bill_keeps_what_was_listed():
    card = [rate("4", meter=FLAT), rate("1"), rate("1", meter="image_count")]
    usage = {"characters": Decimal(3), "image_count": Decimal(2)}

    bill = pricing.bill(usage, card, at_most=Decimal(5))

    assert [(line.listed, line.billed) for line in bill.lines] == [(4, 4), (3, 1), (2, 0)]
    assert (bill.charged, bill.cut) == (5, True)


def test_a_line_says_whether_its_quantity_was_estimated():
    usage = {"characters": Decimal(3)}

    bill = pricing.bill(usage, [rate("1")], at_most=Decimal(5), estimated=frozenset({"characters"}))

    assert [line.estimated for line in bill.lines] == [True]


def test_no_line_lists_for_more_than_can_be_written():
    usage = {"characters": Decimal(10) ** 17}

    bill = pricing.bill(usage, [rate("1000000000")], at_most=Decimal(5))

    assert [(line.listed, line.billed) for line in bill.lines] == [(pricing.MOST, 5)]
    assert bill.cut


def test_large_amounts_keep_every_place():
    quantity, price = Decimal("999999999999.999999"), Decimal("9999.9999999999")

    exact = Fraction(quantity) * Fraction(price)

    assert pricing.amount(quantity, rate(str(price))) == Decimal(round(exact * 10_000)).scaleb(-4)
