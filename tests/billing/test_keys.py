"""What a key may spend in a month, what becomes of it when it is rolled, and whom its account's credits belong to."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import time_machine
from django.utils import timezone

from billing import audit, credentials, ledger
from billing.credentials import digest
from billing.exceptions import KeyEnded, SpendCapReached
from billing.models import Account, ApiKey, Charge, Transfer
from billing.redaction import without_keys
from billing.twins import fill, twin_of
from tests.billing.builders import EMPTY, WHY, at_once, billed, run_sql, settle
from tests.builders import account, buckets, key, refused

pytestmark = pytest.mark.django_db


def hold(by: ApiKey, amount: str):
    """Credits that a task of this key holds."""
    task_id = uuid4()
    ledger._execute(
        "INSERT INTO billing_transfer (account_id, task_id, api_key_id, kind, amount, key)"
        " VALUES (%(account)s, %(task)s, %(by)s, 'hold', %(amount)s, 'hold:' || %(task)s::text) RETURNING id",
        account=by.account_id,
        task=task_id,
        by=by.pk,
        amount=Decimal(amount),
    )
    return task_id


def back(mine: Account, available: Decimal) -> None:
    """Have so many credits available again."""
    by = available - Account.objects.get(pk=mine.pk).available
    ledger.adjust(mine.pk, by, key=str(uuid4()), reason="r", actor="test")


def spent(of: ApiKey) -> Decimal:
    return ApiKey.objects.get(pk=of.pk).month_spent


@pytest.mark.django_db(transaction=True)
def test_a_key_spends_up_to_its_cap_and_another_of_the_account_goes_on():
    mine = account("100")
    capped, _ = key(mine, monthly_cap=Decimal(5))
    other, _ = key(mine)
    hold(capped, "3")

    with pytest.raises(SpendCapReached, match="this key"):
        hold(capped, "2.0001")
    hold(capped, "2")
    hold(other, "50")

    assert (spent(capped), spent(other)) == (5, 50)
    assert buckets(mine) == {"available": 45, "held": 55, "charged": 0}


@pytest.mark.django_db(transaction=True)
def test_what_is_released_may_be_spent_again_and_what_is_refunded_may_not():
    mine = account("100")
    capped, _ = key(mine, monthly_cap=Decimal(10))
    settle(mine, hold(capped, "10"), EMPTY, held="10")
    charged = hold(capped, "10")
    settle(mine, charged, billed("4"), held="10")

    ledger.refund(mine.pk, Decimal(4), task_id=charged, key="r", **WHY)

    assert spent(capped) == 4
    assert ApiKey.objects.get(pk=capped.pk).account.month_spent == 4
    assert audit.run().holds


@pytest.mark.django_db(transaction=True)
def test_a_new_month_begins_with_nothing_spent_and_the_old_months_releases_give_nothing_back():
    mine = account("100")
    capped, _ = key(mine, monthly_cap=Decimal(5))
    old = hold(capped, "5")
    run_sql("ALTER TABLE billing_apikey DISABLE TRIGGER USER; ALTER TABLE billing_charge DISABLE TRIGGER USER")
    ApiKey.objects.update(month="2020-01-01")
    Charge.objects.update(created_at=datetime(2020, 1, 5, tzinfo=UTC))
    run_sql("ALTER TABLE billing_apikey ENABLE TRIGGER USER; ALTER TABLE billing_charge ENABLE TRIGGER USER")

    hold(capped, "4")
    settle(mine, old, EMPTY, held="5")

    assert spent(capped) == 4


@pytest.mark.django_db(transaction=True)
def test_sixteen_threads_never_pass_the_cap_of_a_key():
    mine = account("100")
    capped, _ = key(mine, monthly_cap=Decimal(5))

    results = at_once(16, lambda n: hold(capped, "1"))

    assert sum(isinstance(result, SpendCapReached) for result in results) == 11
    assert spent(capped) == 5
    assert buckets(mine)["held"] == 5
    assert audit.run().holds


def test_no_sql_moves_what_a_key_spent_nor_lets_another_account_spend_by_it():
    mine, other = account("10"), account("10")
    spender, _ = key(mine)

    with refused("CF001", "what_a_key_spent_moves_by_transfers"):
        ApiKey.objects.filter(pk=spender.pk).update(month_spent=1)
    with refused("CF001", "what_a_key_spent_moves_by_transfers"):
        ApiKey.objects.filter(pk=spender.pk).update(account=other)
    with refused("23503", "transfer_api_key"):
        hold(ApiKey(pk=spender.pk, account=other), "1")
    with refused("23514", "only_a_hold_names_a_key"):
        Transfer.objects.create(account=mine, api_key=spender, kind="grant", amount=1, key="g", reason="r")


def test_a_lowered_cap_takes_nothing_back():
    mine = account("10")
    spender, _ = key(mine)
    task = hold(spender, "5")
    ApiKey.objects.filter(pk=spender.pk).update(monthly_cap=1)

    settle(mine, task, billed("5"), held="5")

    assert spent(spender) == 5
    with pytest.raises(SpendCapReached):
        hold(spender, "0.0001")


def test_a_rolled_key_is_the_same_key_by_a_new_secret():
    mine = account()
    rolled, old = key(mine, monthly_cap=Decimal(7))

    new = credentials.roll(rolled, overlap=timedelta(hours=1))

    kept = ApiKey.objects.get()
    assert (kept.pk, kept.digest, kept.previous_digest) == (rolled.pk, digest(new), digest(old))
    assert (kept.prefix, kept.previous_prefix, kept.monthly_cap) == (new[:16], old[:16], 7)
    assert timedelta(minutes=59) < kept.previous_until - timezone.now() <= timedelta(hours=1)


def test_a_second_roll_ends_the_secret_before_the_last():
    rolled, first = key(account())
    second = credentials.roll(rolled, overlap=timedelta(hours=1))

    credentials.roll(rolled, overlap=timedelta(hours=1))

    kept = ApiKey.objects.get()
    assert kept.previous_digest == digest(second)
    assert digest(first) not in (kept.digest, kept.previous_digest)


@pytest.mark.parametrize("ended", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now()}])
def test_a_key_that_ended_is_not_rolled(ended):
    rolled, secret = key(account())
    ApiKey.objects.update(**ended)

    with pytest.raises(KeyEnded):
        credentials.roll(rolled, overlap=timedelta(0))

    assert ApiKey.objects.get().digest == digest(secret)


@pytest.mark.django_db(transaction=True)
def test_eight_rolls_at_once_leave_the_last_two_secrets():
    rolled, _ = key(account())

    secrets = at_once(8, lambda n: credentials.roll(rolled, overlap=timedelta(hours=1)))

    kept = ApiKey.objects.get()
    assert {kept.digest, kept.previous_digest} <= {digest(secret) for secret in secrets}
    assert len(set(secrets)) == 8


def test_a_secret_is_cut_from_a_text_and_its_prefix_stays():
    _, secret = key(account())

    said = without_keys(f"Bearer {secret}, {secret}")

    assert said == f"Bearer {secret[:16]}…, {secret[:16]}…"


@pytest.mark.django_db(transaction=True)
def test_an_account_is_low_from_the_fall_below_its_threshold_to_the_rise_a_tenth_above_it():
    mine = account("10", low_balance_threshold=4, credit_limit=1)
    spender, _ = key(mine)

    def low():
        return Account.objects.get(pk=mine.pk).low_since

    first = hold(spender, "6")
    assert low() is None
    second = hold(spender, "1")
    since = low()
    hold(spender, "1")
    assert low() == since is not None
    settle(mine, second, EMPTY, held="1")
    assert low() == since
    settle(mine, first, EMPTY, held="6")
    assert low() is None
    for threshold, until in (("8", "9"), ("0", "1"), ("50", "55")):
        Account.objects.filter(pk=mine.pk).update(low_balance_threshold=Decimal(threshold))
        back(mine, Decimal(threshold) - Decimal("0.0001"))
        since = low()
        back(mine, Decimal(until) - Decimal("0.0001"))
        assert (low(), audit.run().holds) == (since, True)
        back(mine, Decimal(until))
        assert (low(), audit.run().holds) == (None, True)
    Account.objects.filter(pk=mine.pk).update(low_balance_threshold=100)
    assert low() is not None
    Account.objects.filter(pk=mine.pk).update(low_since=None)
    assert low() is not None
    Account.objects.filter(pk=mine.pk).update(low_balance_threshold=None)
    assert low() is None


@pytest.mark.django_db(transaction=True)
def test_a_twin_has_a_days_credits_and_gets_what_it_spent_once_a_day(settings):
    settings.TEST_CREDITS_A_DAY = 100
    twin, _ = twin_of(account())
    spender, _ = key(twin)
    hold(spender, "30")

    assert (twin_of(twin)[0], fill()) == (twin, 0)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=1)):
        assert (fill(), fill()) == (1, 0)

    assert buckets(twin) == {"available": 100, "held": 30, "charged": 0}
    assert audit.run().holds


@pytest.mark.django_db(transaction=True)
def test_eight_at_once_open_one_twin_and_fill_it_once(settings):
    settings.TEST_CREDITS_A_DAY = 100
    mine = account()
    opened = at_once(8, lambda n: twin_of(mine))
    settings.TEST_CREDITS_A_DAY = 150

    with time_machine.travel(datetime.now(UTC) + timedelta(days=1), tick=False):
        filled = at_once(8, lambda n: fill())

    assert len({twin.pk for twin, _ in opened}) == 1
    assert sum(secret is not None for _, secret in opened) == 1
    assert not [each for each in filled if isinstance(each, Exception)]
    assert buckets(opened[0][0])["available"] == 150
