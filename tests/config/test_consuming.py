"""A worker of `up` that lives and takes no messages is woken or replaced; one that is busy, idle or cut off is not."""

import os
import shutil
import signal
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery

from config import embedded, worker
from tasks import queues
from tests.config.running import Up, ask, living, remove

WATCHDOG = 2
TIMES = {
    "WATCHDOG_SECONDS": str(WATCHDOG),
    "SWEEP_SECONDS": "0.2",
    "LEASE_SECONDS": "2",
    "HEARTBEAT_SECONDS": "0.3",
    "RETRY_BACKOFF_SECONDS": "0.1",
    "STOP_SECONDS": "1",
}
SUBMIT = """
from tests.builders import account, deployment, submit
from tasks.models import Deployment
to = Deployment.objects.filter(name="some-work").first() or deployment("some-work", queue="some-work")
answer = [str(submit(account(), to, input={input!r}).pk) for _ in range({number})]
"""
ENDS = """
import time
from tasks.models import Task
ends = time.monotonic() + 40
while (left := Task.objects.filter(pk__in={tasks!r}, completed_at=None)).exists() and time.monotonic() < ends:
    time.sleep(0.1)
answer = sorted([t.status, t.attempt] for t in Task.objects.filter(pk__in={tasks!r}))
"""
CLUSTER = """
from config import embedded
answer = str(embedded.layout().cluster)
"""
WORKER, CHILD = r"counterfoil: worker-\d+", r"counterfoil: worker-\d+ process"


@pytest.fixture(scope="module")
def folder():
    path = Path(tempfile.mkdtemp(prefix="cf-up-"))
    yield path
    remove(path / "data")
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def up(folder):
    """An `up` whose worker has taken its first task."""
    running = Up(folder / "data", "--workers", "1", **TIMES)
    try:
        running.ready()
        ended(running, submit(running))
        yield running
    finally:
        print("\n".join(running.lines))
        running.finish()


def submit(up, number=1, **input):
    return ask(up.data, SUBMIT.format(input=input, number=number))


def ended(up, tasks):
    """Status and attempt of each, when all have ended."""
    return ask(up.data, ENDS.format(tasks=tasks))


def control(up, command, **arguments):
    """Tell all workers by Celery's remote control."""
    with Celery(broker=embedded.broker_url(f"unix://{up.data}/run/valkey.sock?db=0")) as app:
        app.control.broadcast(command, arguments=arguments)


def said(up, words):
    return [line for line in up.lines if words in line]


def test_a_worker_that_is_stopped_is_replaced(up):
    worker = up.child(WORKER)
    os.kill(worker, signal.SIGSTOP)

    tasks = submit(up)

    assert [status for status, _ in ended(up, tasks)] == ["succeeded"]
    assert not living([worker])
    assert said(up, "has been silent for")


@pytest.mark.chaos
def test_a_worker_whose_processes_hang_gives_way_to_another(up):
    worker, child = up.child(WORKER), up.child(CHILD)
    os.kill(child, signal.SIGSTOP)

    tasks = submit(up)

    assert [status for status, _ in ended(up, tasks)] == ["succeeded"]
    assert not living([worker, child])
    assert said(up, "gives way to another")


def test_a_worker_that_was_told_to_serve_a_queue_no_more_serves_it_again(up):
    worker = up.child(WORKER)
    control(up, "cancel_consumer", queue="some-work")

    tasks = submit(up)

    assert ended(up, tasks) == [["succeeded", 1]]
    assert up.child(WORKER) == worker


def test_a_worker_that_hears_nothing_of_the_broker_takes_a_new_connection(up):
    worker = up.child(WORKER)
    control(up, "forget_the_broker")

    tasks = submit(up)

    assert ended(up, tasks) == [["succeeded", 1]]
    assert said(up, "takes a new connection")
    assert up.child(WORKER) == worker


def test_a_database_that_keeps_the_look_for_queues_waiting_does_not_keep_the_event_loop(monkeypatch):
    answers, served, every = threading.Event(), [], []
    monkeypatch.setattr(queues, "in_use", lambda: answers.wait(30) and ["found"])
    monkeypatch.setattr(worker, "FIRST_LOOK_SECONDS", 0)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 3600)
    timer = SimpleNamespace(call_repeatedly=lambda seconds, act, args: every.append(partial(act, *args)))
    consumer = SimpleNamespace(add_task_queue=served.append, timer=timer)

    step = worker.FollowDeployments(consumer, all_queues=True)
    step.start(consumer)
    every[0]()
    before = list(served)
    answers.set()
    step.looked.wait(30)
    every[0]()

    assert (before, served) == ([], ["found"])


@pytest.mark.chaos
def test_a_worker_whose_database_keeps_it_waiting_is_left_alone(up):
    worker = up.child(WORKER)
    postmaster = int(Path(ask(up.data, CLUSTER), "postmaster.pid").read_text().split()[0])

    os.kill(postmaster, signal.SIGSTOP)
    time.sleep(3.5 * WATCHDOG)
    os.kill(postmaster, signal.SIGCONT)

    assert ended(up, submit(up)) == [["succeeded", 1]]
    assert up.child(WORKER) == worker


@pytest.mark.chaos
def test_a_worker_is_left_alone_while_it_is_busy_idle_without_a_broker_or_not_listened_to(up):
    family = {up.child(WORKER), up.child(r"counterfoil: callbacks-\d+")}
    tasks = submit(up, 2, how="busy", seconds=2 * WATCHDOG)
    broker = int((up.data / "valkey" / "valkey.pid").read_text())

    over = ended(up, tasks)
    time.sleep(1.5 * WATCHDOG)
    for pid in (broker, up.process.pid):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(3 * WATCHDOG)
        os.kill(pid, signal.SIGCONT)

    assert over == [["succeeded", 1]] * 2
    assert ended(up, submit(up)) == [["succeeded", 1]]
    assert living(family) == family
