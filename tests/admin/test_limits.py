"""What an account is set to: changed with before and after, only where it was changed, by two at once without loss."""

from decimal import Decimal

import pytest

from billing.models import Account
from tests.admin.people import history, member, page_url, root, told
from tests.admin.test_account_acts import UNREADABLE
from tests.builders import account, submit

pytestmark = pytest.mark.django_db
ACT = "set-limits"
AS_OPENED = {
    "name": "Acme", "running_limit": "10", "pending_limit": "1000", "requests_per_minute": "600",
    "credit_limit": "0.0000", "monthly_cap": "", "low_balance_threshold": "",
}  # fmt: skip


def sent(**changed):
    """The form of an account as opened, with these fields changed."""
    return AS_OPENED | {f"initial-{name}": value for name, value in AS_OPENED.items()} | changed


def test_a_change_of_limits_writes_what_was_changed_and_says_what_it_was():
    owner, person = account(), root()
    submit(owner)
    frozen = Account.objects.values().get(pk=owner.pk)
    forged = {"granted": "999", "available": "999", "is_active": "", "twin_of": str(owner.pk), "callback_secret": "x"}

    answer = person.do(
        owner, ACT, **sent(name="Acme Ltd", running_limit="3", monthly_cap="50", reason="new contract"), **forged
    )

    changed = {"name": "Acme Ltd", "running_limit": 3, "monthly_cap": Decimal(50), "near_cap": False}
    assert Account.objects.values().get(pk=owner.pk) == frozen | changed
    assert told(answer) == ["Acme: Name: Acme → Acme Ltd; Running tasks: 10 → 3; Monthly cap: none → 50.0000."]
    assert history(owner) == [
        "Name: Acme → Acme Ltd; Running tasks: 10 → 3; Monthly cap: none → 50.0000. Reason: new contract"
    ]


def test_two_operators_who_change_different_limits_both_have_their_way():
    owner, person = account(), root()
    pages = [person.ask(owner, ACT), person.ask(owner, ACT)]

    person.send(owner, ACT, pages[0], **sent(running_limit="3"))
    person.send(owner, ACT, pages[1], **sent(credit_limit="20"))

    owner.refresh_from_db()
    assert (owner.running_limit, owner.credit_limit) == (3, 20)


def test_of_two_operators_who_change_the_same_limit_the_second_is_told():
    owner, person = account(), root()
    pages = [person.ask(owner, ACT), person.ask(owner, ACT)]

    person.send(owner, ACT, pages[0], **sent(running_limit="3"))
    late = person.send(owner, ACT, pages[1], **sent(running_limit="7", credit_limit="20"))

    owner.refresh_from_db()
    assert told(late) == ["Acme: Running tasks was changed to 3 meanwhile. Nothing was changed; look again."]
    assert (owner.running_limit, owner.credit_limit, len(history(owner))) == (3, 0, 1)


def test_the_page_offers_what_is_set_and_shows_what_is_used():
    owner = account("10", monthly_cap=50, credit_limit=5)
    submit(owner)

    page = root().ask(owner, ACT)

    form = page.context["form"]
    assert form["monthly_cap"].initial == 50
    assert [row[1:] for row in page.context["facts"].rows] == [["0 of 10", "1 of 1000", "1.0000 of 50.0000", "9.0000"]]


WRONG = [
    {},
    {"credit_limit": "-1"},
    {"credit_limit": "1e15"},
    {"credit_limit": "NaN"},
    {"running_limit": "-1"},
    {"running_limit": "2147483648"},
    {"name": ""},
    *({"name": name} for name in UNREADABLE),
    {"monthly_cap": "x"},
    {"monthly_cap": "-0.0001"},
    {"low_balance_threshold": "-5"},
    {"low_balance_threshold": "9" * 400},
]


def test_limits_that_make_no_sense_are_errors_of_the_form():
    owner, person = account(), root()
    frozen, page = Account.objects.values().get(pk=owner.pk), person.ask(owner, ACT)

    for wrong in WRONG:
        answer = person.send(owner, ACT, page, **sent(**wrong))
        assert answer.context["form"].errors, wrong
    assert Account.objects.values().get(pk=owner.pk) == frozen


def test_a_limit_whose_old_value_was_forged_is_changed_only_from_what_it_is():
    owner = account()

    answer = root().do(owner, ACT, **sent(running_limit="3") | {"initial-running_limit": "\x00junk"})

    assert told(answer) == ["Acme: Running tasks was changed to 10 meanwhile. Nothing was changed; look again."]


@pytest.mark.parametrize("group", ["Operator", "Support"])
def test_limits_are_for_the_group_that_bills(group):
    owner, person = account(), member(group)

    assert person.ask(owner, ACT).status_code == 403
    assert person.client.post(page_url(owner), AS_OPENED | {"name": "x"}).status_code == 403
