"""What is done to an account, by clicks, and ending in its rows."""

from decimal import Decimal

import pytest
from playwright.sync_api import Error


@pytest.fixture
def account(place):
    return f"/admin/billing/account/{place.account_id}/change/"


def available(place):
    return place.row("SELECT available FROM billing_account WHERE id = %s", place.account_id)["available"]


def newest(place):
    return place.rows(
        "SELECT * FROM billing_transfer WHERE account_id = %s ORDER BY account_seq DESC LIMIT 1", place.account_id
    )[0]


@pytest.mark.parametrize(("title", "given"), [("Grant credits", "25"), ("Adjust credits", "-5")])
def test_credits_are_given_and_corrected_for_a_reason(come, place, account, title, given):
    person, before = come("billing"), available(place)

    person.open(account)
    person.act(title, amount=given, reason="as agreed")

    moved = newest(place)
    assert available(place) == before + Decimal(given)
    assert (moved["actor"], moved["reason"]) == ("operator:billing", "as agreed")


@pytest.mark.parametrize(("title", "begins"), [("Issue API key", "cf_live_"), ("Rotate callback secret", "whsec_")])
def test_a_secret_is_shown_once_and_the_way_back_is_shut(come, account, title, begins, picture):
    person, fields = come("billing"), {"name": "web"} if title == "Issue API key" else {}

    page = person.open(account)
    person.act(title, **fields)
    secret = page.locator("code.secret").inner_text()
    picture(person, f"secret-{begins}")
    page.get_by_role("link", name="I have copied it").click()
    page.wait_for_url("**/change/**")

    assert secret.startswith(begins)
    assert secret not in page.content()
    with pytest.raises(Error, match="ERR_CACHE_MISS"):
        page.go_back()
    person.wrong.clear()


@pytest.mark.parametrize("who", ["operator", "support"])
def test_who_does_not_bill_is_offered_nothing_that_moves_credits(come, place, account, who):
    person = come(who)

    person.open(account)

    assert not person.offered() & {"Grant credits", "Adjust credits", "Issue API key", "Rotate callback secret"}
    for act in ("grant", "adjust", "issue-key", "rotate-secret", "disable"):
        assert person.status_of(f"/admin/billing/account/{act}/?ids={place.account_id}") == 403


def test_an_account_is_shut_and_opened_again(come, place, account):
    person = come("billing")
    shut = "SELECT is_active FROM billing_account WHERE id = %s"

    person.open(account)
    person.act("Disable account", reason="unpaid")
    closed = place.row(shut, place.account_id)["is_active"]
    person.act("Enable account", reason="paid")

    assert closed is False
    assert place.row(shut, place.account_id)["is_active"] is True
