"""Forms that are sent again after a crash, from two windows, or for a row that somebody holds."""

import json
from contextlib import contextmanager
from decimal import Decimal
from uuid import uuid4

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from billing import credentials
from billing.admin import acts
from billing.models import Account, ActReport, UsageLine
from tasks import lifecycle
from tasks.exceptions import TaskNotFinal, TooManyPendingTasks
from tasks.identifiers import public_id
from tasks.models import Deployment, Task
from tests.admin.people import Person, act_url, history, reported, root, told
from tests.admin.test_confirmations import SUBMIT, dearer, first
from tests.admin.test_task_acts import charged, refunds
from tests.builders import account, buckets, claim, deployment, key, submit

pytestmark = pytest.mark.django_db(transaction=True)


class Killed(BaseException):
    """The web process is gone."""


def dying(person, monkeypatch, row, act, page, **data):
    """Send the form to a process that dies after the verb and before the history."""

    def here(place):
        raise Killed(place)

    with monkeypatch.context() as patched:
        patched.setattr(acts, "here", here)
        with pytest.raises(Killed):
            person.send(row, act, page, **data)


def paused() -> Task:
    task = submit()
    lifecycle.pause(task.pk, by="test")
    return task


def ended() -> Task:
    return charged(account("100"), callback_url="https://example.com/")


CUT_SHORT = {
    "cancel": (submit, {}, "Canceled."),
    "pause": (submit, {}, "Paused."),
    "resume": (paused, {}, "Resumed."),
    "extend_deadline": (submit, {"minutes": "5"}, "Its deadline is "),
    "change_priority": (submit, {"priority": "9"}, "Its priority is 9 now"),
    "refund": (ended, {}, "Refunded 7.0000"),
    "rerun": (ended, {}, "Submitted again as "),
    "rerun_free": (ended, {}, "Submitted again, free of charge, as "),
    "redeliver": (ended, {}, "Its callback is due again."),
    "delete_content": (ended, {"sure": "on"}, "Deleted its content."),
}


@pytest.mark.parametrize("act", CUT_SHORT)
def test_a_form_that_was_cut_short_is_completed_when_it_is_sent_again(monkeypatch, act):
    make, data, said = CUT_SHORT[act]
    task, person = make(), root()
    page = person.ask(task, act)
    dying(person, monkeypatch, task, act, page, **data)
    before = (task.events.count(), Task.objects.count(), buckets(task.account))

    answer = person.send(task, act, page, **data)

    assert told(answer)[0].startswith(f"{public_id(task.pk)}: {said}")
    assert [entry.startswith(said) for entry in history(task)] == [True]
    assert (task.events.count(), Task.objects.count(), buckets(task.account)) == before


def test_a_refund_of_a_line_that_was_cut_short_is_completed_too(monkeypatch):
    task, person = charged(account("100")), root()
    line = UsageLine.objects.get(task_id=task.pk, meter="input_tokens").pk
    page = person.ask(task, "refund")
    dying(person, monkeypatch, task, "refund", page, line=line)

    person.send(task, "refund", page, line=line)

    assert (refunds(task), len(history(task))) == ([6], 1)


@contextmanager
def held(task):
    """Somebody else has the row meanwhile."""
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT FROM tasks_task WHERE id = %s FOR UPDATE", [task.pk])
        yield
        other.rollback()


def test_a_row_that_somebody_holds_is_told_so_and_keeps_no_other_from_its_report(monkeypatch):
    owner, person = account("100"), root()
    one, busy, broken = (charged(owner) for _ in range(3))
    page, alone = person.ask(one, "refund", busy, broken), person.ask(busy, "refund")
    refund = lifecycle.refund

    def troubled(task_id, *args, **said):
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '50ms'")
        return 1 / 0 if task_id == broken.pk else refund(task_id, *args, **said)

    monkeypatch.setattr(lifecycle, "refund", troubled)
    with held(busy):
        single = person.send(busy, "refund", alone)
        answer = person.send(one, "refund", page, busy, broken)

    said = "it is busy: somebody else holds it. Nothing was done to it."
    assert told(single) == [f"{public_id(busy.pk)}: {said}"]
    assert sorted((name, kind) for name, kind, _ in reported(answer)) == sorted(
        [(public_id(one.pk), "done"), (public_id(busy.pk), "refused"), (public_id(broken.pk), "refused")]
    )
    assert {sentence for _, kind, sentence in reported(answer) if kind == "refused"} == {
        said,
        "It failed, by a fault of ours: ZeroDivisionError.",
    }
    assert (ActReport.objects.count(), refunds(one), refunds(busy)) == (1, [7], [])


def two() -> tuple[Person, Person]:
    return root(), Person(User.objects.create_superuser("ben"))


def test_of_two_who_roll_a_key_the_second_is_refused_and_the_customers_secret_stays_good():
    ann, ben = two()
    issued, secret = key(account())
    pages = ann.ask(issued, "roll"), ben.ask(issued, "roll")

    ann.send(issued, "roll", pages[0], overlap_hours=24)
    answer = ben.send(issued, "roll", pages[1], overlap_hours=24)

    issued.refresh_from_db()
    assert issued.previous_digest == credentials.digest(secret)
    assert "It changed since you looked" in answer.context["form"].non_field_errors()[0]
    assert len(history(issued)) == 1


def test_of_two_who_rotate_a_callback_secret_the_second_is_refused():
    ann, ben = two()
    owner = account()
    was = owner.callback_secret
    pages = ann.ask(owner, "rotate-secret"), ben.ask(owner, "rotate-secret")

    ann.send(owner, "rotate-secret", pages[0])
    answer = ben.send(owner, "rotate-secret", pages[1])
    again = ben.send(owner, "rotate-secret", answer)

    assert "It changed since you looked" in answer.context["form"].non_field_errors()[0]
    assert again.context["secrets"]
    owner.refresh_from_db()
    assert owner.callback_secret_previous != was


def test_a_secret_that_no_page_has_shown_is_not_replaced():
    issued, _ = key(account())
    was, secret = issued.digest, issued.account.callback_secret

    for row, act in ((issued, "roll"), (issued.account, "rotate-secret")):
        form = {"ids": str(row.pk), "key": str(uuid4()), "reason": "x", "overlap_hours": "0"}
        assert "It changed since" in str(root_once().client.post(act_url(row, act), form).context["form"].errors)

    issued.refresh_from_db()
    assert (issued.digest, Account.objects.get().callback_secret) == (was, secret)


def root_once() -> Person:
    user, _ = User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)
    return Person(user)


def test_a_rerun_that_was_shown_as_refused_is_done_at_no_price():
    task, person = charged(account("1000")), root()
    Deployment.objects.update(is_active=False)
    page = person.ask(task, "rerun")
    Deployment.objects.update(is_active=True)
    dearer(task)

    refused = person.send(task, "rerun", page)
    agreed = person.send(task, "rerun", refused)

    assert first(page)["Then"].startswith("Refused: ")
    assert json.loads(page.context["seen"]) == {}
    assert "no price was shown, so none was agreed" in refused.context["form"].non_field_errors()[0]
    assert told(agreed)[0].startswith(f"{public_id(task.pk)}: Submitted again")
    assert Task.objects.get(rerun_of=task).quoted == 31


@pytest.mark.parametrize("act", ["rerun", "rerun_free"])
def test_of_two_who_rerun_a_task_the_second_is_refused_though_the_first_rerun_has_ended(act):
    ann, ben = two()
    task = charged(account("100"))
    pages = ann.ask(task, act), ben.ask(task, act)
    ann.send(task, act, pages[0])
    lifecycle.cancel(task.reruns.get().pk, by="test")

    answer = ben.send(task, act, pages[1])

    assert answer.context["form"].non_field_errors() == ["It changed since you looked: somebody has rerun it."]
    assert task.reruns.count() == 1


def test_a_rerun_while_the_newest_has_not_ended_is_refused_before():
    task, person = charged(account("100")), root()
    person.do(task, "rerun")

    page = person.ask(task, "rerun")

    assert page.context["hindrance"] == TaskNotFinal.message
    assert SUBMIT not in page.content.decode()
    assert first(person.ask(task, "rerun_free"))["Then"] == f"Refused: {TaskNotFinal.message}"


@pytest.mark.parametrize(
    ("limit", "why"),
    [
        ("cap", "The spend cap of this month is reached."),
        ("pending", TooManyPendingTasks.message),
        ("places", f"its deployment is full. {TooManyPendingTasks.message}"),
    ],
)
def test_reruns_beyond_a_limit_are_refused_before_as_they_are_then(limit, why):
    owner, person, to = account("100"), root(), deployment(prices=(("task", "1"),))
    tasks = [submit(owner, to) for _ in range(4)]
    for task in tasks:
        lifecycle.succeed(claim(task), output=1, usage={}, warnings=[])
    owner.refresh_from_db()
    limits = {"cap": {"monthly_cap": owner.month_spent + 2}, "pending": {"pending_limit": 2}}
    Account.objects.filter(pk=owner.pk).update(**limits.get(limit, {}))
    Deployment.objects.update(max_pending=2 if limit == "places" else None)

    page = person.ask(tasks[0], "rerun", *tasks[1:])
    answer = person.send(tasks[0], "rerun", page, *tasks[1:])

    queued = "A new task is queued and holds 1.0000."
    assert sorted(row[-1] for row in page.context["facts"].rows) == sorted([queued] * 2 + [f"Refused: {why}"] * 2)
    assert sorted(kind for _, kind, _ in reported(answer)) == ["done", "done", "refused", "refused"]
    assert Task.objects.filter(rerun_of__in=tasks).count() == 2
    assert owner.available - buckets(owner)["available"] == Decimal(2)
