"""Content that is deleted is gone wherever it was, and only content is."""

import json
import threading
from contextlib import closing

import pytest
from django.core.files.storage import storages
from django.db import connection, connections

from billing import audit
from billing.models import Transfer
from tasks import artifacts, callbacks, lifecycle, runner
from tasks.models import Artifact, Callback, CallbackAttempt, Run, Task, TaskEvent
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)

WORD = "rumpelstilzchen"
KEPT = ("status", "billing", "usage", "created_at", "started_at", "completed_at", "metadata", "progress", "error")


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def to():
    return builders.deployment(prices=(("task", "1"), ("characters", "2", 1000)))


def finished(consumer, to, **fields):
    """A task whose content, the same word, is in every place that content can be in."""
    work = {"text": WORD, "output": {"said": WORD}, "files": {"notes.txt": WORD}, "usage": {"characters": 500}}
    made = consumer.create(to, input=work, callback={"url": "http://127.0.0.1:9/"}, **fields).json()
    runner.run_next(to.queue)
    return made["links"]["self"]


def everywhere():
    """All that the tables of tasks hold, as text."""
    tables = [model._meta.db_table for model in (Task, Run, TaskEvent, Callback, CallbackAttempt)]
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT t::text FROM {table} t" for table in tables))
        return "\n".join(row for (row,) in cursor.fetchall())


def test_the_word_is_nowhere_any_more_and_everything_else_stays(consumer, to):
    path = finished(consumer, to)
    before, written = consumer.get(path).json(), everywhere()

    answer = consumer.call("DELETE", f"{path}/content")

    after = answer.json()
    assert answer.status_code == 200
    assert written.count(WORD) >= 4
    assert WORD not in everywhere()
    assert (after["input"], after["output"], after["artifacts"]) == ({}, None, [])
    assert after["content_deleted_at"] is not None
    assert after["seq"] > before["seq"]
    assert {name: after[name] for name in KEPT} == {name: before[name] for name in KEPT}
    assert (before["links"]["rerun"], after["links"]["rerun"]) == (f"{path}/rerun", None)
    assert audit.run().broken == []


def test_the_file_is_given_to_nobody_and_goes_with_the_next_sweep(consumer, to):
    path = finished(consumer, to)
    link = consumer.get(f"{path}/artifacts/notes.txt")["Location"]
    key = Artifact.objects.get().key
    with closing(consumer.get(link)) as given:
        assert b"".join(given.streaming_content) == WORD.encode()

    consumer.call("DELETE", f"{path}/content")

    for answer in (consumer.get(link), consumer.get(f"{path}/artifacts/notes.txt")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "gone")
    assert storages["artifacts"].exists(key)
    assert artifacts.delete_expired(10) == 1
    assert not storages["artifacts"].exists(key)


def test_a_callback_that_nobody_heard_ends_and_says_why(consumer, to):
    path = finished(consumer, to)

    answer = consumer.call("DELETE", f"{path}/content").json()

    owed = Callback.objects.get()
    assert (owed.status, owed.body, owed.last_error, owed.next_attempt_at) == ("failed", "", "content_deleted", None)
    assert (answer["callback"]["status"], answer["callback"]["last_error"]) == ("failed", "content_deleted")
    events = consumer.get(f"{path}/events").json()["data"][-2:]
    assert [(event["type"], event["actor"]) for event in events] == [
        ("task.content_deleted", "api_key"),
        ("callback.failed", "system"),
    ]
    assert events[-1]["data"] == {"attempt_count": 0, "error": "content_deleted"}
    again = consumer.post(f"{path}/callback/redeliver")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "not_found")


def test_a_callback_that_was_delivered_stays_so_without_its_body(consumer, to):
    path = finished(consumer, to)
    Callback.objects.update(status="delivered", next_attempt_at=None, attempt_count=1)

    consumer.call("DELETE", f"{path}/content")

    owed = Callback.objects.get()
    assert (owed.status, owed.body, owed.last_error) == ("delivered", "", None)
    assert not TaskEvent.objects.filter(type="callback.failed").exists()


def test_again_changes_nothing(consumer, to):
    path = finished(consumer, to)

    first, second = (consumer.call("DELETE", f"{path}/content") for _ in range(2))

    assert (second.status_code, second.json()) == (200, first.json())
    assert TaskEvent.objects.filter(type="task.content_deleted").count() == 1


@pytest.mark.parametrize("how", ["queued", "running"])
def test_a_task_that_has_not_ended_keeps_it(consumer, to, how):
    path = consumer.create(to, input={"text": WORD}).json()["links"]["self"]
    if how == "running":
        lifecycle.claim(to.queue, worker="w")

    answer = consumer.call("DELETE", f"{path}/content")

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "task_not_final")
    assert consumer.get(path).json()["input"] == {"text": WORD}


def test_a_reader_may_not(consumer, to):
    path = finished(consumer, to)

    answer = Consumer(consumer.account, scopes=["tasks:read", "billing:read"]).call("DELETE", f"{path}/content")

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
    assert WORD in everywhere()


def test_what_is_gone_cannot_run_again_but_a_rerun_that_was_made_is_found(consumer, to):
    path = finished(consumer, to)
    made = consumer.post(f"{path}/rerun", Idempotency_Key="k").json()
    runner.run_next(to.queue)
    consumer.call("DELETE", f"{path}/content")
    holds = Transfer.objects.filter(kind="hold").count()

    answers = [consumer.post(f"{path}/rerun"), consumer.post(f"{path}/rerun", Idempotency_Key="other")]
    repeated = consumer.post(f"{path}/rerun", Idempotency_Key="k")

    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(410, "gone")] * 2
    assert (repeated.status_code, repeated.json()["task_id"]) == (200, made["task_id"])
    assert repeated.json()["input"]["text"] == WORD
    assert Transfer.objects.filter(kind="hold").count() == holds


def test_deletions_and_redeliveries_at_once_leave_no_callback_without_a_body_owed(consumer, to):
    path, answers = finished(consumer, to), []
    calls = [("DELETE", "content"), ("POST", "callback/redeliver")] * 3
    barrier = threading.Barrier(len(calls))

    def call(method, tail):
        barrier.wait()
        answers.append(consumer.call(method, f"{path}/{tail}").status_code)
        connections.close_all()

    threads = [threading.Thread(target=call, args=args) for args in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert set(answers) <= {200, 202, 404}
    assert list(Callback.objects.values_list("status", "body")) == [("failed", "")]
    assert WORD not in everywhere()
    assert json.loads(consumer.get(path).content)["callback"]["status"] == "failed"


def test_a_delivery_under_way_changes_nothing_any_more(consumer, to):
    path = finished(consumer, to)
    Callback.objects.update(lease_token="0190163d-8694-739b-aea5-966c26f8ad90")

    consumer.call("DELETE", f"{path}/content")

    assert Callback.objects.get().lease_token is None
    with pytest.raises(callbacks.NoCallback):
        callbacks.redeliver(Task.objects.get().pk, by="test")
