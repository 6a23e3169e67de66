"""The home: what needs somebody, what has been, and each number with the list of exactly the rows it counts."""

from datetime import timedelta
from decimal import Decimal

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.timezone import now

from billing import ledger
from billing.house import house_account
from billing.models import ApiKey, Transfer
from billing.twins import twin_of
from tasks import lifecycle, overview, queues
from tasks.identifiers import new_id
from tasks.models import Callback, Receiver, Run, Task
from tasks.models.turn import Turn
from tasks.statuses import ErrorCode
from tests.admin.people import Person, member, root
from tests.admin.world import CANARY, crowd, world
from tests.builders import account, claim, deployment, key, submit

pytestmark = pytest.mark.django_db

HOME = reverse("admin:index")
LIVE = {"HX-Request": "true"}
LONG_AGO = timedelta(hours=3)
MOST_QUERIES = 15


def forget():
    """Figures that somebody asked for before are counted anew."""
    with queues.broker("test") as client:
        client.delete(*(overview._key(window) for window in overview.WINDOWS.values()))


@pytest.fixture(autouse=True)
def _counted_anew():
    forget()


@pytest.fixture
def ann():
    return root()


def home(person, **query):
    response = person.get(HOME, **query)
    assert response.status_code == 200
    return response


def cards(person):
    return {card.title: card for card in home(person).context["cards"]}


def charts(person):
    return {chart.name: chart for chart in home(person).context["charts"]}


def numbers(chart):
    return {figure.label: figure.number for figure in chart.figures}


def links(chart):
    return {figure.label: figure.url for figure in chart.figures}


def behind(person, url):
    """The rows of the list that a link leads to."""
    response = person.get(url)
    assert response.status_code == 200, url
    return {row.pk for row in response.context["cl"].result_list}


def ended(of=None, to=None, **fields):
    """A task that succeeded, with its callback."""
    task = submit(of, to, callback_url="https://example.com/hook", **fields)
    lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])
    return task


def pending(**fields):
    """A callback of an ended task, as these fields say."""
    callback = Callback.objects.get(task=ended())
    Callback.objects.filter(pk=callback.pk).update(**fields)
    return callback


def test_nothing_needs_anybody_where_all_is_well(ann):
    ended()

    response = home(ann)

    assert response.context["cards"] == []
    assert "Nothing needs you" in response.content.decode()


def test_a_stuck_task_is_one_that_nobody_ended_at_its_time(ann):
    fine, late, waited, just = (submit() for _ in range(4))
    Task.objects.filter(pk=late.pk).update(deadline=now() - LONG_AGO, expires_at=now() - timedelta(hours=1))
    Task.objects.filter(pk=waited.pk).update(expires_at=now() - timedelta(minutes=1))
    Task.objects.filter(pk=just.pk).update(deadline=now() - timedelta(seconds=2))

    card = cards(ann)["Stuck tasks"]

    assert (card.number, card.age, card.urgency) == ("2", "3 h", "urgent")
    assert behind(ann, card.url) == {late.pk, waited.pk}
    assert fine.status == just.status == "queued"


def test_a_lost_worker_is_a_run_under_way_whose_lease_is_over(ann):
    claim(submit())
    task = submit()
    lost = claim(task)
    Run.objects.filter(lease_token=lost.token).update(lease_expires_at=now() - LONG_AGO)

    card = cards(ann)["Lost workers"]

    assert (card.number, card.age, card.urgency) == ("1", "3 h", "urgent")
    assert behind(ann, card.url) == {Run.objects.get(task=task).pk}


def test_callbacks_that_nobody_sends_that_are_owed_for_long_and_that_failed(ann):
    pending(next_attempt_at=now() + LONG_AGO)
    late = pending(next_attempt_at=now() - timedelta(minutes=2))
    owed = pending(next_attempt_at=now() + LONG_AGO, created_at=now() - LONG_AGO)
    failed = pending(status="failed", next_attempt_at=None)
    pending(status="failed", next_attempt_at=None, failed_at=now() - timedelta(days=8))

    shown = cards(ann)

    assert behind(ann, shown["Callbacks nobody sends"].url) == {late.pk}
    assert behind(ann, shown["Callbacks owed for over an hour"].url) == {owed.pk}
    assert behind(ann, shown["Failed callbacks of seven days"].url) == {failed.pk}
    assert [shown[card].number for card in shown if "allbacks" in card] == ["1", "1", "1"]


def test_what_waits_for_a_paused_receiver_is_owed_too(ann):
    owner = account()
    receiver = Receiver.objects.create(
        account=owner, url="https://example.com/hook", failures=10, last_failure_at=now(), paused_at=now() - LONG_AGO
    )
    waits = pending(waits_for=receiver, waits_since=now(), created_at=now() - LONG_AGO)
    Receiver.objects.create(account=owner, url="https://example.com/works", failures=0, last_failure_at=now())

    shown = cards(ann)

    assert set(shown) == {"Paused receivers", "Callbacks owed for over an hour"}
    assert behind(ann, shown["Callbacks owed for over an hour"].url) == {waits.pk}
    assert shown["Paused receivers"].age == "3 h"


def test_a_queue_stands_still_when_a_task_could_start_and_none_is_claimed(ann):
    to = deployment(queue="gpu")
    old = submit(to=to)
    Task.objects.filter(pk=old.pk).update(available_at=now() - LONG_AGO)

    card = cards(ann)["Nobody works on gpu"]

    assert (card.number, card.age, card.urgency) == ("1", "3 h", "urgent")
    assert behind(ann, card.url) == {old.pk}
    assert "none ever was" in card.told
    Turn.objects.create(queue="gpu", account=old.account, served_at=now() - timedelta(minutes=30))
    assert "30 min ago" in cards(ann)["Nobody works on gpu"].told


def test_a_queue_whose_workers_are_busy_is_behind_after_a_while(ann):
    to = deployment(queue="gpu")
    claim(submit(to=to))
    old = submit(to=to)
    Task.objects.filter(pk=old.pk).update(available_at=now() - timedelta(minutes=5))
    assert cards(ann) == {}

    Task.objects.filter(pk=old.pk).update(available_at=now() - timedelta(minutes=15))

    assert cards(ann)["gpu is behind"].urgency == "soon"


def test_the_oldest_task_is_one_that_a_worker_would_be_given(ann):
    to, full = deployment(queue="gpu"), account(running_limit=0)
    before = {"available_at": now() - LONG_AGO}
    paused, later, held, drained, could = (
        submit(to=to), submit(to=to), submit(full, to), submit(to=deployment(queue="gpu", drained_at=now())),
        submit(to=to, priority=0),
    )  # fmt: skip
    Task.objects.update(**before)
    Task.objects.filter(pk=paused.pk).update(paused_at=now())
    Task.objects.filter(pk=later.pk).update(available_at=now() + LONG_AGO)

    (queue,) = [queue for queue in home(ann).context["queues"] if queue["name"] == "gpu"]

    assert (queue["waiting"], queue["running"], queue["age"]) == ("4", "0", "3 h")
    assert behind(ann, queue["url"]) == {task.pk for task in (later, held, drained, could)}
    assert str(could) in queue["oldest"]
    assert not [task for task in (paused, later, held, drained) if str(task) in queue["oldest"]]


def test_balances_that_are_low_or_used_up_are_told_to_whoever_sees_accounts():
    low = account("5", low_balance_threshold=10)
    account("50", low_balance_threshold=10)
    spent, limited = account("1"), account("1", credit_limit=1)
    account("0")
    for owner in (spent, limited):
        ended(owner)

    shown = cards(billing := member("Billing"))

    assert {title: card.number for title, card in shown.items()} == {
        "Low balances": "1",
        "Accounts that cannot pay": "1",
    }
    assert behind(billing, shown["Low balances"].url) == {low.pk}
    assert behind(billing, shown["Accounts that cannot pay"].url) == {spent.pk}


def test_the_signs_of_life_are_the_last_claim_and_the_last_delivery(ann):
    assert [told for _, told, _ in home(ann).context["pulses"]] == ["none waits", "never", "never"]

    pending(status="delivered", delivered_at=now() - timedelta(minutes=5), next_attempt_at=None)

    _, claimed, delivered = [told for _, told, _ in home(ann).context["pulses"]]
    assert claimed.endswith("s ago")
    assert delivered == "5 min ago"


def test_the_numbers_of_a_window_are_those_of_its_rows(ann):
    to = deployment("the-model")
    ended(to=to)
    failed, canceled = submit(to=to), submit(to=to)
    lifecycle.fail(claim(failed), code=ErrorCode.CAPABILITY_ERROR, message="No.")
    lifecycle.cancel(canceled.pk, by="test")
    submit(to=to)
    claim(submit(to=deployment(queue="other")))

    shown = charts(ann)

    assert numbers(shown["tasks"]) == {"submitted": "5", "succeeded": "1", "failed": "1", "canceled": "1"}
    assert numbers(shown["open"]) == {"queued": "1", "running": "1"}
    for chart in (shown["tasks"], shown["open"]):
        assert {label: f"{len(behind(ann, url))}" for label, url in links(chart).items()} == numbers(chart)
    assert [sum(line["data"]) for line in shown["tasks"].drawn["lines"]] == [5, 1, 1, 1]
    assert shown["open"].drawn["lines"][0]["data"][-1] == 2
    (model,) = home(ann).context["tops"]["models"]
    assert (model["name"], [number for number, _ in model["ends"]]) == ("the-model", ["1", "1", "1"])
    assert [len(behind(ann, url)) for _, url in model["ends"]] == [1, 1, 1]


def test_a_task_is_counted_by_its_time_and_not_by_its_id():
    """An id is made a moment later, which may be in the next piece."""
    task = submit()
    begins = overview.count(overview.WINDOWS["hour"])["starts"][-2]
    later = overview.moment(begins) + timedelta(milliseconds=3)
    with connection.cursor() as cursor:
        for moment, id_ in ((later - timedelta(milliseconds=5), new_id(later)), (later, new_id(later))):
            cursor.execute(
                """INSERT INTO tasks_task SELECT (jsonb_populate_record(t, jsonb_build_object('id', %s::uuid,
                'created_at', %s::timestamptz, 'idempotency_key', NULL))).* FROM tasks_task t WHERE id = %s""",
                [id_, moment, task.pk],
            )

    submitted = overview.count(overview.WINDOWS["hour"])["work"]["submitted"]

    assert submitted[-3:-1] == [1, 1]


def test_run_times_are_from_the_first_start_to_the_end(ann):
    for seconds in (1, 2, 3, 4, 500):
        task = submit()
        claimed = claim(task)
        Task.objects.filter(pk=task.pk).update(started_at=db_now() - timedelta(seconds=seconds))
        lifecycle.succeed(claimed, output=None, usage={}, warnings=[])

    assert numbers(charts(ann)["times"]) == {"p50": "3 s", "p95": "8 min"}


def db_now():
    """The time of this transaction, which the end is written with."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        return cursor.fetchone()[0]


def test_credits_are_those_of_transfers_and_test_credits_are_none(ann):
    owner = account("100", name="Payer")
    task = ended(owner, deployment(prices=(("task", "7"),)))
    lifecycle.refund(task.pk, Decimal(2), key="refund", reason="late", by="operator:root")
    twin, _ = twin_of(owner)
    ended(twin, deployment(prices=(("task", "3"),)))

    chart = charts(ann)["money"]

    assert numbers(chart) == {"charged": "7.0000", "refunded": "2.0000"}
    for label, kind in (("charged", "capture"), ("refunded", "refund")):
        assert behind(ann, links(chart)[label]) == {Transfer.objects.get(account=owner, kind=kind).pk}
    (top,) = home(ann).context["tops"]["accounts"]
    assert (top["name"], [amount for amount, _ in top["moved"]]) == ("Payer", ["7.0000", "2.0000"])
    assert behind(ann, top["moved"][0][1]) == {Transfer.objects.get(account=owner, kind="capture").pk}


def test_test_runs_of_the_house_are_no_revenue(ann):
    house = house_account()
    ledger.grant(house.pk, Decimal(5), key="try", reason="a trial", actor="operator:root")
    ended(house, deployment(prices=(("task", "3"),)))

    chart = charts(ann)["money"]

    assert numbers(chart) == {"charged": "0.0000", "refunded": "0.0000"}
    assert behind(ann, links(chart)["charged"]) == set()
    assert home(ann).context["tops"]["accounts"] == []
    assert "test runs of the house are left out" in chart.told


def test_callbacks_are_counted_when_they_ended(ann):
    at = {"next_attempt_at": None}
    delivered = pending(status="delivered", delivered_at=now() - LONG_AGO, **at)
    pending(status="delivered", delivered_at=now() - timedelta(days=2), **at)
    failed = pending(status="failed", failed_at=now() - LONG_AGO, **at)

    chart = charts(ann)["callbacks"]

    assert numbers(chart) == {"delivered": "1", "failed": "1"}
    assert behind(ann, links(chart)["delivered"]) == {delivered.pk}
    assert behind(ann, links(chart)["failed"]) == {failed.pk}


@pytest.mark.parametrize("window", ["hour", "day", "week"])
def test_a_window_is_in_the_address_and_ends_now(ann, window):
    ended()

    response = home(ann, window=window)

    figures = overview.count(overview.WINDOWS[window])
    assert response.context["window"] == window
    assert len(response.context["charts"][0].drawn["labels"]) == overview.WINDOWS[window].pieces
    assert numbers(response.context["charts"][0])["succeeded"] == "1"
    assert overview.moment(figures["starts"][-1]) <= overview.moment(figures["last"])
    assert f'href="?window={window}" aria-current="true"' in response.content.decode()


def test_what_is_asked_again_at_once_is_not_counted_again(ann):
    ended()
    first = home(ann).context["last"]
    ended()

    assert home(ann).context["last"] == first
    assert numbers(home(ann).context["charts"][0])["succeeded"] == "1"


def test_without_the_broker_it_is_counted_anew(ann, monkeypatch):
    ended()
    home(ann)
    monkeypatch.setattr(queues, "_client", lambda: redis.Redis(port=1, retry=None))
    monkeypatch.setattr(queues, "_left_alone_until", 0.0)
    ended()

    response = home(ann)

    assert numbers(response.context["charts"][0])["succeeded"] == "2"


def test_an_open_page_is_sent_what_changes_and_nothing_around_it(ann):
    ended()

    page = ann.client.get(HOME, headers=LIVE).content.decode()

    assert "<html" not in page
    for part in ("home-now", "home-asof", "home-figures-tasks", "home-tops", "home-drawn"):
        assert f'id="{part}"' in page, part
    assert page.count('hx-swap-oob="true"') == 9


def test_a_page_takes_few_queries_whatever_there_is(ann):
    world()
    few = count(ann)

    crowd(4)

    assert count(ann) == few <= MOST_QUERIES
    assert count(ann, headers=LIVE) <= MOST_QUERIES


def count(person, **kwargs):
    forget()
    with CaptureQueriesContext(connection) as queries:
        assert person.client.get(HOME, **kwargs).status_code == 200
    return len(queries)


def test_whoever_may_not_see_money_sees_none():
    ended(account(name="Payer", low_balance_threshold=1000))
    user = User.objects.create_user("watcher", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_task"))

    response = home(Person(user))

    assert [chart.name for chart in response.context["charts"]] == ["tasks", "open", "times", "callbacks"]
    assert "Payer" not in response.content.decode()
    assert response.context["cards"] == []


def test_whoever_sees_no_tasks_is_told_whom_to_ask():
    ended()

    response = home(Person(User.objects.create_user("new", is_staff=True)))

    assert "You may log in" in response.content.decode()
    assert "charts" not in response.context


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_each_group_sees_its_home(group):
    ended()

    assert len(home(member(group)).context["charts"]) == 5


def test_names_are_escaped(ann):
    world()

    page = home(ann).content.decode()

    assert CANARY not in page
    assert "&lt;script&gt;" in page


def test_an_empty_installation_is_shown_the_first_steps_one_after_the_other(ann, settings):
    settings.PUBLIC_URL = "https://tasks.example.com"

    def steps():
        return [step["title"] for step in home(ann).context["steps"]]

    assert steps() == ["Open an account", "Submit a task", "Watch it here"]
    assert "home-unused" in home(ann).content.decode()
    owner = account("0")
    assert steps() == ["Grant it credits", "Issue an API key", "Submit a task", "Watch it here"]
    key(owner)
    assert steps() == ["Grant it credits", "Submit a task", "Watch it here"]
    ApiKey.objects.update(revoked_at=now())
    funded = account()
    assert steps() == ["Issue an API key", "Submit a task", "Watch it here"]
    assert "curl -s https://tasks.example.com/v1/tasks" in home(ann).content.decode()
    task = submit(funded)
    assert steps() == ["Watch it here"]
    assert "home-unused" not in home(ann).content.decode()
    lifecycle.cancel(task.pk, by="test")
    assert steps() == []


def test_support_is_not_led_where_it_may_not_go():
    (first, *_) = home(member("Support")).context["steps"]

    assert first["url"] == ""


def test_another_window_is_the_usual_one(ann):
    for window in ("\x00", "year", "<b>", "9" * 5000):
        assert home(ann, window=window).context["window"] == "day"


def test_a_list_says_that_it_was_asked_for_no_time(ann):
    lists = {"tasks_callback": "failed_from", "tasks_run": "lease_to", "billing_transfer": "created_from"}
    no_times = ("\x00", "yesterday", "9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z", "infinity")

    for screen, name in lists.items():
        answers = {ann.get(reverse(f"admin:{screen}_changelist"), **{name: text}).status_code for text in no_times}
        assert answers <= {302, 400}, screen
