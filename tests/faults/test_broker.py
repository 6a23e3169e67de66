"""The broker dies, freezes and comes back; the rows wait for it."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis
from kombu import pools

from config import embedded, engines_valkey
from tasks import queues
from tests.builders import account, deployment, submit
from tests.faults.processes import Crew, ended, until
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)


class Broker:
    """A Valkey of the test's own, on a socket."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket, self.process = folder, folder / "valkey.sock", None
        self.url = f"unix://{self.socket}?db=0"

    def start(self) -> None:
        words = ["--port", "0", "--unixsocket", self.socket, "--dir", self.folder, "--appendonly", "yes", "--save", ""]
        log = subprocess.DEVNULL
        self.process = subprocess.Popen([engines_valkey._program(), *words], stdout=log, stderr=log)
        until(self.answers)

    def answers(self) -> bool:
        with redis.from_url(self.url) as client:
            try:
                return client.ping()
            except redis.RedisError:
                return False

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)


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
