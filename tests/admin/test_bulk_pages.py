"""All that match, as an operator does it: choose, look, start, watch, stop, read."""

import csv
import io
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from tasks import bulk, lifecycle
from tasks.admin.bulk import screen
from tasks.admin.bulk.forms import TOLD
from tasks.admin.bulk.screen import TITLES
from tasks.bulk_acts import ACTS
from tasks.models import BulkAction, Task
from tests.admin.people import GROUPS, history, list_url, member, page_url, root, told
from tests.admin.test_task_acts import charged, refunds
from tests.builders import account, assert_sound, submit

pytestmark = pytest.mark.django_db(transaction=True)
DATA = {"extend_deadline": {"minutes": 5}, "change_priority": {"priority": 9}}
BEGIN = "admin:tasks_bulkaction_begin"


def freeze(person, act, data=None, **filters) -> BulkAction:
    """Choose the act for all that match, and freeze them."""
    query = "&".join(f"{name}={value}" for name, value in {**filters, "act": act}.items())
    answer = person.client.post(f"{reverse(BEGIN)}?{query}", {"everything": "on"} | (data or {}), follow=True)
    return answer.context["original"]


def post(person, action, page, **data):
    return person.client.post(reverse(f"admin:tasks_bulkaction_{page}", args=[action.pk]), data, follow=True)


def start(person, action, **changed):
    shown = {"seen": action.digest, "reason": "outage", "number": action.suited}
    return post(person, action, "start", **shown | changed)


def test_all_that_match_are_refunded_and_each_says_who_and_why():
    owner, other, person = account("100"), account("100", name="Umbrella"), member("Billing")
    one, two, spared = charged(owner), charged(owner), charged(other)

    listed = person.get(list_url(Task), account=owner.pk).content.decode()
    action = freeze(person, "refund", {"percent": "50"}, account=owner.pk)
    page = person.get(page_url(action))
    started = start(person, action)
    bulk.act_on_many()
    done = person.get(page_url(action)).content.decode()

    assert f"{reverse(BEGIN)}?account={owner.pk}" in listed
    assert [row[1:] for row in page.context["would"].rows] == [["2", "of 1 account, 7.0000 credits refunded"]]
    assert (started.context["original"].status, action.words) == ("running", "account Acme")
    assert refunds(one) == refunds(two) == [Decimal("3.5")]
    assert refunds(spared) == []
    assert history(one) == ["Refunded 3.5000. Reason: outage"]
    assert history(action) == ["Started for 2 tasks. Reason: outage"]
    assert "2 done, 0 refused, 0 left, of 2" in done
    assert_sound(owner)


def test_a_start_is_refused_without_a_reason_its_number_or_what_was_seen():
    task, person = charged(), root()
    action = freeze(person, "refund")

    unsaid = start(person, action, reason=" ")
    wrong = start(person, action, number="2")
    other = start(person, action, seen="x")
    hostile = start(person, action, number="9" * 40, seen="\x00")

    assert "reason" in unsaid.context["form"].errors
    assert told(wrong) == ["Type 1, the number of tasks that this is about to change."]
    assert told(other) == ["It changed since you looked: something else would be done by now. Look at it again."]
    assert hostile.context["form"].errors
    assert (BulkAction.objects.get().status, refunds(task)) == ("ready", [])


def test_an_action_is_stopped_read_and_tried_again():
    owner, person = account("100"), root()
    tasks = [submit(owner) for _ in range(3)]
    action = freeze(person, "cancel", status="queued")
    would = person.get(page_url(action)).context["would"]
    lifecycle.cancel(tasks[0].pk, by="test")
    start(person, action)
    bulk.act_on_many()

    refused = person.get(page_url(action), outcome="refused")
    over = post(person, action, "abort")
    again = post(person, action, "again").context["original"]

    assert [row["told"] for row in refused.context["rows"]] == ["It has ended."]
    assert would.rows[0][2] == "of 1 account, up to 3.0000 credits released"
    assert told(over) == ["It was over already."]
    assert (again.retry_of, again.total, again.suited, again.status) == (action, 1, 0, "ready")
    assert told(post(person, again, "again")) == ["It has not been over yet, so there is nothing to try again."]
    assert "There is no task that it suits." in person.get(page_url(again)).content.decode()


def test_an_abort_and_a_discard_say_who():
    person = root()
    submit()
    running, ready = freeze(person, "pause"), freeze(person, "pause")
    start(person, running)

    for action in (running, ready):
        post(person, action, "abort")
        action.refresh_from_db()
        assert (action.status, action.ended_by, history(action)[-1]) == ("aborted", "operator:root", "Aborted.")
    bulk.act_on_many()

    assert Task.objects.get().paused_at is None


def test_a_page_of_a_running_action_asks_for_its_progress_until_it_is_over():
    person = root()
    submit()
    action = freeze(person, "pause")
    start(person, action)
    part = reverse("admin:tasks_bulkaction_progress", args=[action.pk])

    running = person.get(part)
    bulk.act_on_many()
    over = person.get(part)

    assert (part in running.content.decode(), "HX-Refresh" in running.headers) == (True, False)
    assert (part in over.content.decode(), over.headers["HX-Refresh"]) == (False, "true")


def test_the_rows_are_a_spreadsheet_too():
    owner, person = account("100"), root()
    charged(owner)
    submit(owner)
    action = freeze(person, "cancel")
    start(person, action)
    bulk.act_on_many()

    answer = person.get(reverse("admin:tasks_bulkaction_csv", args=[action.pk]))

    rows = list(csv.reader(io.StringIO(answer.getvalue().decode("utf-8-sig"))))
    assert [row[:1] + row[2:5] for row in rows[1:]] == [
        ["1", "refused", "It has ended.", ""],
        ["2", "done", "Canceled.", "1.0000"],
    ]


@pytest.mark.django_db
def test_each_act_on_many_is_for_those_who_may_do_it_to_one():
    boss = User.objects.create_superuser("boss")
    every = {"operator": boss, "filters": {}, "words": "all tasks"}
    actions = {act: bulk.freeze(Task.objects.all(), act=act, data=DATA.get(act, {}), **every) for act in ACTS}

    for group in GROUPS:
        person = member(group)
        allowed = {act for act in ACTS if person.user.has_perm(ACTS[act].permission)}
        offered = person.get(reverse(BEGIN))
        assert {act.name for act, _ in offered.context["acts"]} == allowed if allowed else offered.status_code == 403
        assert (reverse(BEGIN) in person.get(list_url(Task)).content.decode()) == bool(allowed)
        assert person.get(page_url(actions["pause"])).context["allowed"] == ("pause" in allowed)
        for act, action in actions.items():
            assert (post(person, action, "look").status_code == 200) == (act in allowed), (group, act)
        for page in ("start", "abort", "again"):
            assert (post(person, actions["pause"], page).status_code == 200) == ("pause" in allowed), (group, page)


def test_every_act_is_offered_for_many_under_the_same_permission():
    assert {name: act.permission for name, act in TITLES.items()} == {n: act.permission for n, act in ACTS.items()}
    assert set(TOLD) <= set(ACTS)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("status=broken", "status has a value that means nothing."),
        ("status=%00", "status has a value that means nothing."),
        ("account=", "account is given without a value."),
        ("q=+", "q is given without a value."),
        ("account__id__exact=00000000-0000-0000-0000-000000000000&account=", "account is given without a value."),
        ("status=queued&status__exact=running", "status is given twice."),
    ],
)
def test_a_filter_that_is_blank_or_means_nothing_begins_nothing_and_says_so(address, fault):
    submit()
    person, page = root(), f"{reverse(BEGIN)}?{address}&act=pause"

    shown = person.get(page)
    person.client.post(page, {"everything": "on"})

    assert shown.context["faults"] == [fault]
    assert fault in shown.content.decode()
    assert BulkAction.objects.count() == 0


@pytest.mark.django_db
def test_all_tasks_are_meant_only_by_whoever_says_so():
    person, listed = root(), list_url(Task)
    submit()

    unsaid = person.client.post(f"{reverse(BEGIN)}?act=pause", {})
    said = freeze(person, "pause")
    button = person.get(f"{listed}?q=&status=queued").content.decode()

    assert "I mean all tasks, of every account." in unsaid.content.decode()
    assert unsaid.context["everything"].errors
    assert (said.total, BulkAction.objects.count()) == (1, 1)
    assert f"{reverse(BEGIN)}?status=queued" in button


@pytest.mark.django_db
def test_a_list_by_another_name_is_the_same_list_and_one_of_no_name_is_refused():
    owner, person = account("100"), root()
    charged(owner)
    queued = submit(owner)

    action = freeze(person, "pause", status__exact="queued", before="x", p="2")
    refused = person.client.post(f"{reverse(BEGIN)}?act=pause&statuses=queued")

    assert list(action.rows.values_list("task_id", flat=True)) == [queued.pk]
    assert refused.context["faults"] == ["statuses is no filter that is known here."]
    assert BulkAction.objects.count() == 1


@pytest.mark.django_db
def test_hostile_requests_are_no_error_of_ours():
    person = root()
    action = freeze(person, "pause")

    for query in ({"outcome": "\x00", "after": "9" * 30}, {"outcome": "done", "after": "-1"}, {"after": "²"}):
        assert person.get(page_url(action), **query).status_code == 200
    for act, data in (
        ("refund", {"percent": "NaN"}),
        ("refund", {"percent": "101"}),
        ("change_priority", {"priority": "x"}),
    ):
        answer = person.client.post(f"{reverse(BEGIN)}?act={act}", data)
        assert answer.context["form"].errors, data
    for query in ({"q": "\x00"}, {"account": "x"}, {"created_from": "0000"}, {"act": "\x00"}):
        assert person.get(reverse(BEGIN), **query).status_code == 200
    assert person.get(page_url(action).replace(str(action.pk), "x")).status_code == 404
    for page in ("start", "look", "abort", "again"):
        assert person.get(reverse(f"admin:tasks_bulkaction_{page}", args=[action.pk])).status_code == 403


@pytest.mark.django_db
def test_a_page_of_many_rows_asks_few_questions(django_assert_max_num_queries, monkeypatch):
    monkeypatch.setattr(screen, "PAGE", 6)
    owner, person = account("1000"), root()
    for _ in range(7):
        submit(owner)
    action = freeze(person, "pause")

    with django_assert_max_num_queries(15):
        page = person.get(page_url(action))

    assert (len(page.context["rows"]), page.context["more"]) == (6, "?outcome=&after=6")
