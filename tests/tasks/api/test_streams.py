"""A task's events as a stream: what it says, from where, and to whom."""

import time
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
import redis
from django.conf import settings as configured
from django.db import connection
from django.utils.timezone import now

from tasks import lifecycle, queues, wire
from tasks.api import hub as hubs
from tasks.api import places as counted
from tasks.api.hub import hub
from tasks.api.places import Places
from tasks.api.streaming import Stream
from tasks.identifiers import public_id
from tasks.models import Run, Task
from tasks.statuses import ErrorCode, Resolved
from tests.builders import account, claim, deployment, submit, task_that_is
from tests.tasks.api.client import Consumer
from tests.tasks.api.sse import parse, rows, text_of

pytestmark = pytest.mark.django_db

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture(autouse=True)
def _in_one_transaction(monkeypatch):
    """The end of a stream, which is the end of its request, leaves the test its connection; no stream is left."""
    monkeypatch.setattr(connection, "close_if_unusable_or_obsolete", lambda: None)
    yield
    assert hub._watches == {}


@pytest.fixture
def consumer():
    return Consumer()


def path_of(task):
    return f"/v1/tasks/{public_id(task.pk)}/events"


def ask(consumer, task, *, after=0, **headers):
    return consumer.get(f"{path_of(task)}?after={after}", **STREAM, **headers)


def first(answer):
    """The first chunk of a stream, which is closed then."""
    assert answer.status_code == 200, answer.content
    chunk = next(iter(answer.streaming_content))
    answer.close()
    return chunk


def told(consumer, task, **of):
    """What a client is told at once."""
    return parse(first(ask(consumer, task, **of)))


def publish(claimed, text, offset=0):
    lifecycle.publish(claimed, text=text, offset=offset, usage={})


def progress(claimed, percent):
    lifecycle.progress(claimed, percent=percent, stage="half", message=None)


def test_the_bytes_of_a_stream(consumer):
    task = submit(consumer.account)
    publish(claim(task), 'a "line"\n\nand another\r')
    when = {event.seq: event.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for event in task.events.all()}

    answer = ask(consumer, task)

    assert (answer["Content-Type"], answer["Cache-Control"], answer["X-Accel-Buffering"]) == (
        "text/event-stream",
        "no-store",
        "no",
    )
    *before, progress, end = first(answer).decode().split("\n\n")
    queued = (
        "id: 1\nevent: task.queued\n"
        f'data: {{"seq":1,"type":"task.queued","created_at":"{when[1]}","data":{{"held_credits": "1.0000"}}}}'
    )
    running = (
        "id: 2\nevent: task.running\n"
        f'data: {{"seq":2,"type":"task.running","created_at":"{when[2]}","data":{{"attempt": 1}}}}'
    )
    text = 'event: output.text\ndata: {"attempt": 1, "offset": 0, "text": "a \\"line\\"\\n\\nand another\\r"}'
    assert before == [queued, running, text]
    assert progress.startswith('id: 2\nevent: task.progress\ndata: {"seq":2,"type":"task.progress","created_at":"')
    assert '"data":{"status":"running","attempt":1,"percent":null,"stage":null,"message":null}}' in progress
    assert end == ""


def a_life(consumer):
    """A rerun that is retried, with text and progress in both attempts, refunded at last: the task, after each step."""
    to = deployment(max_retries=1)
    old = submit(consumer.account, to)
    lifecycle.cancel(old.pk, by="test")
    made = lifecycle.rerun(old.pk, account_id=consumer.account.pk, api_key_id=None, actor="test")
    task = Task.objects.get(pk=made.task_id)
    yield task
    claimed = claim(task)
    yield task
    publish(claimed, "lost")
    progress(claimed, 50)
    yield task
    lifecycle.retry(claimed, code=ErrorCode.WORKER_LOST, message="", resolved=Resolved.CLAIM_EXPIRED)
    yield task
    Task.objects.filter(pk=task.pk).update(available_at=task.created_at)
    claimed = claim(task)
    progress(claimed, 10)
    yield task
    publish(claimed, "Grüße, ")
    yield task
    publish(claimed, "𝄞 world", 7)
    progress(claimed, 90)
    yield task
    lifecycle.succeed(claimed, output="done", usage={}, warnings=[])
    yield task
    lifecycle.refund(task.pk, Decimal("0.1"), key=str(uuid4()), reason="sorry", by="operator:ann")
    yield task


def test_whoever_comes_back_at_any_moment_with_any_seq_is_told_what_is_left(consumer):
    for task in a_life(consumer):
        task.refresh_from_db()
        whole, run = rows(told(consumer, task)), Run.objects.get(task=task, number=task.attempt)
        assert whole == list(task.events.order_by("seq").values_list("seq", "type"))

        for seen in range(whole[-1][0] + (not task.completed_at)):
            events = told(consumer, task, Last_Event_ID=str(seen))

            assert rows(events) == [row for row in whole if row[0] > seen]
            ended = task.completed_at and seen >= 8
            assert text_of(events) == ("" if ended else run.partial_text)
            present = [(e.id, e.data["data"]["percent"]) for e in events if e.type == "task.progress"]
            assert present == ([] if task.completed_at else [(task.seq, task.progress["percent"])])

    assert run.partial_text == "Grüße, 𝄞 world"
    assert task.seq == 9


def test_an_end_comes_after_the_text_that_it_ends(consumer):
    task = submit(consumer.account)
    claimed = claim(task)
    publish(claimed, "all of it")
    lifecycle.succeed(claimed, output=None, usage={}, warnings=[])

    assert [e.type for e in told(consumer, task)] == ["task.queued", "task.running", "output.text", "task.succeeded"]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_whole_text_comes_before_the_end_and_none_after_it_however_pages_fall(consumer, monkeypatch, size):
    monkeypatch.setattr("tasks.api.streaming.MOST_EVENTS", size)
    *_, task = a_life(consumer)

    for seen in range(9):
        answer = ask(consumer, task, after=seen)
        events = parse(b"".join(answer.streaming_content))
        answer.close()

        end = next((place for place, event in enumerate(events) if event.type == "task.succeeded"), 0)
        assert rows(events) == list(task.events.filter(seq__gt=seen).order_by("seq").values_list("seq", "type"))
        assert text_of(events[:end]) == ("Grüße, 𝄞 world" if seen < 8 else "")
        assert text_of(events[end:]) == ""


def test_who_has_been_told_the_end_need_not_come_back(consumer):
    task = submit(consumer.account)
    lifecycle.cancel(task.pk, by="test")

    for seen in (2, 3, 10**18 - 1):
        assert ask(consumer, task, after=seen).status_code == 204


def test_a_long_timeline_is_told_in_pieces(consumer, monkeypatch):
    monkeypatch.setattr("tasks.api.streaming.MOST_EVENTS", 2)
    *_, task = a_life(consumer)

    answer = ask(consumer, task)
    events = parse(b"".join(answer.streaming_content))
    answer.close()

    assert rows(events) == list(task.events.order_by("seq").values_list("seq", "type"))


def test_what_operators_wrote_stays_with_them(consumer):
    *_, task = a_life(consumer)

    assert "sorry" not in first(ask(consumer, task)).decode()
    assert "ann" not in first(ask(consumer, task)).decode()


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "application/*, text/html"])
def test_who_does_not_ask_for_a_stream_gets_a_page(consumer, accept):
    answer = consumer.get(path_of(submit(consumer.account)), Accept=accept)

    assert (answer.status_code, answer["Content-Type"]) == (200, "application/json")
    assert answer.json()["data"][0]["type"] == "task.queued"


def test_what_nobody_speaks_is_not_acceptable(consumer):
    task = submit(consumer.account)

    answers = [
        consumer.get(path_of(task), Accept="text/html"),
        consumer.get(f"/v1/tasks/{public_id(task.pk)}", **STREAM),
    ]

    assert [(a.status_code, a["Content-Type"], a.json()["error"]["code"]) for a in answers] == [
        (406, "application/json", "not_acceptable")
    ] * 2


def test_anothers_task_is_as_unknown_as_one_that_never_was(consumer):
    *answers, unscoped, unknown = (
        ask(consumer, submit(account())),
        ask(consumer, Task(pk=uuid4())),
        ask(Consumer(consumer.account, scopes=["tasks:write"]), submit(consumer.account)),
        consumer.get("/v1/tasks/task_x/events", **STREAM),
    )

    bodies = [answer.json()["error"] | {"request_id": None} for answer in [*answers, unknown]]
    assert bodies[0] == bodies[1] == bodies[2]
    assert {answer.status_code for answer in [*answers, unknown]} == {404}
    assert (unscoped.status_code, unscoped["Content-Type"]) == (403, "application/json")
    assert places_taken(consumer) == 0


@pytest.mark.parametrize("seen", ["-1", "1.0", "x", "9" * 19, "\u0661"])
def test_a_seq_that_is_none_is_refused(consumer, seen):
    task = submit(consumer.account)

    by_parameter = consumer.get(f"{path_of(task)}?after={seen}", **STREAM)
    by_header = consumer.get(path_of(task), **STREAM, Last_Event_ID=seen)

    assert (by_parameter.status_code, by_parameter.json()["error"]["param"]) == (422, "/after")
    assert (by_header.status_code, by_header.json()["error"]["code"]) == (400, "invalid_header")


def test_a_head_request_opens_nothing(consumer):
    answer = consumer.call("HEAD", path_of(submit(consumer.account)), **STREAM)

    assert (answer.status_code, answer["Content-Type"], answer.content) == (200, "text/event-stream", b"")
    assert places_taken(consumer) == 0


def test_a_stream_ends_after_its_time_with_a_hint_to_come_back(consumer, settings):
    settings.STREAM_HEARTBEAT_SECONDS, settings.STREAM_SECONDS = 0.05, 0.2
    answer = ask(consumer, submit(consumer.account))

    _, *beats, last = answer.streaming_content

    assert set(beats) == {b": still here\n\n"}
    assert len(beats) >= 2
    assert last.startswith(b"retry: ")
    assert 500 <= int(last.split()[1]) <= 3000


def test_text_that_was_said_while_a_slow_client_read_comes_from_the_row(consumer):
    task = submit(consumer.account)
    claimed = claim(task)
    stream = Stream(task.pk, consumer.api_key.pk, after=0)
    next(stream)

    for word in range(1000):
        offset = 5 * word
        publish(claimed, f"{word:04} ", offset)
        hub._tell(task.pk.hex, wire.Delta(1, offset, f"{word:04} "))
    waiting = len(stream._watch._deltas)
    (event,) = parse(next(stream))
    stream.close()

    assert waiting == hubs.DELTAS
    assert (event.type, event.data["offset"], len(event.data["text"])) == ("output.delta", 0, 5000)


def test_text_that_is_said_again_or_in_part_is_told_once(consumer):
    task = submit(consumer.account)
    claimed = claim(task)
    publish(claimed, "one two")
    stream = Stream(task.pk, consumer.api_key.pk, after=0)
    events = parse(next(stream))

    for delta in (wire.Delta(1, 0, "one "), wire.Delta(1, 4, "two three"), wire.Delta(1, 13, " four")):
        hub._tell(task.pk.hex, delta)
    events += parse(next(stream))
    stream.close()

    assert text_of(events) == "one two three four"


def test_a_message_says_whom_it_is_about_and_no_long_text(monkeypatch):
    said, task_id = [], uuid4()
    monkeypatch.setattr(queues, "publish", lambda _, message: said.append(message))
    monkeypatch.setattr(wire.transaction, "on_commit", lambda tell, **_: tell())

    wire.look_on_commit(task_id)
    wire.say_on_commit(task_id, attempt=2, offset=7, text="ü\n")
    wire.say_on_commit(task_id, attempt=2, offset=9, text="x" * (wire.MAX_TEXT + 1))

    assert [wire.heard(message.encode()) for message in said] == [
        (task_id.hex, None),
        (task_id.hex, wire.Delta(2, 7, "ü\n")),
        (task_id.hex, None),
    ]


# Places.


def places_taken(consumer):
    with redis.from_url(configured.REDIS_URL) as broker:
        return broker.zcard(counted._name(consumer.api_key.pk))


def is_refused(answer):
    error = answer.json()["error"]
    assert (error["code"], error["retryable"], answer["Retry-After"]) == ("unavailable", True, "5")
    return answer.status_code == 503


def test_a_process_carries_so_many_streams_and_answers_polls_besides(consumer, settings):
    settings.WEB_STREAMS = 1
    task, other = submit(consumer.account), Consumer()
    open_one = ask(consumer, task)

    assert is_refused(ask(other, submit(other.account)))
    assert is_refused(consumer.get(f"/v1/tasks/{public_id(task.pk)}", Prefer="wait=5"))
    assert consumer.get(f"/v1/tasks/{public_id(task.pk)}").status_code == 200
    created = consumer.create(deployment())
    assert consumer.call("POST", "/v1/tasks", {"model": task.model, "input": {}}, Prefer="wait=5").status_code == 202
    assert created.status_code == 202

    open_one.close()
    first(ask(other, submit(other.account)))


def test_a_stream_that_is_closed_before_it_began_gives_its_place_back(consumer, settings):
    settings.WEB_STREAMS = settings.KEY_STREAMS = 1
    task = submit(consumer.account)

    for _ in range(3):
        answer = ask(consumer, task)
        assert answer.status_code == 200
        answer.close()

    assert places_taken(consumer) == 0
    assert hub._watches == {}


def test_a_key_has_so_many_places_over_all_processes(consumer, settings):
    settings.KEY_STREAMS = 2
    task, of_another_process = submit(consumer.account), Places()

    with of_another_process.taken(consumer.api_key.pk):
        one = ask(consumer, task)
        assert one.status_code == 200
        assert is_refused(ask(consumer, task))
        assert places_taken(consumer) == 2
        first(ask(Consumer(consumer.account), task))
    first(ask(consumer, task))
    one.close()


def test_places_of_a_process_that_was_killed_fall_free(consumer, settings):
    settings.KEY_STREAMS = 1
    task, name = submit(consumer.account), counted._name(consumer.api_key.pk)
    with redis.from_url(settings.REDIS_URL) as broker:
        broker.zadd(name, {"of a dead process": time.time() + 5})
        assert is_refused(ask(consumer, task))
        broker.zadd(name, {"of a dead process": time.time() - 1})

    first(ask(consumer, task))


def test_a_place_that_is_held_is_renewed(consumer):
    held = Places()
    with redis.from_url(configured.REDIS_URL) as broker, held.taken(consumer.api_key.pk):
        name = counted._name(consumer.api_key.pk)
        (place,) = broker.zrange(name, 0, -1)
        broker.zadd(name, {place: time.time() - 1})

        held.renew()

        assert broker.zscore(name, place) > time.time() + counted.LEASE_SECONDS - 5


def test_a_place_that_is_left_while_it_is_renewed_is_free(consumer, monkeypatch):
    held, name = Places(), counted._name(consumer.api_key.pk)
    place = held._take(consumer.api_key.pk)
    with redis.from_url(configured.REDIS_URL) as broker:
        held._leave(consumer.api_key.pk, place)

        held._renew(broker, consumer.api_key.pk, [place])

        assert broker.zcard(name) == 0


@pytest.fixture
def no_broker(settings):
    settings.REDIS_URL = "unix:///nonexistent/valkey.sock"
    queues._client.cache_clear()
    queues._left_alone_until = 0
    yield
    queues._client.cache_clear()
    queues._left_alone_until = 0


@pytest.mark.usefixtures("no_broker")
def test_without_the_broker_a_process_counts_alone(consumer, settings):
    settings.KEY_STREAMS = 1
    task = submit(consumer.account)
    one = ask(consumer, task)

    assert is_refused(ask(consumer, task))

    one.close()
    first(ask(consumer, task))


# When to come back.


def come_back(consumer, task, **fields):
    Task.objects.filter(pk=task.pk).update(**fields)
    return consumer.get(f"/v1/tasks/{public_id(task.pk)}").get("Retry-After")


@pytest.mark.parametrize(("ahead", "seconds"), [(-600, "30"), (-50, "5"), (0, "1"), (0.5, "1"), (7, "7"), (3600, "30")])
def test_a_queued_task_says_when_it_may_start_or_a_tenth_of_its_wait(consumer, ahead, seconds):
    at = Task.objects.get(pk=(task := submit(consumer.account)).pk).created_at

    assert come_back(consumer, task, available_at=at + timedelta(seconds=ahead)) == seconds


def test_a_paused_task_is_looked_at_seldom(consumer):
    assert come_back(consumer, submit(consumer.account), paused_at=now()) == "30"


@pytest.mark.parametrize(("percent", "seconds"), [(50, "20"), (80, "5"), (100, "1"), (1, "30"), (None, "2")])
def test_a_running_task_says_what_its_progress_promises(consumer, percent, seconds):
    task = submit(consumer.account)
    claim(task)
    started = now() - timedelta(seconds=20) + timedelta(seconds=0.5)
    Run.objects.filter(task=task).update(started_at=started)

    shown = {"percent": percent, "stage": None, "message": None}
    assert come_back(consumer, task, progress=shown, started_at=started) == seconds


def test_a_task_that_has_ended_says_no_more(consumer):
    assert come_back(consumer, task_that_is("succeeded", of=consumer.account)) is None
