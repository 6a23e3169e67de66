"""Pages that are read: what they may cost, where lists begin, and what addresses that no page wrote are answered."""

import html
import re
from uuid import uuid4

import pytest
from django.contrib import admin
from django.contrib.admin import ShowFacets
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.urls import reverse

from billing.admin.screens import _parameters
from billing.models import Account
from tasks import lifecycle
from tasks.admin import reading
from tasks.admin.bulk.words import filters_in
from tasks.admin.task_list.filters import PARAMETERS, matching, unreadable
from tasks.admin.task_list.screen import TaskRows
from tasks.admin.task_page import chain, page
from tasks.models import Deployment, Receiver, Task, WebhookEndpoint
from tests.admin.people import act_url, list_url, page_url, root, told
from tests.builders import account, deployment, submit

pytestmark = pytest.mark.django_db
LISTS = [model for model in admin.site._registry if model._meta.app_label in ("auth", "billing", "tasks")]
MANY = " ".join(["word"] * 30_000)


def ids(answer):
    return {task.pk for task in answer.context_data["cl"].result_list}


def narrowing(page):
    """What a browser sends along with a filter that is chosen."""
    form = re.search(r'<form id="filter-form".*?</form>', page.content.decode(), re.DOTALL)[0]
    hidden = re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]*)"[^>]*value="([^"]*)"', form)
    return {html.unescape(name): html.unescape(value) for name, value in hidden}


def test_no_list_counts_what_each_of_its_filters_would_show():
    assert {screen.show_facets for screen in admin.site._registry.values()} == {ShowFacets.NEVER}


@pytest.mark.django_db(transaction=True)
def test_a_page_that_reads_for_too_long_says_so_and_a_file_takes_its_time(monkeypatch):
    of, me = account(), root()
    monkeypatch.setattr(reading, "SECONDS", 0.05)
    monkeypatch.setattr(TaskRows, "get_results", lambda *_: connection.cursor().execute("SELECT pg_sleep(20)"))

    answer = me.get(list_url(Task))

    assert answer.status_code == 503
    assert "was told to stop" in answer.content.decode()
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
    assert me.get(page_url(of)).status_code == 200


def test_acts_are_given_the_time_they_need(monkeypatch):
    of, me = account(), root()
    monkeypatch.setattr(reading, "limited", None)

    answer = me.client.post(act_url(of, "disable"), {"reason": "because"})

    assert answer.status_code == 200


def test_a_filter_chosen_on_an_older_page_begins_with_the_newest():
    of, to, me = account("200"), deployment(), root()
    tasks = [submit(of, to) for _ in range(51)]
    lifecycle.cancel(tasks[-1].pk, by="test")
    older = me.client.get(list_url(Task) + me.get(list_url(Task)).context_data["cl"].older_url)

    found = me.get(list_url(Task), **(narrowing(older) | {"status": "canceled"}))

    assert ids(older) == {tasks[0].pk}
    assert ids(found) == {tasks[-1].pk}


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ({"status__exact": "canceled"}, "canceled"),
        ({"status__exact": "canceled", "status": "canceled"}, "canceled"),
        ({"status__exact": "canceled", "status": ""}, "canceled"),
        ({"status__exact": "canceled", "status": "queued"}, None),
    ],
)
def test_the_list_and_all_that_match_read_an_address_alike(asked, means):
    of, to = account("200"), deployment()
    tasks = {"queued": submit(of, to), "canceled": submit(of, to)}
    lifecycle.cancel(tasks["canceled"].pk, by="test")

    listed, chosen = root().get(list_url(Task), **asked), filters_in(asked)

    assert ids(listed) == set(matching(chosen).values_list("pk", flat=True)) == ({tasks[means].pk} if means else set())
    assert listed.context_data["cl"].unreadable == unreadable(chosen) == ([] if means else ["status"])


def test_a_deployment_keeps_the_name_that_its_tasks_have():
    to, me = deployment("first-name"), root()
    form = me.get(page_url(to)).context_data["adminform"].form
    sent = {field.html_name: field.value() for field in form if field.value() not in (None, False)}

    renamed = me.edit(to, sent | {"name": "second-name"})
    to.refresh_from_db()
    submit(account(), to)
    kept = me.edit(to, sent | {"name": "third-name"})

    assert (renamed.status_code, to.name) == (302, "second-name")
    assert "It has tasks, which keep the name" in kept.context_data["adminform"].form.errors["name"][0]
    assert Deployment.objects.get(pk=to.pk).name == "second-name"


@pytest.mark.parametrize(
    "path", ["tasks/deployment/{}/workers/", "tasks/task/{}/artifacts/%00/", "r/{type}/%00/", "r/{type}/nonsense/"]
)
def test_what_is_not_there_is_not_found(path):
    of_tasks = ContentType.objects.get_for_model(Task)

    answer = root().client.get(f"/admin/{path.format(uuid4(), type=of_tasks.pk)}")

    assert answer.status_code == 404


def asked_of(screen):
    """The names that a list's address may have."""
    offered = {each if isinstance(each, str) else each[0] for each in screen.list_filter if not isinstance(each, type)}
    own = PARAMETERS if screen.model is Task else _parameters(screen.list_filter)
    return sorted({*own, *offered, *getattr(screen, "linked", ()), "q", "p", "o"})


@pytest.mark.parametrize("value", ["9999-12-31T23:59:59-23:59", "9" * 40, "\x00'\\"])
def test_no_list_breaks_on_what_no_page_asks(value):
    me, answers = root(), {}
    for model in LISTS:
        for name in asked_of(admin.site._registry[model]):
            with transaction.atomic():
                answers[model, name] = me.get(list_url(model), **{name: value}).status_code
                transaction.set_rollback(True)

    assert len(answers) > 60
    assert {asked: status for asked, status in answers.items() if status not in (200, 302, 400, 404)} == {}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("paused_at", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"])
def test_a_moment_that_no_column_holds_is_not_found(paused_at):
    assert root().get(list_url(Receiver), paused_at=paused_at).status_code == 404


def test_a_choice_searched_for_a_nul_is_not_found():
    asked = {"app_label": "tasks", "model_name": "task", "field_name": "deployment", "term": "\x00"}

    assert root().get("/admin/autocomplete/", **asked).json()["results"] == []


def test_what_a_page_never_sent_of_what_it_showed_is_as_if_unsent():
    of, me = account("5"), root()
    fields = {"key": str(uuid4()), "reason": "because", "seen": "[" * 20_000}

    answer = me.client.post(act_url(of, "disable"), fields, follow=True)

    assert len(told(answer)) == 1
    assert not Account.objects.get(pk=of.pk).is_active


def test_the_history_of_a_task_is_the_same_in_any_spelling():
    task, me = submit(), root()
    me.do(task, "cancel")

    shown = me.get(reverse("admin:tasks_task_history", args=[str(task)]))

    assert "because" in shown.content.decode()


@pytest.mark.parametrize("model", [User, WebhookEndpoint, Deployment])
def test_a_search_of_a_book_is_for_nobody(model):
    me = root()
    request = me.get(list_url(model)).wsgi_request
    screen = admin.site._registry[model]

    found, _ = screen.get_search_results(request, model.objects.all(), MANY)

    assert found.query.is_empty()


def test_a_chain_of_many_reruns_says_that_it_is_cut_and_calls_only_the_first_so(monkeypatch):
    for module in (chain, page):
        monkeypatch.setattr(module, "MOST", 2)
    of, me = account("200"), root()
    tasks = [submit(of, deployment())]
    for _ in range(4):
        lifecycle.cancel(tasks[-1].pk, by="test")
        again = lifecycle.rerun(tasks[-1].pk, account_id=of.pk, api_key_id=None, actor="operator:root")
        tasks.append(Task.objects.get(pk=again.task_id))

    last, first, whole = (chain_on(me.get(page_url(task))) for task in (tasks[4], tasks[0], tasks[2]))

    assert f"The first of them all is {tasks[0]}" in last
    assert "at most 2 are shown" in first
    assert [", the first" in shown for shown in (last, first, whole)] == [False, True, True]


def chain_on(page):
    words = re.sub(r"<[^>]+>", "", page.content.decode().partition('id="task-chain"')[2].partition("</section>")[0])
    return " ".join(words.split())
