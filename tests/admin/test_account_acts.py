"""Credits, keys, secrets, limits and the door of an account: by whom, once, and what is shown once."""

import re
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.models import Session
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from billing.admin.once import Repeated, remember
from billing.credentials import decrypt, digest
from billing.models import Account, ApiKey, Transfer
from tests.admin.people import (
    AGAIN,
    OPEN,
    Person,
    act_url,
    at_once,
    history,
    list_url,
    member,
    page_url,
    root,
    said_again,
    told,
)
from tests.builders import account, key, refused, submit

# An act commits, so that a verb that owns its transaction and a check at commit have their say.
pytestmark = pytest.mark.django_db(transaction=True)
SECRET = re.compile(r"cf_(?:live|test)_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}")


def available(of) -> Decimal:
    return Account.objects.get(pk=of.pk).available


def posted(of) -> list[tuple]:
    rows = Transfer.objects.filter(account=of).exclude(reason="opening balance").order_by("id")
    return list(rows.values_list("kind", "amount", "actor", "reason"))


def test_a_grant_gives_credits_once_a_form():
    owner, person = account(), root()
    page = person.ask(owner, "grant")

    first = person.send(owner, "grant", page, amount="2.5", reason="invoice 17")
    second = person.send(owner, "grant", page, amount="2.5", reason="invoice 17")

    assert posted(owner) == [("grant", Decimal("2.5"), "operator:root", "invoice 17")]
    assert told(first) == ["Acme: Granted 2.5000; 12.5000 credits are available now."]
    assert told(second) == [f"Acme: {AGAIN}"]
    assert history(owner) == ["Granted 2.5000; 12.5000 credits are available now. Reason: invoice 17"]


def test_a_grant_goes_to_each_of_the_chosen_accounts():
    one, other, person = account(), account(name="Umbrella"), root()

    person.do(one, "grant", other, amount="1", reason="sorry")

    assert (available(one), available(other)) == (11, 11)


def test_an_adjustment_has_a_sign():
    owner, person = account(), root()

    person.do(owner, "adjust", amount="-4", reason="typo")
    person.do(owner, "adjust", amount="1", reason="typo")

    assert [row[:2] for row in posted(owner)] == [("adjustment", -4), ("adjustment", 1)]
    assert available(owner) == 7


def test_an_adjustment_below_the_limit_is_refused_with_a_sentence():
    owner, person = account(), root()

    answer = person.do(owner, "adjust", amount="-10.0001")

    assert len(told(answer)) == 1
    assert (posted(owner), history(owner), available(owner)) == ([], [], 10)


@pytest.mark.parametrize(
    ("act", "amount"),
    [
        ("grant", "0"),
        ("grant", "-1"),
        ("adjust", "0"),
        ("grant", "1e20"),
        ("grant", "1000000000001"),
        ("adjust", "-1e13"),
        ("adjust", "NaN"),
    ],
)
@pytest.mark.django_db
def test_an_amount_that_is_none_is_an_error_of_the_form(act, amount):
    owner, person = account(), root()

    answer = person.do(owner, act, amount=amount)

    assert "amount" in answer.context["form"].errors
    assert available(owner) == 10


def test_a_key_that_has_expired_already_is_not_issued():
    owner, person = account(), root()
    fields = {"kind": "live", "name": "ci", "scopes": ["tasks:read"]}

    for date in ("2001-01-01", "0001-01-01"):
        answer = person.do(owner, "issue-key", **fields, expires_at_0=date, expires_at_1="00:00")
        assert "This time has passed" in answer.context["form"].errors["expires_at"][0]

    assert not ApiKey.objects.exists()


def test_a_key_that_expired_says_so_in_every_list():
    expired, person = key(account(), expires_at=timezone.now() - timedelta(seconds=1))[0], root()

    for page in (list_url(ApiKey), page_url(expired), page_url(expired.account)):
        shown = person.get(page).content.decode()
        assert ("expired" in shown, ">valid<" in shown.replace(" ", "").replace("\n", "")) == (True, False), page


@pytest.mark.parametrize("act", ["grant", "adjust"])
def test_of_two_who_give_credits_the_second_is_shown_the_new_balance_first(act):
    owner, ann, ben = account(), root(), Person(User.objects.create_superuser("ben"))
    pages = ann.ask(owner, act), ben.ask(owner, act)
    ann.send(owner, act, pages[0], amount="5")

    asked = ben.send(owner, act, pages[1], amount="5")
    submit(owner)
    answer = ben.send(owner, act, asked, amount="5")

    changed = "It changed since you looked: 15.0000 credits are granted now, not 10.0000."
    assert asked.context["form"].non_field_errors() == [changed]
    assert "15.0000" in str(asked.context["facts"].rows)
    assert (len(told(answer)), available(owner)) == (1, 19)


def everything_kept(person) -> str:
    """All that outlives an answer: rows of keys and accounts, sessions, cookies, the admin's history."""
    rows = [*ApiKey.objects.values(), *Account.objects.values(), *LogEntry.objects.values(), *Transfer.objects.values()]
    sessions = [session.get_decoded() for session in Session.objects.all()]
    return repr(rows) + repr(sessions) + repr([cookie.value for cookie in person.client.cookies.values()])


def test_a_new_key_is_shown_once_and_kept_nowhere():
    owner, person = account(), root()
    soon = timezone.now() + timedelta(days=30)
    when = {"expires_at_0": soon.strftime("%Y-%m-%d"), "expires_at_1": "12:00:00"}

    answer = person.do(
        owner, "issue-key", kind="live", name="ci", scopes=["tasks:read"], reason="asked by mail", **when
    )

    [secret] = set(SECRET.findall(answer.content.decode()))
    issued = ApiKey.objects.get()
    assert (issued.name, issued.scopes, issued.digest) == ("ci", ["tasks:read"], digest(secret))
    assert issued.expires_at.date() == soon.date()
    assert answer.redirect_chain == []
    assert "no-store" in answer["Cache-Control"]
    assert secret not in everything_kept(person)
    assert not SECRET.search(person.get(page_url(owner)).content.decode())
    assert not SECRET.search(person.get(page_url(issued)).content.decode())
    assert history(owner) == [f"Issued the API key ci ({issued.prefix}…). Reason: asked by mail"]


@pytest.mark.parametrize("wrong", [{"scopes": ["everything"]}, {"scopes": []}, {"name": ""}, {"expires_at_0": "soon"}])
@pytest.mark.django_db
def test_a_key_that_makes_no_sense_is_an_error_of_the_form(wrong):
    owner, person = account(), root()

    answer = person.do(owner, "issue-key", **({"kind": "live", "name": "ci", "scopes": ["tasks:read"]} | wrong))

    assert answer.context["form"].errors
    assert not ApiKey.objects.exists()


def test_a_revoked_key_stays_revoked():
    issued, _ = key(account())
    person = root()
    page = person.ask(issued, "revoke")

    person.send(issued, "revoke", page, reason="leaked")
    revoked_at = ApiKey.objects.get().revoked_at
    answer = person.send(issued, "revoke", page, reason="leaked")

    assert revoked_at is not None
    assert ApiKey.objects.get().revoked_at == revoked_at
    assert told(answer) == [f"{issued}: {AGAIN}"]
    assert history(issued) == ["Revoked the key. Reason: leaked"]
    assert told(person.do(issued, "revoke")) == [f"{issued}: it was revoked before."]


def test_disabling_an_account_closes_its_twin_too_and_enabling_opens_both():
    owner, person = account(), root()
    twin = account("0", name="Acme (test)", twin_of=owner)

    def doors():
        return [Account.objects.get(pk=row.pk).is_active for row in (owner, twin)]

    person.do(owner, "disable", reason="unpaid")
    assert doors() == [False, False]
    person.do(owner, "enable", reason="paid")
    assert doors() == [True, True]
    assert told(person.do(owner, "enable")) == ["Acme: it was enabled before."]
    assert history(owner) == ["Disabled the account. Reason: unpaid", "Enabled the account. Reason: paid"]


def test_a_rotated_secret_is_shown_once_and_the_previous_one_stays_for_a_day():
    owner, person = account(), root()
    before = decrypt(owner.callback_secret)

    answer = person.do(owner, "rotate-secret", reason="routine")

    owner.refresh_from_db()
    now = decrypt(owner.callback_secret)
    assert now != before == decrypt(owner.callback_secret_previous)
    assert timedelta(hours=23) < owner.callback_secret_previous_until - timezone.now() <= timedelta(hours=24)
    assert now in answer.content.decode().replace("&#x2B;", "+")
    assert now not in everything_kept(person)
    assert history(owner) == ["Rotated the callback secret. Reason: routine"]


def test_a_form_that_rotates_sent_twice_keeps_the_secret_that_the_customer_uses():
    owner, person = account(), root()
    before = decrypt(owner.callback_secret)
    page = person.ask(owner, "rotate-secret")

    shown = person.send(owner, "rotate-secret", page)
    again = person.send(owner, "rotate-secret", page)

    owner.refresh_from_db()
    assert decrypt(owner.callback_secret_previous) == before
    assert decrypt(owner.callback_secret) in dict(shown.context["secrets"]).values()
    assert told(again) == [f"Acme: {AGAIN} A secret is shown only once."]
    assert again.redirect_chain == [(page_url(owner), 302)]
    assert history(owner) == ["Rotated the callback secret. Reason: because"]


def test_a_form_that_rotates_sent_twice_at_once_rotates_once():
    owner, person = account(), root()
    before = decrypt(owner.callback_secret)
    page = person.ask(owner, "rotate-secret")

    answers = at_once(4, lambda: person.again().send(owner, "rotate-secret", page))

    owner.refresh_from_db()
    assert decrypt(owner.callback_secret_previous) == before
    assert said_again(answers) == [False, True, True, True]
    assert sum("Copy this now" in answer.content.decode() for answer in answers) == 1
    assert len(history(owner)) == 1


@pytest.mark.parametrize("times", [1, 4])
def test_a_form_that_issues_a_key_issues_one(times):
    owner, person = account(), root()
    page = person.ask(owner, "issue-key")

    def send():
        return person.again().send(owner, "issue-key", page, kind="live", name="ci", scopes=["tasks:read"])

    at_once(times, send)
    again = send()

    assert ApiKey.objects.filter(account=owner).count() == len(history(owner)) == 1
    assert told(again) == [f"Acme: {AGAIN} A secret is shown only once."]


@pytest.mark.parametrize("times", [1, 4])
def test_a_form_that_opens_an_account_opens_one(times):
    person = root()
    fields = {"key": str(uuid4()), "name": "Umbrella", "opening_credits": "50", "first_key": "ci"}

    at_once(times, lambda: person.again().client.post(OPEN, fields))
    again = person.client.post(OPEN, fields, follow=True)

    assert Account.objects.get().available == 50
    assert (ApiKey.objects.count(), Transfer.objects.count()) == (1, 1)
    assert told(again) == [f"Umbrella: {AGAIN} A secret is shown only once."]


def test_a_form_that_was_refused_may_be_sent_again():
    owner, person = account("0"), root()
    page = person.ask(owner, "adjust")

    person.send(owner, "adjust", page, amount="-4")
    Account.objects.update(credit_limit=5)
    person.send(owner, "adjust", page, amount="-4")

    assert available(owner) == -4


def test_a_key_that_is_taken_takes_back_what_its_transaction_did():
    owner = account()
    remember("rename:1")

    @transaction.atomic
    def rename():
        Account.objects.filter(pk=owner.pk).update(name="Umbrella")
        remember("rename:1")

    with pytest.raises(Repeated):
        rename()
    owner.refresh_from_db()
    assert owner.name == "Acme"


def test_an_account_is_opened_with_credits_and_a_first_key():
    person = root()

    answer = person.open(name="Umbrella", opening_credits="50", first_key="ci")

    opened = Account.objects.get()
    [secret] = set(SECRET.findall(answer.content.decode()))
    assert (opened.name, opened.available) == ("Umbrella", 50)
    assert ApiKey.objects.get(account=opened).digest == digest(secret)
    assert decrypt(opened.callback_secret) in answer.content.decode().replace("&#x2B;", "+")
    assert secret not in everything_kept(person)
    assert decrypt(opened.callback_secret) not in everything_kept(person)
    assert posted(opened) == [("grant", 50, "operator:root", "Opening credits")]
    assert history(opened) == ["Opened the account."]


@pytest.mark.django_db
def test_an_account_needs_a_name_only():
    person = root()

    assert person.open(name="").context["form"].errors
    assert person.open(name="Umbrella").redirect_chain == []

    assert Account.objects.get().available == 0


UNREADABLE = ["a\u202eb", "a\u0007b", "a\nb", "a\u2028b"]


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.django_db
def test_a_name_that_nobody_can_read_is_an_error_of_the_form(name):
    person = root()

    assert "name" in person.open(name=name).context["form"].errors
    assert "first_key" in person.open(name="Acme", first_key=name).context["form"].errors
    assert not Account.objects.exists()
    issuing = person.do(account(), "issue-key", name=name, scopes=["tasks:read"])
    assert "name" in issuing.context["form"].errors
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("limit", ["monthly_cap", "low_balance_threshold"])
@pytest.mark.django_db
def test_the_database_knows_no_negative_limit(limit):
    owner = account()

    with refused("23514", f"{limit}_is_never_negative"):
        Account.objects.filter(pk=owner.pk).update(**{limit: Decimal(-1)})


ACTS = ("grant", "adjust", "set-limits", "issue-key", "rotate-secret", "disable")
ALONE = ("set-limits", "issue-key", "rotate-secret")


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
@pytest.mark.django_db
def test_each_act_is_for_its_groups_only(group):
    owner, person = account(), member(group)
    issued, _ = key(owner)
    allowed = group == "Billing"
    page, offered = person.get(page_url(owner)).content.decode(), person.get(list_url(Account)).content.decode()

    for act in ACTS:
        assert person.ask(owner, act).status_code == (200 if allowed else 403), act
        assert (reverse(f"admin:billing_account_{act}") in page) == allowed, act
        assert (f'value="{act}"' in offered) == (allowed and act not in ALONE), act
        if not allowed:
            fields = {"reason": "x", "ids": str(owner.pk), "amount": "1"}
            assert person.client.post(act_url(owner, act), fields).status_code == 403
    assert person.ask(issued, "revoke").status_code == (200 if allowed else 403)
    assert person.get(OPEN).status_code == (200 if allowed else 403)
    if not allowed:
        assert person.client.post(OPEN, {"name": "x"}).status_code == 403
    assert Account.objects.get().name == "Acme"


@pytest.mark.django_db
def test_a_secret_is_for_one_account_at_a_time():
    one, other, person = account(), account(name="Umbrella"), root()

    assert person.ask(one, "issue-key", other).status_code == 404


@pytest.mark.django_db
def test_opening_an_account_gives_only_what_its_opener_may_give():
    person = member("Support")
    for name in ("add_account", "view_account"):
        person.user.user_permissions.add(Permission.objects.get(codename=name))

    person.open(name="Umbrella", opening_credits="50", first_key="ci")

    assert Account.objects.get().available == 0
    assert not ApiKey.objects.exists()
