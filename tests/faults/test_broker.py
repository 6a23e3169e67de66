"""The broker dies, freezes and comes back; the rows wait for it."""

import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
import redis
from kombu import pools

from config import embedded
from tasks import queues
from tests.builders import account, deployment, submit
from tests.faults.engines import Broker, Line
from tests.faults.processes import Crew, ended, runs, until
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broker(settings):
    folder = Path(tempfile.mkdtemp(prefix="counterfoil-broker-"))
    broker = Broker(folder)
    settings.REDIS_URL, settings.CELERY_BROKER_URL = broker.url, embedded.broker_url(broker.url)
    queues._client.cache_clear()
    queues._connection.cache_clear()
    queues._left_alone_until = 0
    yield broker
    queues._client().close()
    pools.reset()
    queues._client.cache_clear()
    queues._connection.cache_clear()
    broker.kill()
    shutil.rmtree(folder)


@pytest.fixture
def crew(broker, tmp_path):
    hired = Crew(tmp_path, REDIS_URL=broker.url)
    yield hired
    hired.dismiss()


def timed(act):
    started = time.monotonic()
    return act(), time.monotonic() - started


def test_a_task_submitted_to_a_dead_broker_runs_when_it_is_back(broker, crew):
    of, to = account(), deployment()
    sweeper = crew.sweeper()

    task, took = timed(lambda: submit(of, to))
    until(lambda: "wake-up not sent" in crew.said())
    broker.start()
    crew.worker("default")

    assert took < 1
    assert ended(task).status == "succeeded"
    assert sweeper.poll() is None


def test_a_frozen_broker_costs_a_submission_less_than_a_second(broker, crew):
    broker.start()
    of, to = account(), deployment()
    submit(of, to)
    broker.signal(signal.SIGSTOP)

    task, took = timed(lambda: submit(of, to))
    broker.signal(signal.SIGCONT)
    crew.worker("default")
    crew.sweeper()

    assert took < 1
    assert ended(task).status == "succeeded"


def test_a_consumer_gets_202_within_a_second_whatever_the_broker_does(broker):
    consumer, to = Consumer(), deployment()

    dead, dead_took = timed(lambda: consumer.create(to))
    broker.start()
    broker.signal(signal.SIGSTOP)
    frozen, frozen_took = timed(lambda: consumer.create(to))
    broker.signal(signal.SIGCONT)

    assert (dead.status_code, frozen.status_code) == (202, 202)
    assert max(dead_took, frozen_took) < 1


def test_workers_and_sweeper_outlive_the_broker(broker, crew):
    of, to = account(), deployment()
    broker.start()
    worker, sweeper = crew.worker("default"), crew.sweeper()
    ended(submit(of, to))

    broker.kill()
    task = submit(of, to)
    until(lambda: "wake-up not sent" in crew.said())
    broker.start()

    assert ended(task).status == "succeeded"
    assert worker.poll() is None
    assert sweeper.poll() is None


def sleepers(count, *, seconds):
    of, to = account("100"), deployment()
    return [submit(of, to, input={"how": "sleep", "seconds": seconds}) for _ in range(count)]


def test_tasks_run_whose_messages_are_gone_with_all_else_at_the_broker(broker, crew):
    broker.start()
    tasks = sleepers(5, seconds=0)
    crew.worker("default")
    with redis.from_url(broker.url) as client:
        client.flushall()
    waiting = sleepers(5, seconds=0)
    with redis.from_url(broker.url) as client:
        client.flushall()

    crew.sweeper()

    assert {ended(task).status for task in tasks + waiting} == {"succeeded"}
    assert {ended(task).attempt for task in tasks + waiting} == {1}


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.chaos)])
def test_work_goes_on_while_the_broker_is_frozen_and_the_next_begins_when_it_is_not(broker, crew, seconds):
    broker.start()
    worker, sweeper = crew.worker("default", children=2), crew.sweeper()
    under_way = sleepers(2, seconds=seconds / 2)
    until(lambda: all(runs(task) and task.runs.get().status == "running" for task in under_way))
    broker.signal(signal.SIGSTOP)

    task = submit()
    assert {ended(each, within=seconds).status for each in under_way} == {"succeeded"}
    time.sleep(seconds / 2)
    broker.signal(signal.SIGCONT)

    assert {ended(each, within=15).attempt for each in [*under_way, task]} == {1}
    assert (worker.poll(), sweeper.poll()) == (None, None)


@pytest.mark.chaos
def test_a_worker_whose_connection_fell_silent_takes_a_new_one(broker, crew, tmp_path):
    broker.start()
    crew.sweeper()
    (tmp_path / "behind").mkdir()
    with Line(broker.folder / "line.sock", broker.socket) as line:
        behind = Crew(tmp_path / "behind", REDIS_URL=f"unix://{line.here}?db=0")
        worker = behind.worker("default")
        ended(submit())
        line.swallow()

        try:
            task = ended(submit(), within=60)
        finally:
            behind.dismiss()
            print(behind.said())

    assert (task.status, task.attempt) == ("succeeded", 1)
    assert worker.returncode == -signal.SIGKILL
