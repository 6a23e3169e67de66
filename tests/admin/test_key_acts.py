"""What is done to keys: rolled with an overlap, capped, issued for tests; by whom, once, and what is shown once."""

import re
from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from billing.credentials import decrypt, digest
from billing.models import Account, ApiKey
from tests.admin.people import AGAIN, act_url, at_once, history, list_url, member, page_url, reported, root, told
from tests.builders import account, deployment, key

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = re.compile(r"cf_(?:live|test)_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}")
CALLBACK_SECRET = re.compile(r"whsec_[0-9A-Za-z+/]+=*")
ISSUE = {"kind": "test", "name": "rehearsals", "scopes": ["tasks:read", "tasks:write"]}


def asks(secret):
    """What the API answers to the secret."""
    return Client().get("/v1/tasks", headers={"Authorization": f"Bearer {secret}"}).status_code


def submits(secret, to):
    """The task that the API makes for the secret."""
    body, bearer = {"model": to.name, "input": {}}, {"Authorization": f"Bearer {secret}"}
    return Client().post("/v1/tasks", body, content_type="application/json", headers=bearer)


def kept(person):
    """All that outlives an answer: rows, sessions, the admin's history, and the pages of the rows."""
    rows = [*ApiKey.objects.values(), *Account.objects.values(), *LogEntry.objects.values()]
    pages = [person.get(page_url(row)).content.decode() for row in (*ApiKey.objects.all(), *Account.objects.all())]
    lists = [person.get(list_url(model)).content.decode() for model in (ApiKey, Account)]
    return repr(rows) + repr([session.get_decoded() for session in Session.objects.all()]) + "".join(pages + lists)


def test_a_rolled_secret_is_shown_once_and_the_old_one_stays_good_for_its_hours():
    rolled, old = key(account())
    person = root()

    answer = person.do(rolled, "roll", overlap_hours="3", reason="asked by mail")

    [new] = set(SECRET.findall(answer.content.decode()))
    after = ApiKey.objects.get()
    assert (after.pk, after.digest, after.previous_digest) == (rolled.pk, digest(new), digest(old))
    assert timedelta(hours=2.9) < after.previous_until - timezone.now() <= timedelta(hours=3)
    assert (asks(old), asks(new)) == (200, 200)
    assert (answer.redirect_chain, "no-store" in answer["Cache-Control"]) == ([], True)
    assert not SECRET.search(kept(person))
    assert history(rolled) == [
        f"Rolled the secret: {old[:16]}… is good for 3 h more, then {new[:16]}… only. Reason: asked by mail"
    ]


def test_a_secret_that_is_rolled_without_overlap_ends_at_once():
    rolled, old = key(account())

    answer = root().do(rolled, "roll", overlap_hours="0")

    [new] = set(SECRET.findall(answer.content.decode()))
    assert (asks(old), asks(new)) == (401, 200)


@pytest.mark.parametrize("times", [1, 4])
def test_a_form_that_rolls_rolls_once(times):
    rolled, old = key(account())
    person = root()
    page = person.ask(rolled, "roll")

    at_once(times, lambda: person.again().send(rolled, "roll", page, overlap_hours="1"))
    again = person.again().send(rolled, "roll", page, overlap_hours="1")

    assert ApiKey.objects.get().previous_digest == digest(old)
    assert told(again) == [f"{ApiKey.objects.get()}: {AGAIN} A secret is shown only once."]
    assert not SECRET.search(again.content.decode())
    assert len(history(rolled)) == 1


@pytest.mark.parametrize("hours", ["", "-1", "721", "1.5"])
def test_an_overlap_that_makes_no_sense_is_an_error_of_the_form(hours):
    rolled, old = key(account())

    answer = root().do(rolled, "roll", overlap_hours=hours)

    assert "overlap_hours" in answer.context["form"].errors
    assert (ApiKey.objects.get().digest, history(rolled)) == (digest(old), [])


@pytest.mark.parametrize("ended", ["revoked_at", "expires_at"])
def test_a_key_that_ended_is_not_rolled_and_the_page_says_so(ended):
    rolled, old = key(account())
    person = root()
    page = person.ask(rolled, "roll")
    ApiKey.objects.update(**{ended: timezone.now()})

    answer = person.send(rolled, "roll", page, overlap_hours="1")

    assert len(told(answer)) == 1
    assert (ApiKey.objects.get().digest, history(rolled)) == (digest(old), [])
    assert not SECRET.search(answer.content.decode())


def test_a_cap_holds_from_now_on_and_an_empty_one_lifts_it():
    capped, secret = key(account("10"))
    person, to = root(), deployment()

    set_to = person.do(capped, "set-cap", monthly_cap="1.5", reason="a test drive")
    within, beyond = submits(secret, to), submits(secret, to)
    lifted = person.do(capped, "set-cap", monthly_cap="", reason="paid")

    assert (within.status_code, beyond.status_code, submits(secret, to).status_code) == (202, 402, 202)
    assert told(set_to) == [f"{capped}: Set the spend cap to 1.5000 credits a month."]
    assert told(lifted) == [f"{capped}: Lifted the spend cap."]
    assert history(capped) == [
        "Set the spend cap to 1.5000 credits a month. Reason: a test drive",
        "Lifted the spend cap. Reason: paid",
    ]


def test_several_keys_are_capped_at_once_and_each_says_so():
    one, _ = key(account())
    other, _ = key(account(name="Umbrella"))

    answer = root().do(one, "set-cap", other, monthly_cap="7", reason="house rule")

    assert set(ApiKey.objects.values_list("monthly_cap", flat=True)) == {Decimal(7)}
    assert len(reported(answer)) == len(history(one)) + len(history(other)) == 2


@pytest.mark.parametrize("cap", ["-1", "much", "0.00001", "1e20"])
def test_a_cap_that_makes_no_sense_is_an_error_of_the_form(cap):
    capped, _ = key(account())

    answer = root().do(capped, "set-cap", monthly_cap=cap)

    assert "monthly_cap" in answer.context["form"].errors
    assert (ApiKey.objects.get().monthly_cap, history(capped)) == (None, [])


def test_a_test_key_belongs_to_the_twin_whose_callback_secret_is_shown_with_the_first():
    owner, person = account("10"), root()

    first = person.do(owner, "issue-key", **ISSUE, monthly_cap="5", reason="asked by mail")
    second = person.do(owner, "issue-key", **ISSUE, reason="another")

    twin = Account.objects.get(twin_of=owner)
    issued = ApiKey.objects.earliest("created_at")
    [secret] = set(SECRET.findall(first.content.decode()))
    [callback_secret] = set(CALLBACK_SECRET.findall(first.content.decode()))
    assert secret.startswith("cf_test_")
    assert decrypt(twin.callback_secret) == callback_secret
    assert len(set(SECRET.findall(second.content.decode()))) == 1
    assert not CALLBACK_SECRET.search(second.content.decode())
    assert (issued.account, issued.digest, issued.monthly_cap) == (twin, digest(secret), 5)
    assert not SECRET.search(kept(person))
    assert not CALLBACK_SECRET.search(kept(person))
    assert history(owner)[0] == f"Issued the API key {issued}. Reason: asked by mail"


def test_what_a_test_key_spends_is_its_twins():
    owner, to = account("10"), deployment()
    answer = root().do(owner, "issue-key", **ISSUE)
    [secret] = set(SECRET.findall(answer.content.decode()))

    made = submits(secret, to)

    assert (made.status_code, made.json()["test"]) == (202, True)
    assert Account.objects.get(pk=owner.pk).available == 10
    assert Account.objects.get(twin_of=owner).held == 1


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_keys_are_for_the_group_that_bills(group):
    issued, secret = key(account())
    person, allowed = member(group), group == "Billing"
    page, offered = person.get(page_url(issued)).content.decode(), person.get(list_url(ApiKey)).content.decode()

    for act, fields in (("roll", {"overlap_hours": "1"}), ("set-cap", {"monthly_cap": "1"})):
        assert person.ask(issued, act).status_code == (200 if allowed else 403), act
        assert (reverse(f"admin:billing_apikey_{act}") in page) == allowed, act
        assert (f'value="{act}"' in offered) == (allowed and act != "roll"), act
        if not allowed:
            sent = {"reason": "x", "ids": str(issued.pk)} | fields
            assert person.client.post(act_url(issued, act), sent).status_code == 403
    after = ApiKey.objects.get()
    assert (after.digest, after.monthly_cap) == (digest(secret), None)


def test_a_secret_is_rolled_for_one_key_at_a_time():
    one, _ = key(account())
    other, _ = key(account(name="Umbrella"))

    assert root().ask(one, "roll", other).status_code == 404
