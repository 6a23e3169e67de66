"""The list of tasks: what it shows of each, and what a page of it asks of the database."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now
from psycopg.types.json import Jsonb

from tasks import lifecycle
from tasks.admin.task_list import pages
from tasks.identifiers import public_id
from tasks.models import Task
from tasks.statuses import Status
from tests.admin.people import Person, list_url, root
from tests.admin.world import world
from tests.builders import account, claim, deployment, submit, task_that_is

pytestmark = pytest.mark.django_db
FILTERS = [
    {}, {"status": "succeeded"}, {"status": "failed"}, {"status": "paused"}, {"need": "stuck"}, {"need": "owed"},
    {"need": "failed_callback"}, {"need": "refunded"}, {"need": "waiting"}, {"code": "timeout"}, {"model": "nobody"},
    {"capability": "test.work", "status": "succeeded"}, {"created_from": "2020-01-01", "created_to": "2020-02-01"},
    {"ended_from": "2020-01-01", "ended_to": "2020-02-01"}, {"q": "task_01"}, {"q": "a=b"}, {"q": "acme"},
    {"q": "order-17", "status": "failed", "need": "owed"},
]  # fmt: skip


def listed(**params):
    response = root_client().get(list_url(Task), params)
    assert response.status_code == 200
    return response


def root_client():
    user = User.objects.filter(username="root").first()
    return (Person(user) if user else root()).client


def ids(response):
    return [task.pk for task in response.context["cl"].result_list]


def test_a_row_tells_its_status_model_account_money_and_callback():
    to = deployment("reader")
    task = submit(account(name="Umbrella"), to, callback_url="https://example.com/hook")
    lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])
    lifecycle.refund(task.pk, Decimal("0.25"), key="k", reason="because", by="test")

    page = listed().content.decode()

    for told in (public_id(task.pk), "succeeded", "reader", "Umbrella", "0.7500", "0.2500 refunded", "owed"):
        assert told in page, told


def test_what_is_past_its_deadline_says_so():
    task = submit()
    Task.objects.filter(pk=task.pk).update(deadline=now() - timedelta(minutes=1))

    assert "past its deadline" in listed().content.decode()


def test_a_page_takes_at_most_fifteen_statements_and_counts_nothing():
    world()
    client = root_client()

    for params in FILTERS:
        with CaptureQueriesContext(connection) as queries:
            response = client.get(list_url(Task), params)

        assert response.status_code == 200
        assert len(queries) <= 15, "\n".join(query["sql"][:150] for query in queries)
        assert not [query["sql"] for query in queries if "COUNT(" in query["sql"]], params


def test_pages_follow_one_another_below_an_id(monkeypatch):
    to = deployment()
    made = [submit(to=to).pk for _ in range(5)]
    monkeypatch.setattr("tasks.admin.task.TaskScreen.list_per_page", 2)

    seen, params = [], {}
    while True:
        shown = listed(**params)
        seen.append(ids(shown))
        if not (older := shown.context["cl"].older_url):
            break
        params = dict(pair.split("=") for pair in older.removeprefix("?").split("&"))

    assert seen == [made[4:2:-1], made[2:0:-1], made[:1]]


def test_a_page_is_found_in_windows_and_says_how_far_it_looked(monkeypatch):
    monkeypatch.setattr(pages, "WINDOWS", (2, 2))
    to, other = deployment(), deployment(queue="other")
    old = submit(account(name="Old"), other)
    lifecycle.cancel(old.pk, by="test")
    for _ in range(6):
        submit(to=to)

    shown = listed(capability="test.work", queue="other")

    assert ids(shown) == []
    assert "Looked back as far as" in shown.content.decode()
    params = dict(pair.split("=") for pair in shown.context["cl"].older_url.removeprefix("?").split("&"))
    assert ids(listed(before=params["before"], status="canceled")) == [old.pk]


def test_rare_metadata_is_found_however_old(monkeypatch):
    monkeypatch.setattr(pages, "WINDOWS", (1, 1))
    rare = submit(metadata={"order": "A-1"})
    for _ in range(4):
        submit(metadata={"order": "A-2"})

    assert ids(listed(q="order=A-1")) == [rare.pk]


def test_what_few_tasks_have_is_found_however_many_are_newer(monkeypatch):
    monkeypatch.setattr(pages, "WINDOWS", (1, 1))
    to = deployment(queue="old")
    old = submit(to=to, client_reference="order-17")
    lifecycle.cancel(old.pk, by="test")
    for _ in range(4):
        submit()

    for params in ({"q": "order-17"}, {"ended_from": "2020-01-01"}, {"model": to.name}, {"status": "canceled"}):
        assert ids(listed(**params)) == [old.pk], params


def test_links_of_other_pages_narrow_the_list():
    one, two = (task_that_is(status, to=deployment(queue=status)) for status in (Status.FAILED, Status.QUEUED))

    assert ids(listed(status__exact="failed")) == [one.pk]
    assert ids(listed(account__exact=str(two.account_id))) == [two.pk]
    assert ids(listed(account__id__exact=str(two.account_id), status="failed")) == []


ABSURD = [
    {"p": "99999999999999999999"}, {"before": "nonsense"}, {"before": "9" * 300}, {"created_from": "yesterday"},
    {"account": "1"}, {"status": "<script>alert"}, {"created_to": "9999-12-31T23:59:59Z"}, {"q": "%" * 500},
    {"q": "task_" + "z" * 26}, {"code": "💥"}, {"ended_from": "2026-13-45"}, {"o": "1.2.3"}, {"all": ""},
]  # fmt: skip


def test_an_absurd_address_is_answered():
    submit()

    for params in ABSURD:
        page = listed(**params).content.decode()

        assert "<script>alert" not in page
        mistaken = set(params) & {"created_from", "account", "status", "code", "ended_from", "created_to"}
        assert ("cannot be read" in page) == bool(mistaken), params


def test_an_account_is_asked_for_by_name_and_never_listed():
    account(name="Somebody Else")
    submit(account(name="Acme"))

    page = listed().content.decode()

    assert "Somebody Else" not in page


def test_the_form_shows_what_the_list_is_narrowed_to_and_asks_once(monkeypatch):
    monkeypatch.setattr(pages, "WINDOWS", (2, 2))
    owner, to, other = account(name="Of the form"), deployment(), deployment(queue="other")
    for model in (other, *[to] * 6, other):
        submit(owner, model)
    person = root()

    with CaptureQueriesContext(connection) as queries:
        shown = person.get(list_url(Task), model=other.name, account=str(owner.pk), created_from="2020-01-01T00:00Z")

    page = " ".join(shown.content.decode().split())
    assert len(queries) <= 15
    assert f'<option value="{other.name}" selected>' in page
    assert f'<option value="{owner.pk}" selected>' in page
    assert 'value="2020-01-01T00:00"' in page


@pytest.mark.parametrize("pairs", [[{"order": "7"}], [{"order ": " 7"}, {"order": "7"}]])
def test_rare_metadata_is_found_by_its_index_however_it_may_be_meant(pairs):
    statement = pages.with_metadata(len(pairs)).replace("AND id < %s", "")  # in a table of one row, all ids are cheaper

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {statement}", [*map(Jsonb, pairs), pages.RARE])
        plan = "\n".join(line for (line,) in cursor.fetchall())

    assert plan.count("Bitmap Index Scan on task_metadata") == len(pairs)
