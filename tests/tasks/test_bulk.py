"""Many at once: what is frozen and foretold, what each row becomes, and what nothing can make happen twice."""

from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal

import psycopg
import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.utils.timezone import now

from billing import ledger
from billing.exceptions import ChangedSince
from billing.models import Account, Charge, Transfer
from tasks import bulk, bulk_acts, foretelling, lifecycle, sweep
from tasks.models import BulkAction, BulkActionRow, Task, TaskEvent
from tasks.models.bulk import BULK_QUEUE
from tasks.refunds import Share
from tasks.statuses import Status
from tests.billing.builders import at_once
from tests.builders import account, assert_sound, buckets, claim, deployment, submit, task_that_is

pytestmark = pytest.mark.django_db(transaction=True)
EVERYTHING = {"filters": {}, "words": "all tasks"}


@pytest.fixture
def ann():
    return User.objects.create_superuser("ann")


@pytest.fixture(autouse=True)
def woken(monkeypatch):
    """The queues that were woken; nobody else is at work."""
    heard = []
    monkeypatch.setattr("tasks.queues.wake", heard.append)
    monkeypatch.setattr("tasks.sweep.queues.fill", lambda queue, count: heard.append(queue))
    return heard


def charged(of, to=None, *, tokens=3) -> Task:
    """A task that was charged 1 flat and 2 a token."""
    to = to or deployment(queue=of.pk.hex, prices=(("task", "1"), ("input_tokens", "2")))
    task = submit(of, to, input={"bound": {"input_tokens": 10}}, callback_url="https://example.com/")
    lifecycle.succeed(claim(task), output="done", usage={"input_tokens": Decimal(tokens)}, warnings=[])
    task.refresh_from_db()
    return task


def frozen(ann, act, tasks=None, **data) -> BulkAction:
    chosen = Task.objects.all() if tasks is None else Task.objects.filter(pk__in=[task.pk for task in tasks])
    return bulk.freeze(chosen, act=act, data=data, operator=ann, **EVERYTHING)


def begun(ann, act, tasks=None, **data) -> BulkAction:
    action = frozen(ann, act, tasks, **data)
    return bulk.start(action.pk, operator=ann, reason="outage", number=action.suited, seen=action.digest)


def finished(ann, act, tasks=None, **data) -> BulkAction:
    action = begun(ann, act, tasks, **data)
    bulk.act_on_many()
    action.refresh_from_db()
    return action


def outcomes(action) -> list[tuple[str, str]]:
    return list(action.rows.order_by("number").values_list("outcome", "told"))


def refunds() -> list[Decimal]:
    return list(Transfer.objects.filter(kind="refund").order_by("id").values_list("amount", flat=True))


def test_what_is_chosen_is_frozen_and_foretold(ann):
    rich, poor = account("100"), account("100", name="Umbrella")
    one, two, free = charged(rich), charged(poor), task_that_is(Status.CANCELED, of=rich)
    lifecycle.refund(two.pk, key="before", reason="x", by="test")

    action = frozen(ann, "refund")
    charged(rich)

    assert (action.total, action.suited, action.credits, action.accounts) == (3, 1, 7, 1)
    assert action.foretold == [
        {"why": "All of the charge is refunded.", "tasks": 1},
        {"why": "Nothing was charged.", "tasks": 1},
    ]
    assert set(action.rows.values_list("task_id", flat=True)) == {one.pk, two.pk, free.pk}


def test_a_bulk_refund_gives_each_its_share_once_and_writes_who_and_why(ann):
    owner = account("100")
    tasks = [charged(owner) for _ in range(3)]

    action = finished(ann, "refund", percent="50")
    bulk.act_on_many()

    assert (action.status, action.done, action.refused, action.moved) == ("done", 3, 0, Decimal("10.5"))
    assert refunds() == [Decimal("3.5")] * 3
    for task in tasks:
        event = task.events.get(type="task.refunded")
        assert (event.actor, event.data["private"]) == ("operator:ann", {"reason": "outage"})
        entry = LogEntry.objects.get(object_id=str(task.pk))
        assert (entry.user, entry.get_change_message()) == (ann, "Refunded 3.5000. Reason: outage")
    assert_sound(owner)


ACTED = {
    "cancel": ({}, "queued", "Canceled.", lambda task: task.status == "canceled"),
    "pause": ({}, "queued", "Paused.", lambda task: task.paused_at is not None),
    "resume": ({}, "paused", "Resumed.", lambda task: task.paused_at is None),
    "extend_deadline": ({"minutes": 30}, "queued", "Its deadline is ", lambda task: True),
    "change_priority": ({"priority": 9}, "queued", "Its priority is 9.", lambda task: task.priority == 9),
    "refund": ({}, "done", "Refunded 7.0000.", lambda task: refunds()[-1] == 7),
    "redeliver": ({}, "done", "Its callback is due again.", lambda task: task.callbacks.get().tries_left > 0),
    "rerun": ({}, "done", "Submitted again as ", lambda task: task.reruns.get().quoted == 21),
    "rerun_free": ({}, "done", "Submitted again, free of charge, as ", lambda task: task.reruns.get().waived),
    "delete_content": ({}, "done", "Deleted its content.", lambda task: task.content_deleted_at is not None),
}


def of_kind(kind) -> Task:
    task = charged(account("100")) if kind == "done" else submit(account("100"))
    if kind == "paused":
        lifecycle.pause(task.pk, by="test")
    return task


def test_there_is_no_act_that_is_not_tried_here():
    assert set(ACTED) == set(bulk_acts.ACTS) == set(foretelling.FORETELLINGS)


def test_each_act_is_done_for_many_as_for_one(ann):
    for act, (data, kind, told, changed) in ACTED.items():
        task = of_kind(kind)

        action = finished(ann, act, [task], **data)

        [(outcome, said)] = outcomes(action)
        assert (outcome, said.startswith(told), action.status) == ("done", True, "done"), (act, said)
        task.refresh_from_db()
        assert changed(task), act
        assert action.moved == action.credits
        assert_sound(task.account)


def test_a_row_whose_worker_died_after_the_verb_is_done_once(ann, monkeypatch):
    for act, (data, kind, _, _) in ACTED.items():
        task = of_kind(kind)
        action = begun(ann, act, [task], **data)
        with monkeypatch.context() as dying:
            dying.setattr("tasks.bulk._record", lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                bulk.act_on_many()
        before = (TaskEvent.objects.count(), Transfer.objects.count(), Task.objects.count())
        BulkAction.objects.update(lease_expires_at=now())

        bulk.act_on_many()

        assert [outcome for outcome, _ in outcomes(action)] == ["done"], act
        assert (TaskEvent.objects.count(), Transfer.objects.count(), Task.objects.count()) == before, act
        assert LogEntry.objects.filter(object_id=str(task.pk)).count() == 1


def test_what_is_foretold_for_every_status_is_what_the_verb_says(ann):
    """Each status, paused, without content, refunded and rerun: whoever suits is done, and nobody else is."""
    for act, (data, *_) in ACTED.items():
        owner = account("1000")
        tasks = every_kind_of_task(owner)
        action = frozen(ann, act, tasks, **data)
        foretold = dict(action.rows.values_list("task_id", "foretold"))
        action.rows.update(foretold="")
        BulkAction.objects.filter(pk=action.pk).update(status="running", started_at=now(), reason="x")

        bulk.act_on_many()

        done = set(action.rows.filter(outcome="done").values_list("task_id", flat=True))
        assert done == {task_id for task_id, why in foretold.items() if not why}, act
        assert_sound(owner)


def every_kind_of_task(owner) -> list[Task]:
    to = {status: deployment(queue=f"{status}-{owner.pk.hex[-8:]}") for status in Status}
    tasks = [task_that_is(status, of=owner, to=to[status]) for status in Status]
    tasks += [charged(owner), charged(owner), charged(owner), submit(owner, to[Status.QUEUED])]
    lifecycle.pause(tasks[-1].pk, by="test")
    lifecycle.refund(tasks[-2].pk, key=f"x{owner.pk}", reason="x", by="test")
    lifecycle.delete_content(tasks[-3].pk, by="test")
    lifecycle.rerun(tasks[-4].pk, account_id=owner.pk, api_key_id=None, actor="test")
    return tasks


def test_rows_that_are_foretold_to_be_refused_are_never_tried(ann):
    owner = account("100")
    queued, ended = submit(owner), task_that_is(Status.CANCELED, of=owner)

    action = finished(ann, "pause", [queued, ended])

    assert outcomes(action) == [("done", "Paused."), ("refused", "Only a queued task is paused or resumed.")]
    assert (action.done, action.refused) == (1, 1)


def test_a_start_wants_the_number_that_was_seen_and_no_more_than_that(ann):
    task = charged(account("100"))
    action = frozen(ann, "rerun")

    with pytest.raises(bulk.NotStarted, match="Type 1, the number"):
        bulk.start(action.pk, operator=ann, reason="x", number=2, seen=action.digest)
    with pytest.raises(ChangedSince):
        bulk.start(action.pk, operator=ann, reason="x", number=1, seen="another")
    bulk.start(action.pk, operator=ann, reason="x", number=1, seen=action.digest)
    with pytest.raises(bulk.NotStarted, match="It is running already"):
        bulk.start(action.pk, operator=ann, reason="x", number=1, seen=action.digest)

    assert not task.reruns.exists()


def test_whoever_may_not_starts_nothing_and_whoever_lost_the_right_stops_it(ann):
    owner = account("100")
    tasks = [charged(owner), charged(owner)]
    bob = User.objects.create_user("bob", is_staff=True)
    action = frozen(bob, "refund")
    with pytest.raises(bulk.NotStarted, match="You may not"):
        bulk.start(action.pk, operator=bob, reason="x", number=2, seen=action.digest)
    bulk.start(action.pk, operator=ann, reason="x", number=2, seen=action.digest)
    User.objects.filter(pk=ann.pk).update(is_active=False)

    bulk.act_on_many()

    action.refresh_from_db()
    assert (action.status, action.ended_by, action.done) == ("stopped", "ann may not do this any more.", 0)
    assert (refunds(), len(tasks)) == ([], 2)


def test_an_abort_stops_before_the_next_row_and_the_rest_is_done_by_another(ann, monkeypatch):
    owner = account("100")
    for _ in range(4):
        submit(owner)
    action, verb = begun(ann, "cancel"), lifecycle.cancel

    def aborted_meanwhile(task_id, **said):
        bulk.abort(action.pk, by="operator:bob")
        return verb(task_id, **said)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("tasks.lifecycle.cancel", aborted_meanwhile)
        bulk.act_on_many()
    action.refresh_from_db()
    rest = bulk.again(action, operator=ann)

    assert (action.status, action.done, action.left, action.ended_by) == ("aborted", 1, 3, "operator:bob")
    assert (rest.retry_of, rest.total, rest.suited) == (action, 3, 3)
    assert not bulk.abort(action.pk, by="operator:bob")


def test_two_workers_at_once_act_once_on_each_row(ann):
    owner = account("100")
    for _ in range(6):
        charged(owner)
    action = begun(ann, "refund")

    at_once(3, lambda _: bulk.act_on_many())
    bulk.act_on_many()

    action.refresh_from_db()
    assert (action.status, action.done, action.moved) == ("done", 6, 42)
    assert refunds() == [7] * 6
    assert buckets(owner)["available"] == 100


def test_actions_take_turns_a_batch_each(ann, monkeypatch):
    monkeypatch.setattr(bulk, "BATCH", 1)
    owner, served = account("100"), []
    tasks = [submit(owner) for _ in range(4)]
    one, two = begun(ann, "pause", tasks[:2]), begun(ann, "pause", tasks[2:])
    pause = lifecycle.pause
    monkeypatch.setattr(lifecycle, "pause", lambda pk, **said: (served.append(pk), pause(pk, **said))[1])

    bulk.act_on_many()

    assert served == [tasks[0].pk, tasks[2].pk, tasks[1].pk, tasks[3].pk]
    assert {a.status for a in BulkAction.objects.filter(pk__in=[one.pk, two.pk])} == {"done"}


@contextmanager
def held(task):
    """Somebody else has the task's row meanwhile."""
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT FROM tasks_task WHERE id = %s FOR UPDATE", [task.pk])
        yield
        other.rollback()


def test_a_row_that_somebody_holds_and_one_that_fails_stop_no_other(ann, monkeypatch):
    owner = account("100")
    tasks = [submit(owner) for _ in range(3)]
    action, pause = begun(ann, "pause"), lifecycle.pause

    def troubled(task_id, **said):
        if task_id == tasks[0].pk:
            raise ZeroDivisionError
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '50ms'")
        return pause(task_id, **said)

    monkeypatch.setattr(lifecycle, "pause", troubled)
    with held(tasks[1]):
        bulk.act_on_many()

    assert outcomes(action) == [
        ("refused", "It failed, by a fault of ours: ZeroDivisionError."),
        ("refused", "Somebody held it for too long."),
        ("done", "Paused."),
    ]


def test_a_database_that_goes_away_leaves_the_row_for_the_next_worker(ann, monkeypatch):
    submit()
    action = begun(ann, "pause")
    with monkeypatch.context() as away:
        away.setattr(lifecycle, "pause", lambda *args, **said: (_ for _ in ()).throw(OperationalError("gone")))
        with pytest.raises(OperationalError):
            bulk.act_on_many()
    assert outcomes(action) == [("", "")]
    BulkAction.objects.update(lease_expires_at=now())

    bulk.act_on_many()

    assert outcomes(action) == [("done", "Paused.")]


def test_the_sweeper_wakes_whoever_acts_while_there_is_something_and_nobody_is_at_it(ann, woken):
    submit()
    sweep.wake_bulk()
    begun(ann, "pause")
    woken.clear()

    for at_it in (None, now() - timedelta(seconds=1), now() + timedelta(hours=1)):
        BulkAction.objects.update(lease_expires_at=at_it)
        sweep.wake_bulk()

    assert woken == [BULK_QUEUE] * 2


def test_what_nobody_started_for_a_day_is_forgotten(ann, monkeypatch):
    submit()
    old, new, ran = frozen(ann, "pause"), frozen(ann, "pause"), finished(ann, "pause")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE tasks_bulkaction SET created_at = now() - interval '25 h' WHERE id <> %s", [new.pk])
    monkeypatch.setattr(sweep, "_done_at", {})

    sweep.forget_unstarted()

    assert {a.pk for a in BulkAction.objects.all()} == {new.pk, ran.pk}
    assert not BulkActionRow.objects.filter(action_id=old.pk).exists()


def test_more_than_one_action_takes_is_cut_and_says_so(ann, monkeypatch):
    monkeypatch.setattr(bulk, "MOST", 2)
    owner = account("100")
    tasks = [submit(owner) for _ in range(3)]

    action = frozen(ann, "pause")

    assert (action.total, action.cut) == (2, True)
    assert list(action.rows.order_by("number").values_list("task_id", flat=True)) == [t.pk for t in tasks[:2]]


def test_nothing_chosen_is_nothing_to_start(ann):
    action = bulk.freeze(Task.objects.none(), act="pause", data={}, operator=ann, **EVERYTHING)

    with pytest.raises(bulk.NotStarted, match="no task that it suits"):
        bulk.start(action.pk, operator=ann, reason="x", number=0, seen=action.digest)


def test_reruns_that_the_account_cannot_pay_or_hold_are_foretold(ann):
    poor, full = account("50"), account("1000", name="Full", pending_limit=1)
    to = deployment(prices=(("task", "20"),))
    tasks = [task_that_is(Status.CANCELED, of=owner, to=to) for owner in (poor, poor, poor, full, full)]
    ledger.adjust(poor.pk, Decimal(-5), key="x", reason="x", actor="test")

    action = frozen(ann, "rerun", tasks)

    assert (action.suited, action.credits) == (3, 60)
    assert action.foretold == [
        {"why": foretelling.TOO_MANY, "tasks": 1},
        {"why": foretelling.TOO_POOR, "tasks": 1},
    ]


def test_shares_and_prices_are_foretold_to_the_last_place(ann):
    """What the one statement says is what Python's decimals say, ties included."""
    owner = account("100")
    to = deployment(prices=(("task", "0.0001"), ("input_tokens", "0.0005", 10), ("output_tokens", "0.1", 3)))
    for tokens in (1, 2, 3, 5, 7):
        task = submit(owner, to, input={"bound": {"input_tokens": tokens, "output_tokens": tokens}})
        usage = {"input_tokens": Decimal(tokens), "output_tokens": Decimal(tokens)}
        lifecycle.succeed(claim(task), output=None, usage=usage, warnings=[])
    charges = Charge.objects.in_bulk()

    for percent in ("50", "33.3333", "0.00125", "12.5", "100", "0.01"):
        action = frozen(ann, "refund", percent=percent)
        for row in action.rows.filter(foretold=""):
            assert row.credits == Share(percent=Decimal(percent)).of(charges[row.task_id]), percent
    for row in frozen(ann, "rerun").rows.all():
        assert row.credits == Task.objects.get(pk=row.task_id).quoted


def test_a_task_that_was_purged_meanwhile_is_told_so(ann):
    submit()
    action = frozen(ann, "cancel")
    BulkActionRow.objects.update(task_id="00000000-0000-0000-0000-000000000000")

    assert bulk.look(action.pk).foretold == [{"why": "There is no such task any more.", "tasks": 1}]


def test_a_refund_that_somebody_gave_meanwhile_is_refused_with_a_sentence(ann):
    task = charged(account("100"))
    action = begun(ann, "refund")
    lifecycle.refund(task.pk, key="faster", reason="x", by="test")

    bulk.act_on_many()

    said = "It changed since you looked: 0.0000 is left now, not 7.0000. Nothing was refunded."
    assert outcomes(action) == [("refused", said)]
    assert Account.objects.get().available == 100
