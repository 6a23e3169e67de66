"""The rate of a key: so many requests a minute and not one more, whoever counts, and none held back when nobody can."""

import threading
from collections import Counter
from uuid import uuid4

import pytest
import redis
from django.conf import settings
from django.db import connections

from tasks import lifecycle, runner
from tasks.api import preference, rates
from tasks.identifiers import public_id
from tests import builders
from tests.config.running import free_port
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def to():
    return builders.deployment()


def consumer_of(limit, **key):
    return Consumer(builders.account("100", requests_per_minute=limit), **key)


def standing(answer):
    return [int(answer[f"RateLimit-{name}"]) for name in ("Limit", "Remaining")]


def test_every_answer_to_a_key_says_where_it_stands_and_the_last_is_refused(to):
    consumer = consumer_of(4, scopes=["tasks:read"])

    answers = [consumer.get("/v1/tasks"), consumer.get("/v1/tasks?limit=0"), consumer.create(to)]
    answers += [consumer.get("/v1/tasks/task_nonsense"), consumer.get("/v1/tasks"), consumer.get("/v1/tasks/x")]

    assert [answer.status_code for answer in answers] == [200, 422, 403, 404, 429, 429]
    assert [standing(answer) for answer in answers] == [[4, 3], [4, 2], [4, 1], [4, 0], [4, 0], [4, 0]]
    for answer in answers[4:]:
        assert (answer.json()["error"]["code"], answer.json()["error"]["retryable"]) == ("rate_limited", True)
        assert 30 <= int(answer["Retry-After"]) == int(answer["RateLimit-Reset"]) <= 60


def test_what_has_not_changed_costs_nothing_and_comes_through_over_the_limit(to):
    consumer = consumer_of(3)
    path = consumer.create(to)["Location"]

    polls = [consumer.get(path, If_None_Match='"1"') for _ in range(5)]
    reads = [consumer.get(path) for _ in range(3)]
    over = consumer.get(path, If_None_Match='"1"')
    runner.run_next(to.queue)
    changed = consumer.get(path, If_None_Match='"1"')

    assert [(poll.status_code, standing(poll)) for poll in polls] == [(304, [3, 2])] * 5
    assert [read.status_code for read in reads] == [200, 200, 429]
    assert (over.status_code, standing(over)) == (304, [3, 0])
    assert changed.status_code == 429


def test_a_stream_costs_nothing_and_says_where_the_key_stands(to):
    consumer = consumer_of(2)
    path = consumer.create(to)["Location"]
    runner.run_next(to.queue)

    streams = [consumer.get(f"{path}/events", Accept="text/event-stream") for _ in range(3)]

    for stream in streams:
        stream.close()
    assert [(stream.status_code, standing(stream)) for stream in streams] == [(200, [2, 1])] * 3


@pytest.mark.parametrize(
    ("method", "where", "scopes", "status"),
    [
        ("GET", "/v1/tasks/task_nope/events", None, 404),
        ("GET", "{path}/events?after=x", None, 422),
        ("GET", "{path}/events?after=2", None, 204),
        ("GET", "{path}/events", ["billing:read"], 403),
        ("HEAD", "{path}/events", None, 200),
        ("POST", "{path}/events", None, 405),
    ],
)
def test_who_asks_for_a_stream_and_gets_none_is_counted(to, method, where, scopes, status):
    consumer = consumer_of(2, **({"scopes": scopes} if scopes else {}))
    task = builders.submit(consumer.account, to)
    lifecycle.cancel(task.pk, by="test")
    path = where.format(path=f"/v1/tasks/{public_id(task.pk)}")

    answers = [consumer.call(method, path, Accept="text/event-stream") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [status, status, 429]
    assert [standing(answer) for answer in answers] == [[2, 1], [2, 0], [2, 0]]
    assert answers[-1]["Content-Type"] == "application/json"


def test_no_place_for_a_stream_is_counted_and_over_the_limit_a_stream_still_opens(to, settings):
    consumer = consumer_of(2)
    path = consumer.create(to)["Location"] + "/events"
    settings.KEY_STREAMS = 0
    full = consumer.get(path, Accept="text/event-stream")
    settings.KEY_STREAMS = 1

    opened = consumer.get(path, Accept="text/event-stream")

    opened.close()
    assert (full.status_code, standing(full)) == (503, [2, 0])
    assert (opened.status_code, standing(opened)) == (200, [2, 0])


def test_a_refusal_in_the_last_moment_of_a_minute_says_to_wait_a_second(monkeypatch):
    monkeypatch.setattr(rates, "_script", lambda: lambda **_: (0, 5, 0))

    answer = consumer_of(5).get("/v1/tasks")

    assert (answer.status_code, answer["Retry-After"], answer["RateLimit-Reset"]) == (429, "1", "1")


def test_a_wait_that_ends_with_news_costs_one_request_and_is_answered_over_the_limit(to, monkeypatch):
    consumer = consumer_of(3)
    paths = [consumer.create(to)["Location"] for _ in range(2)]
    monkeypatch.setattr(preference, "until_final", lambda *_, **__: runner.run_next(to.queue))

    waits = [consumer.get(path, If_None_Match='"1"', Prefer="wait=5") for path in paths]

    assert [(wait.status_code, standing(wait)) for wait in waits] == [(200, [3, 0])] * 2


def test_keys_do_not_use_up_each_others_requests():
    one = consumer_of(1)
    other = Consumer(one.account)

    assert [of.get("/v1/tasks").status_code for of in (one, other, one, other)] == [200, 200, 429, 429]


def test_sixteen_at_once_never_pass_more_than_the_limit():
    consumer, answers, barrier = consumer_of(20), [], threading.Barrier(16)

    def ask():
        barrier.wait()
        answers.extend(consumer.get("/v1/tasks").status_code for _ in range(3))
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Counter(answers) == {200: 20, 429: 28}


def test_the_next_minute_begins_when_this_one_is_over():
    key = uuid4()
    passed = [rates.count(key, 1).passed for _ in range(2)]
    with redis.from_url(settings.REDIS_URL) as valkey:
        assert 30_000 < valkey.pttl(f"rate:{key}") <= 60_000

        valkey.pexpire(f"rate:{key}", 1)
        later = rates.count(key, 1)
        while not later.passed:
            later = rates.count(key, 1)

    assert passed == [True, False]
    assert (later.remaining, later.reset) == (0, 60)


def test_a_count_that_lost_its_end_gets_one():
    key = uuid4()
    with redis.from_url(settings.REDIS_URL) as valkey:
        valkey.set(f"rate:{key}", 7)

        assert rates.look(key, 5) == rates.Rate(limit=5, remaining=0, reset=60, passed=True)
        assert valkey.pttl(f"rate:{key}") > 0


@pytest.fixture
def _no_valkey(settings, monkeypatch):
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    rates._script.cache_clear()
    monkeypatch.setattr(rates, "_left_alone_until", 0.0)
    yield
    rates._script.cache_clear()


@pytest.mark.usefixtures("_no_valkey")
def test_without_valkey_requests_pass_and_are_not_held_up():
    consumer = consumer_of(1)

    answers = [consumer.get("/v1/tasks") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert not any(answer.has_header("RateLimit-Limit") for answer in answers)
