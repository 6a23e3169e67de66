"""`Prefer: wait=N`, and streams that hear at once: acts of others, in threads and transactions of their own."""

import shutil
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from django.db import connection
from psycopg.sql import SQL, Identifier

from tasks import lifecycle, queues, runner, wire
from tasks.api import hub as hubs
from tasks.api.hub import hub
from tasks.identifiers import parse_id, public_id
from tasks.models import Task
from tests.builders import claim, deployment, submit
from tests.faults.engines import Broker
from tests.faults.processes import until
from tests.tasks.api.client import Consumer
from tests.tasks.api.sse import parse, text_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def to():
    return deployment()


@pytest.fixture
def meanwhile():
    """Does an act in a thread of its own; `meanwhile(act)` gives its future."""
    with ThreadPoolExecutor(4) as pool:

        def begin(act):
            def closing():
                try:
                    return act(), time.monotonic()
                finally:
                    connection.close()

            return pool.submit(closing)

        yield begin


def waiting_for(task_id):
    """Wait until somebody waits for the task."""
    until(lambda: task_id.hex in hub._watches)


def test_a_wait_ends_with_the_task(consumer, to, meanwhile):
    path = consumer.create(to)["Location"]

    answer = meanwhile(lambda: consumer.get(path, Prefer="wait=30"))
    waiting_for(parse_id(path[10:]))
    claimed = lifecycle.claim(to.queue, worker="test")
    lifecycle.progress(claimed, percent=50, stage=None, message=None)
    assert not answer.done()
    lifecycle.succeed(claimed, output="done", usage={}, warnings=[])
    ended = time.monotonic()

    answer, at = answer.result(10)
    assert at - ended < 0.9
    assert (answer.json()["status"], answer["Preference-Applied"]) == ("succeeded", "wait=30")
    assert not answer.has_header("Retry-After")


def test_a_wait_with_what_was_seen_ends_with_the_first_change(consumer, to, meanwhile):
    path = consumer.create(to)["Location"]

    answer = meanwhile(lambda: consumer.get(path, Prefer="wait=30", If_None_Match='"1"'))
    waiting_for(parse_id(path[10:]))
    lifecycle.claim(to.queue, worker="test")

    answer, _ = answer.result(10)
    assert (answer.status_code, answer.json()["status"], answer["ETag"]) == (200, "running", '"2"')
    assert (answer["Preference-Applied"], answer["Retry-After"]) == ("wait=30", "1")


def test_a_wait_that_is_over_answers_with_the_task_as_it_is(consumer, to):
    path = consumer.create(to)["Location"]

    began = time.monotonic()
    unchanged = consumer.get(path, Prefer="wait=1", If_None_Match='"1"')
    took = time.monotonic() - began

    assert 1 <= took < 2.5
    assert (unchanged.status_code, unchanged["ETag"], unchanged["Preference-Applied"]) == (304, '"1"', "wait=1")


def test_nobody_waits_for_what_has_happened(consumer, to):
    path = consumer.create(to)["Location"]
    changed = consumer.get(path, Prefer="wait=30", If_None_Match='"7"')
    runner.run_next(to.queue)
    final = consumer.get(path, Prefer="wait=30", If_None_Match=consumer.get(path)["ETag"])

    assert (changed.status_code, changed.json()["seq"]) == (200, 1)
    assert (final.status_code, final["Preference-Applied"]) == (304, "wait=30")


def test_a_submission_that_waits_is_answered_202_with_the_end(consumer, to, meanwhile):
    body = {"model": to.name, "input": {"output": 42}}
    wait = {"Prefer": "wait=30", "Idempotency_Key": "k"}

    made = meanwhile(lambda: consumer.call("POST", "/v1/tasks", body, **wait))
    waiting_for(until(Task.objects.first).pk)
    runner.run_next(to.queue)

    made, _ = made.result(10)
    again = consumer.call("POST", "/v1/tasks", body, **wait)
    assert (made.status_code, made.json()["output"], made["Preference-Applied"]) == (202, 42, "wait=30")
    assert (again.status_code, again.json(), again["Idempotent-Replayed"]) == (200, made.json(), "true")


def test_who_waits_holds_no_connection(consumer, to, meanwhile):
    tasks = [submit(consumer.account, to) for _ in range(3)]
    before = connections()

    answers = [meanwhile(lambda t=t: consumer.get(f"/v1/tasks/{public_id(t.pk)}", Prefer="wait=30")) for t in tasks]
    for task in tasks:
        waiting_for(task.pk)
    until(lambda: connections() == before)
    for task in tasks:
        lifecycle.cancel(task.pk, by="test")

    assert [answer.result(10)[0].json()["status"] for answer in answers] == ["canceled"] * 3


def connections():
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return cursor.fetchone()[0]


# Streams.


class Told:
    """What a stream has said so far, while a thread goes on reading it."""

    def __init__(self, consumer, task):
        answer = consumer.get(f"/v1/tasks/{public_id(task.pk)}/events", Accept="text/event-stream")
        self.events, self.chunks = [], answer.streaming_content
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        until(lambda: self.events)

    def _read(self):
        try:
            for chunk in self.chunks:
                self.events += parse(chunk)
        finally:
            connection.close()

    def hears(self, kind):
        until(lambda: [event for event in self.events if event.type == kind])

    def rest(self):
        self.thread.join(10)
        return self.events


def live(consumer, to):
    """Follow a task through its life; how long each of its changes took to be told."""
    task, took = submit(consumer.account, to), {}
    told = Told(consumer, task)

    def timed(kind, act):
        began = time.monotonic()
        done = act()
        told.hears(kind)
        took[kind] = time.monotonic() - began
        return done

    claimed = timed("task.running", lambda: claim(task))
    timed("output.delta", lambda: lifecycle.publish(claimed, text="one ", offset=0, usage={}))
    lifecycle.publish(claimed, text="two", offset=4, usage={})
    until(lambda: text_of(told.events) == "one two")
    timed("task.succeeded", lambda: lifecycle.succeed(claimed, output=None, usage={}, warnings=[]))
    assert [event.id for event in told.rest() if event.id] == [1, 1, 2, 3]
    assert not told.thread.is_alive()
    return took


def test_a_stream_hears_at_once(consumer, to):
    assert max(live(consumer, to).values()) < 0.9


def test_a_lost_wake_up_costs_a_second_and_no_event(consumer, to, monkeypatch):
    monkeypatch.setattr(queues, "publish", lambda *_: None)

    assert max(live(consumer, to).values()) < 2


@pytest.fixture
def broker(settings, monkeypatch):
    """A broker of the test's own, which a new hub listens to."""
    monkeypatch.setattr(hubs, "ALONE_SECONDS", 0)
    until(lambda: hub._thread is None)
    broker = Broker(Path(tempfile.mkdtemp(prefix="counterfoil-broker-")))
    broker.start()
    settings.REDIS_URL = broker.url
    queues._client.cache_clear()
    yield broker
    broker.kill()
    shutil.rmtree(broker.folder)
    queues._client.cache_clear()
    queues._left_alone_until = 0


def test_streams_go_on_while_the_broker_is_frozen_and_hear_at_once_when_another_runs(consumer, to, broker):
    assert max(live(consumer, to).values()) < 0.9
    broker.signal(signal.SIGSTOP)
    assert max(live(consumer, to).values()) < 2
    stays = Told(consumer, submit(consumer.account, deployment(queue="elsewhere")))
    broker.kill()
    broker.start()
    until(lambda: listeners(broker) and time.monotonic() > queues._left_alone_until)

    assert max(live(consumer, to).values()) < 0.9
    lifecycle.cancel(Task.objects.get(status="queued").pk, by="test")
    stays.rest()


def listeners(broker):
    with redis.from_url(broker.url) as client:
        return dict(client.pubsub_numsub(wire.CHANNEL))[wire.CHANNEL.encode()]


def test_a_key_that_is_revoked_ends_its_streams_within_seconds(consumer, to):
    told = Told(consumer, submit(consumer.account, to))
    other = Told(Consumer(consumer.account), Task.objects.get())

    consumer.api_key.revoked_at = Task.objects.get().created_at
    consumer.api_key.save()
    told.thread.join(3)

    assert not told.thread.is_alive()
    assert other.thread.is_alive()
    lifecycle.cancel(Task.objects.get().pk, by="test")
    assert other.rest()[-1].type == "task.canceled"


def test_an_account_that_is_disabled_ends_its_streams(consumer, to):
    told = Told(consumer, submit(consumer.account, to))

    type(consumer.account).objects.update(is_active=False)
    told.thread.join(3)

    assert not told.thread.is_alive()


@contextmanager
def no_new_connections():
    """Let nobody connect to the database but us, who are."""
    connection.ensure_connection()
    at = connection.settings_dict
    where = {"host": at["HOST"], "port": at["PORT"] or None, "user": at["USER"], "password": at["PASSWORD"] or None}
    with psycopg.connect(dbname="postgres", autocommit=True, **where) as beside:
        allow = SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        beside.execute(allow.format(Identifier(at["NAME"]), SQL("false")))
        try:
            yield
        finally:
            beside.execute(allow.format(Identifier(at["NAME"]), SQL("true")))


def test_a_stream_outlives_the_database(consumer, to, caplog):
    task = submit(consumer.account, to)
    told = Told(consumer, task)

    with no_new_connections():
        claim(task)
        until(lambda: "a stream goes on when it is back" in caplog.text)
        until(lambda: "watched tasks were not looked at" in caplog.text)
    told.hears("task.running")
    lifecycle.cancel(task.pk, by="test")

    assert [event.type for event in told.rest()] == ["task.queued", "task.progress", "task.running", "task.canceled"]
