"""A statement's periods: they follow one another without a gap, and their spreadsheet adds up to the balances."""

import csv
import io
from datetime import date, timedelta
from decimal import Decimal
from unittest.mock import patch

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing import ledger, periods
from billing.models import Transfer
from billing.periods import BALANCES, period
from billing.spreadsheets import MARK, csv_of, file_name, harmless
from tests.builders import account, buckets, claim, deployment, lifecycle, submit

pytestmark = pytest.mark.django_db
TODAY = date(2026, 3, 10)


def dated(of, *days):
    """Grants of 1, 2, 3 ... of these days, in this order. Nobody can change a transfer: the guards are taken away."""
    for number in range(1, len(days) + 1):
        ledger.grant(of.pk, Decimal(number), key=f"{of.pk}-{number}", reason=f"grant {number}", actor="test")
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_transfer DISABLE TRIGGER USER")
        cursor.executemany(
            "UPDATE billing_transfer SET created_at = %s WHERE account_id = %s AND account_seq = %s",
            [(day, of.pk, number) for number, day in enumerate(days, start=1)],
        )
        cursor.execute("ALTER TABLE billing_transfer ENABLE TRIGGER USER")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def at(day, time="12:00"):
    return f"2026-03-{day:02} {time}+00"


def numbers(asked):
    return list(asked.transfers.order_by("account_seq").values_list("account_seq", flat=True))


def read(asked):
    text = "".join(csv_of(asked))
    assert text.startswith(MARK)
    return list(csv.DictReader(io.StringIO(text.removeprefix(MARK))))


def test_a_period_has_the_transfers_of_its_days_and_the_balances_at_its_borders():
    owner = account("0")
    dated(owner, at(1), at(2, "00:00"), at(2, "23:59:59.999"), at(3, "00:00"), at(5))

    asked = period(owner.pk, since=date(2026, 3, 2), until=date(2026, 3, 3))

    assert numbers(asked) == [2, 3, 4]
    assert (asked.opening.available, asked.closing.available, asked.change.available) == (1, 10, 9)


def test_an_open_period_begins_with_nothing_and_ends_with_what_there_is():
    owner = account("0")
    dated(owner, at(1), at(2))

    asked = period(owner.pk)

    assert (numbers(asked), asked.opening.granted, asked.closing.granted) == ([1, 2], 0, 3)


@pytest.mark.parametrize("days", [(date(2020, 1, 1), date(2020, 1, 2)), (date(2100, 1, 1), None)])
def test_a_period_without_transfers_opens_and_closes_alike(days):
    owner = account("0")
    dated(owner, at(1), at(2))

    asked = period(owner.pk, since=days[0], until=days[1])

    assert numbers(asked) == []
    assert asked.opening == asked.closing


def test_transfers_whose_times_cross_at_midnight_are_in_one_of_two_periods_each():
    owner = account("0")
    dated(owner, at(1), at(2, "00:00:00.001"), at(1, "23:59:59.999"), at(2), at(2, "00:00"), at(3))

    first = period(owner.pk, until=date(2026, 3, 1))
    second = period(owner.pk, since=date(2026, 3, 2))

    assert numbers(first) + numbers(second) == [1, 2, 3, 4, 5, 6]
    assert first.closing == second.opening


def test_a_border_stays_where_it_is_when_transfers_are_added():
    owner = account("0")
    days = [at(1 + number // 3, f"{number % 3:02}:00") for number in range(12)]
    dated(owner, *days)
    before = period(owner.pk, until=date(2026, 3, 2))

    for number in range(9):
        ledger.grant(owner.pk, Decimal(1), key=f"more-{number}", reason="x", actor="test")

    assert period(owner.pk, until=date(2026, 3, 2)) == before


def test_a_period_is_found_by_a_few_statements_whatever_its_size():
    owner = account("0")
    dated(owner, *[at(1 + number // 5, f"{number % 5:02}:00") for number in range(40)])

    with CaptureQueriesContext(connection) as queries:
        period(owner.pk, since=date(2026, 3, 2), until=date(2026, 3, 3))

    assert len(queries) <= 4


def test_the_spreadsheet_of_a_busy_account_adds_up_to_its_balances():
    owner, to = account("100"), deployment(prices=(("task", "1"), ("input_tokens", "2")))
    for number in range(3):
        task = submit(owner, to, input={"bound": {"input_tokens": 5}})
        lifecycle.succeed(claim(task), output=None, usage={"input_tokens": number}, warnings=[])
    lifecycle.refund(task.pk, Decimal("1.5"), key="r", reason="sorry", by="operator:root")
    ledger.adjust(owner.pk, Decimal("-7.25"), key="a", reason="typo", actor="operator:root")
    submit(owner, to)

    with patch.object(periods, "CHUNK", 4):
        opening, *moves, closing = read(period(owner.pk))

    has = buckets(owner)
    sums = {name: sum(Decimal(move[f"{name}_change"]) for move in moves) for name in BALANCES}
    assert {name: sums[name] for name in has} == has
    assert sums["granted"] == Decimal("92.75")
    assert {name: Decimal(closing[f"{name}_after"]) for name in BALANCES} == sums
    assert {opening[f"{name}_after"] for name in BALANCES} == {"0.0000"}
    assert [int(move["number"]) for move in moves] == list(range(1, Transfer.objects.count() + 1))


def test_the_spreadsheet_of_a_period_adds_up_from_its_opening_to_its_closing_balance():
    owner = account("0")
    dated(owner, at(1), at(2), at(3), at(4))

    opening, *moves, closing = read(period(owner.pk, since=date(2026, 3, 2), until=date(2026, 3, 3)))

    assert (opening["kind"], closing["kind"]) == ("opening balance", "closing balance")
    assert [move["time"] for move in moves] == ["2026-03-02T12:00:00Z", "2026-03-03T12:00:00Z"]
    moved = sum(Decimal(move["available_change"]) for move in moves)
    assert Decimal(opening["available_after"]) + moved == Decimal(closing["available_after"]) == 6


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =1", "\uff1d1", '=HYPERLINK("http://x","y")'],
)
def test_text_that_a_spreadsheet_would_run_is_marked_as_text(text):
    owner = account("0")
    ledger.grant(owner.pk, Decimal(1), key="x", reason=text, actor=f"operator:{text}")

    _, move, _ = read(period(owner.pk))

    assert move["reason"] == f"'{text}"
    assert move["actor"] == f"operator:{text}"


def test_plain_text_and_negative_numbers_stay_as_they_are():
    owner = account("10")
    ledger.adjust(owner.pk, Decimal("-2.5"), key="x", reason='a, "b"\n-c', actor="operator:root")

    *_, move, _ = read(period(owner.pk))

    assert (move["amount"], move["available_change"]) == ("-2.5000", "-2.5000")
    assert move["reason"] == 'a, "b"\n-c'
    assert harmless("") == ""


@pytest.mark.parametrize("name", ["../../etc/passwd", 'a"; x="b', "Ä" * 200, "日本", "\r\nSet-Cookie"])
def test_a_file_name_is_safe_whatever_the_account_is_called(name):
    owner = account("0")
    owner.name = name

    called = file_name(owner, period(owner.pk, since=TODAY, until=TODAY + timedelta(days=1)))

    assert called.isascii()
    assert not set(called) - set("abcdefghijklmnopqrstuvwxyz0123456789-._")
    assert called.endswith("-2026-03-10-2026-03-11.csv")
