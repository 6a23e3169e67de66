"""Deployments: how each stands, what it may be set to, and trying one with a real task of the house's own account."""

import json
from html import unescape
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.urls import reverse
from rest_framework import serializers

from billing.exceptions import Refusal, SpendCapReached
from billing.house import house_account
from billing.models import Account, Transfer
from tasks import capabilities, lifecycle, queues, trials
from tasks.models import Deployment, Task
from tasks.sql import load
from tasks.standing import standing
from tasks.statuses import ErrorCode
from tests.admin.people import Person, at_once, history, list_url, member, page_url, root, told
from tests.builders import account, assert_sound, claim, deployment, submit

pytestmark = pytest.mark.django_db
FLAT_AND_TOKENS = (("task", "1"), ("output_tokens", "2"))


@pytest.fixture(autouse=True)
def broker(monkeypatch):
    """Nobody is woken, and one queue is served."""
    monkeypatch.setattr(queues, "wake", lambda queue: None)
    monkeypatch.setattr(queues, "served", lambda: {"default"})


def tried(person, to, *, send="run", **fields):
    """What the page says to an input: quoted first, then run with what it has agreed to."""
    url = reverse("admin:tasks_deployment_try", args=[to.pk])
    page = person.client.get(url)
    given = {"input": json.dumps(fields.pop("input", {})), "key": str(page.context["form"]["key"].value()), **fields}
    quoted = person.client.post(url, {**given, "quote": "1"})
    if send == "quote" or not quoted.context.get("ready"):
        return quoted
    agreed = quoted.context["form"]["agreed"].value()
    return person.client.post(url, {**given, "agreed": agreed, send: "1"}, follow=True)


def test_a_trial_is_a_real_task_of_the_house():
    to, person = deployment(prices=FLAT_AND_TOKENS), root()

    answer = tried(person, to, input={"usage": {"output_tokens": 3}}, reason="is it up?")

    task, house = Task.objects.get(), house_account()
    assert answer.redirect_chain == [(reverse("admin:tasks_task_change", args=[task.pk]), 302)]
    assert (task.account, task.deployment, task.quoted) == (house, to, 7)
    given = Transfer.objects.filter(account=house).order_by("id").values_list("kind", "amount", "reason", "actor")
    assert given[0] == ("grant", 7, "is it up?", "operator:root")
    lifecycle.succeed(claim(task), output=None, usage={"output_tokens": 3}, warnings=[])
    house.refresh_from_db()
    assert (house.charged, house.available) == (7, 0)
    assert_sound(house)
    assert history(to)[0].endswith("Reason: is it up?")


def test_the_quote_is_shown_before_anything_is_made():
    to, person = deployment(prices=FLAT_AND_TOKENS), root()

    page = tried(person, to, send="quote", input={"usage": {"output_tokens": 3}})

    assert "It costs 7.0000 credits at most" in page.content.decode()
    assert [row[3] for row in page.context["lines"].rows] == ["1.0000", "6.0000"]
    assert not Task.objects.exists()
    assert not Transfer.objects.exists()


@pytest.mark.parametrize("agreed", ["", "x" * 64, "\x00", "0" * 64])
def test_nothing_runs_that_was_not_quoted(agreed):
    to, person = deployment(), root()

    page = tried(person, to, agreed=agreed, send="quote")
    url = reverse("admin:tasks_deployment_try", args=[to.pk])
    answer = person.client.post(
        url, {"input": "{}", "key": page.context["form"]["key"].value(), "agreed": agreed, "run": "1"}
    )

    assert answer.status_code == 200
    assert not Task.objects.exists()


def test_every_refused_value_of_an_input_is_shown_at_its_place():
    to, person = deployment(capability="image.transform", prices=()), root()

    page = tried(person, to, input={"image": "###", "operations": [{"op": "resize", "width": "wide"}], "quality": 500})

    places = {wrong["pointer"]: wrong["found"] for wrong in page.context["wrong"]}
    assert places["/quality"] == "500"
    assert places["/image"] == '"###"'
    assert len(places) >= 3
    assert any(place.startswith("/operations/0") for place in places)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"a": NaN}',
        '{"a": "\\u0000"}',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        "\x00",
        '{"seconds": "x"}',
    ],
)
def test_an_input_that_makes_no_sense_is_told_and_costs_nothing(text):
    to, person = deployment(), root()
    url = reverse("admin:tasks_deployment_try", args=[to.pk])

    page = person.client.post(
        url, {"input": text, "key": "not a uuid" if not text else house_account().pk, "quote": "1"}
    )

    assert page.status_code == 200
    assert page.context["form"].errors or page.context["wrong"]
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_one_form_makes_one_task_and_a_left_over_is_used_before_more_is_granted():
    to, person = deployment(), root()
    url = reverse("admin:tasks_deployment_try", args=[to.pk])
    page = person.client.post(url, {"input": "{}", "key": str(house_account().pk), "quote": "1"})
    given = {
        "input": "{}",
        "key": page.context["form"]["key"].value(),
        "agreed": page.context["form"]["agreed"].value(),
    }

    at_once(3, lambda: person.again().client.post(url, {**given, "run": "1"}))
    lifecycle.cancel(Task.objects.get().pk, by="test")
    tried(person, to)

    assert Task.objects.count() == 2
    assert Transfer.objects.filter(kind="grant").count() == 1
    assert_sound(house_account())


@pytest.mark.django_db(transaction=True)
def test_the_house_is_one_account_however_many_need_it_at_once():
    found = at_once(6, lambda: house_account().pk)

    assert len(set(found)) == 1
    assert Account.objects.filter(is_internal=True).count() == 1


@pytest.mark.django_db(transaction=True)
def test_trials_at_once_each_get_their_credits():
    to = deployment(prices=(("task", "3"),))

    made = at_once(4, lambda: trials.try_out(to.name, {}, key=uuid4(), by="operator:x", reason="load"))

    assert len({each.task_id for each in made}) == 4
    assert house_account().held == 12
    assert_sound(house_account())


def test_a_drained_deployment_can_be_tried_and_waits_and_an_inactive_one_cannot():
    to, person = deployment(), root()
    person.do(to, "drain", reason="upgrade")

    page = person.get(reverse("admin:tasks_deployment_try", args=[to.pk]))
    tried(person, to)
    Deployment.objects.filter(pk=to.pk).update(is_active=False)
    refused = tried(person, to)

    assert "It is drained: tasks are taken and wait" in page.content.decode()
    assert Task.objects.get().status == "queued"
    assert lifecycle.claim(to.queue, worker="test") is None
    assert refused.context["hindrance"].startswith("It is not active")


@pytest.mark.parametrize(("group", "status"), [("Operator", 200), ("Billing", 403), ("Support", 403)])
def test_who_may_try(group, status):
    to, person = deployment(), member(group)

    assert person.get(reverse("admin:tasks_deployment_try", args=[to.pk])).status_code == status
    assert ("Try it" in person.get(page_url(to)).content.decode()) == (status == 200)


def test_to_try_takes_its_own_permission():
    to, user = deployment(), User.objects.create_user("watcher", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=["view_deployment", "drain_deployment"]))

    assert Person(user).get(reverse("admin:tasks_deployment_try", args=[to.pk])).status_code == 403


def test_the_list_tells_how_each_stands():
    busy, idle = deployment(), deployment()
    owner = account("100")
    for _ in range(3):
        submit(owner, busy)
    lifecycle.fail(lifecycle.claim("default", worker="test"), code=ErrorCode.CAPABILITY_ERROR, message="No.")
    lifecycle.claim("default", worker="test")

    stands = standing([busy.pk, idle.pk])
    page = root().get(list_url(Deployment)).content.decode()

    assert (stands[busy.pk].waiting, stands[busy.pk].running, stands[busy.pk].failed) == (1, 1, 1)
    assert stands[busy.pk].median is not None
    assert (stands[idle.pk].waiting, stands[idle.pk].median) == (0, None)
    assert "1 of 1" in page
    assert f"model={busy.name}&amp;status=failed" in page


def test_what_stands_is_read_from_indexes():
    to = deployment()
    submit(account(), to)
    params = {"ids": [to.pk], "most": 10, "look": 10}

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        cursor.execute(f"EXPLAIN {load('standing')}", params)
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "Seq Scan on tasks_task" not in plan
    assert "using task_ended" in plan


def test_draining_tells_what_it_does_to_whom():
    to = deployment()
    task = submit(account(), to)

    page = root().ask(to, "drain")

    assert page.context["facts"].rows[0][2:4] == ["1", "0"]
    assert page.context["facts"].rows[0][4] != "-"
    assert task.expires_at is not None


def fields_of(to, **changed):
    names = ("name", "capability", "resolved_model", "queue", "timeout", "max_retries", "ttl", "max_lifetime")
    return {name: getattr(to, name) for name in names} | {
        "rate_card": str(to.rate_card_id), "settings": "{}", "max_pending": "", "is_active": "on",
    } | changed  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "pointer"),
    [
        ({"api_key": "sk-live-abc"}, "/api_key"),
        ({"provider": {"token": "abc"}}, "/provider/token"),
        ({"headers": ["Bearer abc"]}, "/headers/0"),
        ({"base_url": "https://me:pass@example.com"}, "/base_url"),
        ({"note": "whsec_abc"}, "/note"),
        ({"password": ""}, "/password"),
        ({"x-api-key": "AbC123"}, "/x-api-key"),
        ({"accessToken": "abc123"}, "/accessToken"),
        ({"APIKey": "abc123"}, "/APIKey"),
        ({"apikeys": {"x": "abc"}}, "/apikeys/x"),
        ({"token": {"value": "abc123"}}, "/token/value"),
        ({"credentials": [{"id": 7}]}, "/credentials/0/id"),
        ({"api_key": 12345}, "/api_key"),
        ({"headers": {"X-Key": "0123456789abcdef"}}, "/headers/X-Key"),
        ({"note": "Token abcdef0123456789"}, "/note"),
        ({"note": "basic YWJjOmRlZg=="}, "/note"),
    ],
)
def test_a_secret_that_is_written_out_is_refused_at_its_place(settings, pointer):
    to, person = deployment(), root()

    answer = person.edit(to, fields_of(to, settings=json.dumps(settings)))

    [no] = answer.context["adminform"].form.errors["settings"]
    assert no.startswith(f"{pointer}: ")


def test_a_secret_is_given_by_the_name_of_a_variable_which_may_be_missing_here(monkeypatch):
    monkeypatch.delenv("UPSTREAM_KEY", raising=False)
    to, person = deployment(), root()
    settings = {"api_key": "UPSTREAM_KEY", "max_tokens": 5, "tokenizer": "cl100k", "token_url": "https://x/",
                "maxTokens": 7, "token_limit": 9, "use_api_key": True, "cookie": None, "author": "x"}  # fmt: skip

    answer = person.edit(to, fields_of(to, settings=json.dumps(settings)), follow=True)

    assert Deployment.objects.get(pk=to.pk).settings == settings
    assert [said for said in told(answer) if "UPSTREAM_KEY is not set here" in said]


class Knobs(serializers.Serializer):
    model = serializers.CharField()
    temperature = serializers.FloatField(max_value=2)


def test_settings_follow_what_their_capability_says(monkeypatch):
    monkeypatch.setattr(type(capabilities.REGISTRY["test.work"]), "settings", Knobs)
    to, person = deployment(), root()

    wrong = person.edit(to, fields_of(to, settings='{"temperature": 3}'))
    right = person.edit(to, fields_of(to, settings='{"temperature": 1, "model": "m"}'))

    said = wrong.context["adminform"].form.errors["settings"]
    assert {no.split(":")[0] for no in said} == {"/model", "/temperature"}
    assert right.status_code == 302


def test_each_no_says_what_to_do_instead():
    first = deployment(is_default=True)
    to, person = deployment(), root()

    answer = person.edit(to, fields_of(to, is_default="on", timeout="100", max_lifetime="50"))

    errors = answer.context["adminform"].form.errors
    assert errors["is_default"] == [
        f"{first} is the default of test.work. Take that from it first: a capability has one."
    ]
    assert "lower timeout" in errors["max_lifetime"][0]


def test_a_queue_without_workers_and_a_meter_without_a_price_are_warned_of():
    to, person = deployment(prices=(("task", "1"),)), root()

    answer = person.edit(to, fields_of(to, queue="gpu"), follow=True)
    beside = person.get(reverse("admin:tasks_deployment_workers", args=[to.pk])).content.decode()

    assert [said for said in told(answer) if "No worker that answers takes tasks of the queue “gpu”" in said]
    assert [said for said in told(answer) if "Nothing is charged for" in said and "output_tokens" in said]
    assert "“gpu”" in beside


def test_links_of_a_page_lead_to_the_tasks_behind_the_numbers():
    to = deployment()

    page = root().get(page_url(to)).context["now"]

    queries = [parse_qs(urlsplit(unescape(value.split('"')[1])).query) for _, value in page[1:3]]
    assert queries == [{"model": [to.name], "status": [status]} for status in ("queued", "running")]


def of_page(person, to):
    """What the page of this deployment would send as it is."""
    form = person.get(page_url(to)).context["adminform"].form
    sent = {each.html_name: each.value() for each in form if each.value() not in (None, False)}
    return {"shown": person.get(page_url(to)).context["shown"]} | sent


def test_a_page_that_is_old_takes_nothing_back():
    to, ann, ben = deployment(), root(), member("Operator")
    of_ann, of_ben = of_page(ann, to), of_page(ben, to)
    of_ann.pop("is_active")

    ann.client.post(page_url(to), of_ann)
    answer = ben.client.post(page_url(to), of_ben | {"queue": "gpu"})

    to.refresh_from_db()
    assert (to.is_active, to.queue) == (False, "default")
    [no] = answer.context["adminform"].form.non_field_errors()
    assert "Is active is no" in no
    assert "Queue is default" in no
    assert "Settings" not in no


def test_a_page_that_is_old_is_sent_again_by_who_has_seen_what_is():
    to, person = deployment(), root()
    old = of_page(person, to)
    Deployment.objects.filter(pk=to.pk).update(timeout=7)

    refused = person.client.post(page_url(to), old | {"queue": "gpu"})
    again = person.client.post(page_url(to), old | {"queue": "gpu", "shown": refused.context["shown"]})

    assert again.status_code == 302
    assert history(to) == ["Changed Queue: default → gpu; Timeout: 7 → 600."]


@pytest.mark.parametrize("shown", ["", "\x00", "x" * 5000])
def test_a_form_that_says_nothing_of_what_was_shown_edits_nothing(shown):
    to, person = deployment(), root()

    answer = person.client.post(page_url(to), fields_of(to, queue="gpu", shown=shown))

    assert answer.status_code == 200
    assert Deployment.objects.get(pk=to.pk).queue == "default"


def test_another_rate_card_is_for_those_who_may_write_prices():
    to, free = deployment(prices=(("task", "5"),)), deployment(prices=(("task", "0"),)).rate_card
    person = member("Operator")

    person.edit(to, fields_of(to, queue="gpu", rate_card=str(free.pk)))
    kept = Deployment.objects.get(pk=to.pk)
    root().edit(to, fields_of(kept, rate_card=str(free.pk)))

    assert (kept.queue, kept.rate_card) == ("gpu", to.rate_card)
    assert Deployment.objects.get(pk=to.pk).rate_card == free
    assert history(to)[1] == f"Changed Rate card: {to.rate_card} → {free}."


@pytest.mark.django_db(transaction=True)
def test_of_two_that_become_the_default_at_once_one_does():
    person, rivals = root(), [deployment(), deployment()]
    forms = [(to, of_page(person, to) | {"is_default": "on"}) for to in rivals]

    def make():
        to, fields = forms.pop()
        return person.again().client.post(page_url(to), fields).status_code

    assert sorted(at_once(2, make)) == [200, 302]
    assert Deployment.objects.filter(is_default=True).count() == 1


def test_a_trial_that_the_house_may_not_have_leaves_no_credits():
    to, house = deployment(prices=(("task", "7"),)), house_account()
    Account.objects.filter(pk=house.pk).update(monthly_cap=1)

    with pytest.raises(SpendCapReached):
        trials.try_out(to.name, {}, key=uuid4(), by="operator:x", reason="look")

    assert not Transfer.objects.filter(account=house).exists()
    assert not Task.objects.exists()


def test_a_house_that_is_disabled_tries_nothing():
    to, house, person = deployment(), house_account(), root()
    Account.objects.filter(pk=house.pk).update(is_active=False)

    page = person.get(reverse("admin:tasks_deployment_try", args=[to.pk]))

    assert "disabled" in page.context["hindrance"]
    with pytest.raises(Refusal, match="disabled"):
        trials.try_out(to.name, {}, key=uuid4(), by="operator:x", reason="look")
    assert not Task.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_is_sent_to_a_page_that_only_shows_is_no_error_of_ours():
    answer = root().client.post(reverse("admin:tasks_deployment_history", args=[deployment().pk]), {"shown": "x"})

    assert answer.status_code == 200
