"""Money in many sessions at once, on PostgreSQL with real threads."""

from decimal import Decimal
from uuid import uuid4

import pytest

from billing import audit, ledger
from billing.exceptions import InsufficientBalance, RefundTooLarge, SpendCapReached
from billing.models import Transfer
from tests.billing.builders import EMPTY, WHY, at_once, billed, charge, charged, held, hold, line_ids, settle
from tests.builders import account, buckets

pytestmark = pytest.mark.django_db(transaction=True)


def test_eight_holds_on_a_balance_for_two_are_two():
    mine = account("2")

    results = at_once(8, lambda n: hold(mine.pk, Decimal(1), task_id=uuid4()))

    assert sorted(type(result).__name__ for result in results) == ["InsufficientBalance"] * 6 + ["Transfer"] * 2
    assert buckets(mine) == {"available": 0, "held": 2, "charged": 0}


def test_eight_holds_under_a_cap_for_two_are_two():
    mine = account("10", monthly_cap=2)

    results = at_once(8, lambda n: hold(mine.pk, Decimal(1), task_id=uuid4()))

    assert sum(isinstance(result, SpendCapReached) for result in results) == 6
    assert buckets(mine) == {"available": 8, "held": 2, "charged": 0}


def test_the_same_hold_from_eight_threads_is_one():
    mine, task_id = account("10"), uuid4()

    results = at_once(8, lambda n: hold(mine.pk, Decimal(10), task_id=task_id))

    assert len({result.pk for result in results}) == 1
    assert buckets(mine) == {"available": 0, "held": 10, "charged": 0}


def test_the_same_grant_from_sixteen_threads_is_one():
    mine = account("0")

    results = at_once(16, lambda n: ledger.grant(mine.pk, Decimal(5), key="voucher", **WHY))

    assert len({result.pk for result in results}) == 1
    assert buckets(mine) == {"available": 5, "held": 0, "charged": 0}


@pytest.mark.parametrize("amount", ["6", "1"])
def test_the_same_refund_from_eight_threads_is_one(amount):
    mine = account("10")
    task_id = charged(mine, "4", "2")

    results = at_once(8, lambda n: ledger.refund(mine.pk, Decimal(amount), task_id=task_id, key="click", **WHY))

    assert len({result.pk for result in results}) == 1
    assert charge(task_id)["refunded"] == Decimal(amount)


def test_of_two_refunds_that_exceed_the_charge_one_is_refused():
    mine = account("10")
    task_id = charged(mine, "4", "2")

    results = at_once(2, lambda n: ledger.refund(mine.pk, Decimal(4), task_id=task_id, key=f"click {n}", **WHY))

    assert {type(result) for result in results} == {Transfer, RefundTooLarge}
    assert charge(task_id) == {"held": 0, "charged": 6, "refunded": 4}


def test_of_two_refunds_that_exceed_a_line_one_is_refused():
    mine = account("10")
    task_id = charged(mine, "4", "2")
    line = line_ids(task_id)[0]

    def refund(n):
        return ledger.refund(mine.pk, Decimal(3), task_id=task_id, line_id=line, key=f"click {n}", **WHY)

    assert {type(result) for result in at_once(2, refund)} == {Transfer, RefundTooLarge}
    assert charge(task_id)["refunded"] == 3


def test_of_eight_ends_of_a_task_one_settles():
    mine = account("10")
    task_id, bill = held(mine, "10"), billed("6")

    results = at_once(8, lambda n: settle(mine, task_id, bill if n % 2 else EMPTY, held="10"))

    assert results.count(None) == 1
    assert charge(task_id)["held"] == 0
    assert audit.run().broken == []


def test_grants_and_adjustments_of_many_accounts_do_not_wait_for_ever():
    mine, theirs = account("10"), account("10")

    def move(n):
        first, second = (mine, theirs) if n % 2 else (theirs, mine)
        ledger.grant(first.pk, Decimal(1), key=f"first {n}", **WHY)
        return ledger.adjust(second.pk, Decimal(-1), key=f"second {n}", **WHY)

    assert all(isinstance(result, Transfer) for result in at_once(8, move))
    assert (buckets(mine)["available"], buckets(theirs)["available"]) == (10, 10)


def test_what_is_refused_in_a_race_leaves_no_number_out():
    mine = account("3")

    results = at_once(8, lambda n: hold(mine.pk, Decimal(1), task_id=uuid4()))

    assert sum(isinstance(result, InsufficientBalance) for result in results) == 5
    numbers = Transfer.objects.filter(account=mine).order_by("account_seq").values_list("account_seq", flat=True)
    assert list(numbers) == [1, 2, 3, 4]
