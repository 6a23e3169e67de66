"""What time and crashes leave behind."""

import json
import math
import time
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, OperationalError
from django.utils.timezone import now

from tasks import lifecycle, queues, sweep
from tasks.models import Callback, Run, Task
from tasks.models.deployment import CALLBACKS_QUEUE
from tasks.statuses import ErrorCode, Resolved, Status
from tests.builders import account, assert_sound, buckets, deployment, submit, task_that_is
from tests.tasks.api.test_tenancy import statements

pytestmark = pytest.mark.django_db

AGO = timedelta(seconds=1)


@pytest.fixture(autouse=True)
def _a_database_that_runs_longer_than_a_lease(settings):
    settings.LEASE_SECONDS = 0.001


def overdue(task, **fields):
    Task.objects.filter(pk=task.pk).update(**(fields or {"deadline": now() - AGO}))


def lease_over(task):
    Run.objects.filter(task=task).update(lease_expires_at=now() - AGO)


def end_of(task):
    task.refresh_from_db()
    return task.status, task.error and task.error["code"], task.runs.get(number=task.attempt).reason_resolved


def test_a_lost_lease_is_taken_and_the_task_tried_again():
    task = task_that_is(Status.RUNNING)
    lease_over(task)

    assert sweep.end_lost_leases() == 1

    assert end_of(task) == ("queued", None, None)
    assert task.runs.get(number=1).reason_resolved == "claim_expired"
    assert (task.attempt, task.retries_left) == (2, 1)
    assert sweep.end_lost_leases() == 0


def test_a_lease_that_was_lost_too_often_fails_the_task_for_nothing():
    task = task_that_is(Status.RUNNING, to=deployment(max_retries=0))
    lease_over(task)

    sweep.end_lost_leases()

    assert end_of(task) == ("failed", "worker_lost", "claim_expired")
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    assert_sound(task.account)


def test_a_lease_that_holds_is_left_alone(settings):
    settings.LEASE_SECONDS = 60
    task = task_that_is(Status.RUNNING)
    settings.LEASE_SECONDS = 0.001

    assert sweep.end_lost_leases() == 0
    assert lifecycle.give_up(task.pk) is False
    assert end_of(task) == ("running", None, None)


def test_no_lease_ends_within_one_lease_of_the_database_s_start(settings):
    settings.LEASE_SECONDS = 10 * 365 * 86_400
    lease_over(task_that_is(Status.RUNNING))

    assert sweep.end_lost_leases() == 0


def test_a_task_that_waited_too_long_for_its_start_expires():
    task = submit()
    overdue(task, expires_at=now() - AGO)

    assert sweep.expire_overdue() == 1

    assert end_of(task) == ("failed", "expired", "expired")
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    assert_sound(task.account)


def test_a_task_that_never_started_expires_at_its_deadline():
    task = submit()
    overdue(task)

    sweep.expire_overdue()

    assert end_of(task) == ("failed", "expired", "expired")


def test_a_running_task_ends_at_its_deadline():
    task = task_that_is(Status.RUNNING)
    overdue(task)

    sweep.expire_overdue()

    assert end_of(task) == ("failed", "deadline_exceeded", "deadline_exceeded")
    assert_sound(task.account)


def test_a_task_that_waits_for_another_try_ends_at_its_deadline():
    task = task_that_is(Status.RUNNING)
    lifecycle.retry(task.claimed, code=ErrorCode.WORKER_LOST, message="", resolved=Resolved.CLAIM_EXPIRED)
    overdue(task, expires_at=now() - AGO)
    assert sweep.expire_overdue() == 0

    overdue(task)
    assert sweep.expire_overdue() == 1

    assert end_of(task) == ("failed", "deadline_exceeded", "deadline_exceeded")


def test_a_paused_task_expires_as_any():
    task = submit()
    overdue(task, paused_at=now(), expires_at=now() - AGO)

    sweep.expire_overdue()

    assert end_of(task)[:2] == ("failed", "expired")
    assert task.paused_at is None


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
def test_a_task_in_its_time_is_left_alone(status):
    task = task_that_is(status)

    assert sweep.expire_overdue() == 0
    assert lifecycle.expire(task.pk) is False
    assert end_of(task)[0] == status


def test_more_than_a_batch_is_swept_in_one_tick(monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 2)
    of, to = account(), deployment()
    for _ in range(5):
        overdue(submit(of, to))

    assert [sweep.once() for _ in range(2)] == [5, 0]


def test_a_crowd_that_is_to_end_keeps_no_other_duty_waiting(monkeypatch):
    monkeypatch.setattr(sweep, "TURN_SECONDS", 0)
    monkeypatch.setattr(sweep, "TOGETHER", 2)
    of, to = account(), deployment()
    for _ in range(5):
        overdue(submit(of, to))

    assert sorted(sweep.expire_overdue() for _ in range(4)) == [0, 1, 2, 2]


@pytest.fixture
def filled(monkeypatch):
    seen = []
    monkeypatch.setattr(queues, "fill", lambda queue, eligible: seen.append((queue, eligible)))
    return seen


def test_queues_are_topped_up_with_what_is_eligible(filled):
    of, to, other = account("200", running_limit=100), deployment(queue="many"), deployment(queue="few")
    for _ in range(70):
        submit(of, to)
    submit(of, other)
    overdue(submit(of, other), paused_at=now())
    overdue(submit(of, other), blocked=1)
    overdue(submit(of, other), available_at=now() + timedelta(hours=1))
    deployment(queue="empty")

    sweep.top_up_queues()

    assert sorted(filled) == [("few", 1), ("many", queues.WAITING)]


def test_no_message_is_sent_for_what_could_not_be_claimed(filled):
    full, some = account(running_limit=0), account(running_limit=3)
    to, drained = deployment(queue="served"), deployment(queue="drained", drained_at=now())
    for _ in range(5):
        submit(full, to)
        submit(some, to)
        submit(some, drained)
    lifecycle.claim("served", worker="w")

    sweep.top_up_queues()

    assert filled == [("served", 2)]


def test_the_deliverer_is_woken_when_a_callback_is_due(filled):
    task_that_is(Status.SUCCEEDED, callback_url="http://127.0.0.1:9/")
    Callback.objects.update(next_attempt_at=now() - AGO)

    sweep.wake_callbacks()
    Callback.objects.update(next_attempt_at=now() + timedelta(hours=1))
    sweep.wake_callbacks()

    assert filled == [(CALLBACKS_QUEUE, 1)]


def test_a_duty_that_fails_keeps_no_other_from_its_work(monkeypatch, caplog):
    monkeypatch.setattr("tasks.sweep.connection.close", lambda: None)
    task = submit()
    overdue(task)

    def broken():
        raise DatabaseError("broken")

    monkeypatch.setattr(sweep, "DUTIES", (broken, sweep.expire_overdue))

    assert sweep.once() == 1
    assert "broken failed" in caplog.text


class Line:
    """A connection that is there until it is closed."""

    connection = object()

    def close(self):
        self.connection = None


def test_a_duty_that_asks_nothing_ends_no_silence_of_the_database(settings, monkeypatch):
    settings.LEASE_SECONDS = 0.2
    monkeypatch.setattr(sweep, "connection", Line())
    monkeypatch.setattr(sweep, "_be_impatient", lambda: 0)
    monkeypatch.setattr(sweep, "_heard_at", time.monotonic())
    monkeypatch.setattr(sweep, "_back_at", -math.inf)

    def cut_off():
        time.sleep(0.12)
        raise OperationalError("the line is dead")

    def asks_nothing():
        return 0

    monkeypatch.setattr(sweep, "DUTIES", (cut_off, asks_nothing))
    sweep.once()
    assert (time.monotonic() - sweep._heard_at >= 0.12, sweep._back_at) == (True, -math.inf)

    assert sweep._answers()
    assert sweep._back_at == sweep._heard_at


@pytest.fixture
def broken(monkeypatch):
    """Tasks whose end fails, alone as together with others."""
    ids, plain = set(), lifecycle._fail

    def fail(tasks, *args, **kwargs):
        if ids.intersection(task.id for task in tasks):
            raise KeyError("broken")
        plain(tasks, *args, **kwargs)

    monkeypatch.setattr(lifecycle, "_fail", fail)
    monkeypatch.setattr(sweep, "_left_alone", {})
    return ids


def test_a_task_that_cannot_be_swept_keeps_no_other_waiting(broken, caplog):
    tasks = [submit(), submit()]
    broken.add(tasks[0].pk)
    for task in tasks:
        overdue(task)

    assert sweep.expire_overdue() == 1
    assert str(tasks[0].pk) in caplog.text
    assert end_of(tasks[1])[0] == "failed"


def test_batches_of_tasks_that_cannot_be_swept_keep_no_later_one_waiting(broken, monkeypatch):
    monkeypatch.setattr(sweep, "BATCH", 2)
    of, to = account(), deployment()
    tasks = [submit(of, to) for _ in range(5)]
    broken.update(task.pk for task in tasks[:4])
    for after, task in enumerate(tasks):
        overdue(task, deadline=now() - timedelta(minutes=10 - after))

    assert sweep.expire_overdue() == 1

    assert [end_of(task)[0] for task in tasks] == ["queued"] * 4 + ["failed"]
    assert_sound(of)


def test_a_task_that_could_not_be_swept_is_tried_again_less_and_less_often(broken):
    task = submit()
    broken.add(task.pk)
    overdue(task)
    waits = []
    for _ in range(9):
        sweep.expire_overdue()
        waits.append(sweep._left_alone[task.pk][1])
        sweep._left_alone[task.pk] = (time.monotonic(), waits[-1])

    assert sweep._apart() == []
    assert waits == [4, 8, 16, 32, 64, 128, 256, 512, 600]

    broken.clear()
    assert sweep.expire_overdue() == 1


def test_many_that_end_at_once_end_as_one_does():
    to = deployment(max_retries=0)
    told = {"callback_url": "http://127.0.0.1:9/"}
    billing = deployment(max_retries=0, bills_partial_output=True, prices=(("characters", "0.5"),))
    started, lost = (task_that_is(Status.RUNNING, to=to, **told) for _ in range(2))
    streaming = task_that_is(Status.RUNNING, to=billing, input={"bound": {"characters": 4}})
    tried, waiting = task_that_is(Status.RUNNING), submit(account(), to, **told)
    lifecycle.publish(streaming.claimed, text="abc", offset=0, usage={"characters": Decimal(3)})
    for task in (waiting, started, streaming):
        overdue(task)
    for task in (lost, tried):
        lease_over(task)

    assert (sweep.end_lost_leases(), sweep.expire_overdue()) == (2, 3)

    assert end_of(waiting) == ("failed", "expired", "expired")
    assert end_of(started) == end_of(streaming) == ("failed", "deadline_exceeded", "deadline_exceeded")
    assert end_of(lost) == ("failed", "worker_lost", "claim_expired")
    assert (end_of(tried)[0], tried.attempt) == ("queued", 2)
    assert (streaming.output, buckets(streaming.account)["charged"]) == ("abc", Decimal("1.5"))
    for task in (waiting, started, lost):
        body = json.loads(task.callbacks.get().body)
        assert (body["type"], body["data"]["status"]) == ("task.failed", "failed")
    for task in (waiting, started, streaming, lost, tried):
        assert_sound(task.account)


def test_many_end_together_in_few_statements():
    of, to = account("1000", pending_limit=1000), deployment()
    tasks = [submit(of, to) for _ in range(200)]
    Task.objects.update(deadline=now() - timedelta(hours=1))

    with statements() as seen:
        sweep.expire_overdue()

    assert Task.objects.filter(status="failed").count() == len(tasks)
    assert 0 < len(seen) < len(tasks) / 4
    assert_sound(of)


@pytest.mark.parametrize(("moved", "rests"), [(sweep.TOGETHER, 0.05), (sweep.TOGETHER - 1, 1.0)])
def test_where_much_was_to_do_the_next_tick_comes_at_once(monkeypatch, settings, moved, rests):
    settings.SWEEP_SECONDS = 60
    monkeypatch.setattr(sweep, "_back_at", sweep._back_at)
    monkeypatch.setattr(sweep, "once", lambda: moved)
    waited = []

    sweep.for_ever(lambda seconds: waited.append(seconds) or True)

    assert (min(waited) == 0.05) == (rests == 0.05)


def test_the_sweeper_sweeps_until_it_is_stopped(monkeypatch):
    ticks = []
    monkeypatch.setattr(sweep, "_back_at", sweep._back_at)
    monkeypatch.setattr(sweep, "once", lambda: ticks.append(True) or 0)

    sweep.for_ever(lambda seconds: len(ticks) == 3)

    assert len(ticks) == 3


def test_a_sweeper_that_begins_gives_every_lease_its_time(monkeypatch, settings):
    settings.LEASE_SECONDS = 60
    monkeypatch.setattr(sweep, "_back_at", sweep._back_at)
    monkeypatch.setattr(sweep, "once", lambda: 0)
    gave_up = []
    monkeypatch.setattr(sweep, "_all", lambda *args, **kwargs: len(gave_up.append(True) or gave_up))

    sweep.for_ever(lambda seconds: True)
    too_soon = sweep.end_lost_leases()
    monkeypatch.setattr(sweep, "_back_at", sweep._back_at - settings.LEASE_SECONDS)
    later = sweep.end_lost_leases()

    assert (too_soon, later) == (0, 1)


@pytest.mark.django_db(transaction=True)
def test_filling_makes_as_many_wait_as_are_wanted_and_no_more():
    deployment(queue="topped-up")
    queues._client().delete("topped-up")

    depths = []
    for eligible in (3, 3, 5, 1000):
        queues.fill("topped-up", eligible)
        depths.append(queues.depth("topped-up"))
    queues.wake("topped-up")

    assert depths == [3, 3, 5, queues.WAITING]
    assert queues.depth("topped-up") == queues.WAITING
    queues._client().delete("topped-up")
