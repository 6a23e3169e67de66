"""Work of real prefork workers is stopped when its task has ended; its worker goes on."""

import time
from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils.timezone import now

from tasks import lifecycle
from tasks.models import Task
from tests.builders import account, assert_sound, buckets, deployment, submit
from tests.faults.processes import HASTE, alive, ended, kill_group, runs, until
from tests.receiver import RawServer

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE = "stop"
HEARTBEAT, GRACE = float(HASTE["HEARTBEAT_SECONDS"]), float(HASTE["INTERRUPT_GRACE_SECONDS"])
# Two heartbeats, and what a machine of two busy cores may add.
SOON = 2 * HEARTBEAT + 1


@pytest.fixture(scope="module", autouse=True)
def worker(crew):
    return crew.worker(QUEUE)


@pytest.fixture
def to():
    return deployment(queue=QUEUE, max_retries=0)


def work(how, witness, **more):
    return {"how": how, "seconds": 60, "witness": str(witness), **more}


def seconds_until_the_next_is_served(to):
    """A task that waits behind the stopped one shows when the worker is free."""
    started = time.monotonic()
    assert ended(submit(to=to)).status == "succeeded"
    return time.monotonic() - started


YIELDING = ["sleep", "busy", "read", "query", "wait", "clean_up", "collect"]


@pytest.mark.parametrize("how", YIELDING)
def test_cancel_stops_the_work_and_its_process_serves_the_next_task(how, witness, to):
    task = submit(to=to, input=work(how, witness))
    (child,) = until(witness.pids)

    lifecycle.cancel(task.pk, by="operator:ann", reason="enough")

    assert seconds_until_the_next_is_served(to) < SOON
    ended(submit(to=to, input=work("return", witness, seconds=0)))
    assert witness.pids() == [child, child]
    assert runs(task) == [("exception", "canceled")]
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}


@pytest.mark.parametrize("how", ["swallow", "digest"])
def test_work_that_does_not_yield_ends_with_its_process(how, witness, to):
    task = submit(to=to, input=work(how, witness))
    (child,) = until(witness.pids)

    lifecycle.cancel(task.pk, by="operator:ann")

    until(lambda: not alive(child), within=GRACE + SOON)
    ended(submit(to=to, input=work("return", witness, seconds=0)))
    assert witness.pids()[1] != child
    assert_sound(task.account)


def test_work_that_does_not_yield_to_its_timeout_ends_as_timed_out(witness, to):
    task = submit(to=to, timeout=1, input=work("swallow", witness))
    (child,) = until(witness.pids)

    task = ended(task, within=1 + GRACE + SOON)

    assert (task.status, task.error["code"], task.attempt) == ("failed", "timeout", 1)
    until(lambda: not alive(child))
    assert_sound(task.account)


def test_a_thread_that_the_work_has_left_behind_writes_nothing_and_ends_with_its_process(witness, to, crew):
    task = submit(to=to, input=work("spawn", witness))
    (child,) = until(witness.pids)
    until(lambda: task.runs.get().partial_text)

    lifecycle.cancel(task.pk, by="operator:ann")
    task.refresh_from_db()
    said = (task.progress, task.seq, task.runs.get().partial_text)

    until(lambda: "the thread was told LeaseLost" in crew.said())
    until(lambda: not alive(child), within=GRACE + SOON)
    task.refresh_from_db()
    assert (task.progress, task.seq, task.runs.get().partial_text) == said
    sweeper = crew.sweeper()  # a message that the ended process had taken is made up for
    assert ended(submit(to=to)).status == "succeeded"
    kill_group(sweeper)
    assert_sound(task.account)


def test_work_that_lets_no_other_thread_run_is_ended_by_the_kernel(crew, witness, to):
    crew.sweeper()
    task = submit(to=to, timeout=1, input=work("hog", witness))
    (child,) = until(witness.pids)

    task = ended(task, within=20)

    assert (task.status, task.error["code"]) == ("failed", "worker_lost")
    until(lambda: not alive(child), within=10)
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}


def test_a_run_that_takes_too_long_times_out(witness, to):
    task = submit(to=to, timeout=1, input=work("sleep", witness))
    until(witness.pids)

    task = ended(task, within=1 + SOON)

    assert (task.status, task.error["code"]) == ("failed", "timeout")
    assert runs(task) == [("failed", "timeout")]
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}


def test_a_run_ends_at_the_deadline(witness, to):
    task = submit(to=to, deadline=now() + timedelta(seconds=1), input=work("busy", witness))

    task = ended(task, within=1 + SOON)

    assert (task.status, task.error["code"]) == ("failed", "deadline_exceeded")
    assert task.completed_at - task.deadline < timedelta(seconds=SOON)
    assert runs(task) == [("exception", "deadline_exceeded")]


def test_cancel_stops_a_worker_that_waits_for_a_silent_server(to):
    fetching = deployment(queue=QUEUE, capability="image.transform", prices=[("task", "1")], max_retries=0)
    with RawServer(b"HTTP/1.1 200 OK\r\n") as url:
        task = submit(to=fetching, input={"image_url": url})
        until(lambda: Task.objects.get(pk=task.pk).progress["stage"] == "reading")

        lifecycle.cancel(task.pk, by="api_key:test")

        assert seconds_until_the_next_is_served(to) < SOON
    assert runs(task) == [("exception", "canceled")]


def test_what_was_streamed_until_the_cancel_is_charged_where_the_quote_says_so(witness):
    of = account()
    to = deployment(queue=QUEUE, prices=[("characters", "0.5"), ("task", "2")], bills_partial_output=True)
    usage = {"bound": {"characters": 8}, "usage": {"characters": 3}, "text": "abc"}
    task = submit(of, to, input=work("sleep", witness, **usage))
    until(lambda: task.runs.get().partial_text)

    lifecycle.cancel(task.pk, by="api_key:test")
    task.refresh_from_db()

    assert (task.output, task.usage) == ("abc", {"characters": "3"})
    assert buckets(of) == {"available": Decimal("8.5"), "held": 0, "charged": Decimal("1.5")}
    assert seconds_until_the_next_is_served(to) < SOON
    assert_sound(of)


def test_a_crash_leaves_the_worker_to_the_next_task(witness, to):
    ends = ["KeyboardInterrupt", "SystemExit", "ten thousand levels", "an error that quits when it is printed"]
    tasks = [ended(submit(to=to, input=work("odd", witness, output=odd))) for odd in ends]
    tasks.append(ended(submit(to=to, input=work("crash", witness))))

    ended(submit(to=to, input=work("return", witness, seconds=0)))

    assert {(task.status, task.error["code"], task.attempt) for task in tasks} == {("failed", "capability_error", 1)}
    assert len(set(witness.pids())) == 1
