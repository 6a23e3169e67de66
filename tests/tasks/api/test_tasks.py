"""`/v1/tasks` as its consumers use it."""

import datetime
import threading
from collections import Counter
from uuid import UUID, uuid4

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from billing import statements
from billing.models import Account, ApiKey, Transfer
from tasks import lifecycle, runner
from tasks.api import pagination
from tasks.identifiers import public_id
from tasks.models import Task
from tests import builders
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def consumer():
    return Consumer()


@pytest.fixture
def to():
    return builders.deployment()


def test_a_created_task_is_answered_whole(consumer, to):
    answer = consumer.create(to, metadata={"order": "7"}, client_reference="mine", priority=9)

    assert answer.status_code == 202
    made = answer.json()
    assert (made["status"], made["metadata"], made["client_reference"]) == ("queued", {"order": "7"}, "mine")
    assert made["billing"]["held_credits"] == "1.0000"
    assert answer["Location"] == made["links"]["self"] == f"/v1/tasks/{made['task_id']}"
    assert consumer.get(answer["Location"]).json() == made


def test_a_capability_alone_finds_its_default_model(consumer):
    builders.deployment("the-default", is_default=True)

    answer = consumer.post("/v1/tasks", {"capability": "test.work", "input": {}})

    assert answer.json()["model"] == "the-default"


def test_reading_takes_one_statement_and_tells_the_client_when_to_come_back(consumer, to, monkeypatch):
    path = consumer.create(to)["Location"]
    asked = []
    plain = statements._cursor
    monkeypatch.setattr(statements, "_cursor", lambda: asked.append(1) or plain())

    with CaptureQueriesContext(connection) as queries:
        answer = consumer.get(path)

    assert (len(asked), len(queries)) == (1, 0)
    assert (answer["ETag"], answer["Retry-After"]) == ('"1"', "1")


def test_what_was_seen_is_not_sent_again_until_it_changes(consumer, to):
    path = consumer.create(to)["Location"]
    seen = consumer.get(path)["ETag"]

    again = consumer.get(path, If_None_Match=seen)
    runner.run_next(to.queue)
    changed = consumer.get(path, If_None_Match=seen)

    assert (again.status_code, again.content) == (304, b"")
    assert (changed.status_code, changed.json()["status"]) == (200, "succeeded")
    assert not changed.has_header("Retry-After")


def test_cancel_ends_it_and_repeats_without_effect(consumer, to):
    path = consumer.create(to)["Location"]

    first = consumer.post(f"{path}/cancel", {"reason": "changed my mind"})
    second = consumer.post(f"{path}/cancel")

    assert (first.status_code, first.json()["status"]) == (200, "canceled")
    assert first.json()["cancel_reason"] == "changed my mind"
    assert second.json() == first.json()
    assert builders.buckets(consumer.account)["held"] == 0


def test_a_rerun_is_a_new_task_that_points_back(consumer, to):
    made = consumer.create(to, client_reference="same").json()
    early = consumer.post(f"{made['links']['self']}/rerun")
    runner.run_next(to.queue)

    again = consumer.post(f"{made['links']['self']}/rerun", Idempotency_Key="once")
    replayed = consumer.post(f"{made['links']['self']}/rerun", Idempotency_Key="once")

    assert (early.status_code, early.json()["error"]["code"]) == (409, "task_not_final")
    assert (again.status_code, again.json()["rerun_of"]) == (202, made["task_id"])
    assert again.json()["client_reference"] == "same"
    assert (replayed.status_code, replayed.json()["task_id"]) == (200, again.json()["task_id"])


def test_events_tell_the_story_without_names(consumer, to):
    made = consumer.create(to).json()
    runner.run_next(to.queue)
    task = Task.objects.get()
    lifecycle.refund(task.pk, key="k", reason="a private word", by="operator:alice")

    answer = consumer.get(made["links"]["events"])
    rest = consumer.get(made["links"]["events"] + "?after=2")

    kinds = [(event["type"], event["actor"]) for event in answer.json()["data"]]
    assert kinds == [
        ("task.queued", "api_key"),
        ("task.running", "system"),
        ("task.succeeded", "system"),
        ("task.refunded", "operator"),
    ]
    assert b"private word" not in answer.content
    assert b"alice" not in answer.content
    assert [event["type"] for event in rest.json()["data"]] == ["task.succeeded", "task.refunded"]


class TestList:
    def test_pages_hold_every_task_once_while_new_ones_arrive(self, consumer, to):
        made = [consumer.create(to).json()["task_id"] for _ in range(7)]

        seen, cursor = [], ""
        while cursor is not None:
            page = consumer.get("/v1/tasks?limit=3" + (f"&cursor={cursor}" if cursor else "")).json()
            seen += [task["task_id"] for task in page["data"]]
            cursor = page["next_cursor"]
            consumer.create(to)

        assert seen == made[::-1]
        assert page["has_more"] is False

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_a_page_of_large_tasks_ends_early_and_the_next_goes_on(self, consumer, to, monkeypatch, order):
        monkeypatch.setattr(pagination, "MOST_BYTES", 250_000)
        made = [consumer.create(to, input={"text": "x" * 100_000}).json()["task_id"] for _ in range(5)]
        made += [consumer.create(to).json()["task_id"]]

        pages, cursor = [], ""
        while cursor is not None:
            answer = consumer.get(f"/v1/tasks?expand=all&order={order}" + (f"&cursor={cursor}" if cursor else ""))
            pages.append([task["task_id"] for task in answer.json()["data"]])
            cursor = answer.json()["next_cursor"]
            assert answer.json()["has_more"] is (cursor is not None)
            assert len(answer.content) < 360_000

        assert [task_id for page in pages for task_id in page] == (made if order == "asc" else made[::-1])
        assert [len(page) for page in pages] == ([3, 3] if order == "asc" else [4, 2])

    def test_a_page_holds_a_task_however_large(self, consumer, to, monkeypatch):
        monkeypatch.setattr(pagination, "MOST_BYTES", 1)
        for _ in range(2):
            consumer.create(to)

        first = consumer.get("/v1/tasks").json()
        last = consumer.get(f"/v1/tasks?cursor={first['next_cursor']}").json()

        assert [len(page["data"]) for page in (first, last)] == [1, 1]
        assert [page["has_more"] for page in (first, last)] == [True, False]

    def test_a_page_is_one_statement(self, consumer, to):
        for _ in range(3):
            consumer.create(to)

        with CaptureQueriesContext(connection) as queries:
            consumer.get("/v1/tasks?expand=all&status=queued")

        assert len(queries) == 1

    def test_ids_that_are_none_list_nothing(self, consumer, to):
        consumer.create(to)

        answer = consumer.get("/v1/tasks?id=task_nonsense").json()

        assert answer == {"object": "list", "data": [], "next_cursor": None, "has_more": False}

    @pytest.mark.parametrize("odd", ["", "k" * 256])
    def test_an_id_that_is_none_or_longer_than_any_is_refused(self, consumer, odd):
        answer = consumer.get(f"/v1/tasks?id=task_nonsense,{odd}")

        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "/id")

    def test_ascending_order_runs_the_other_way(self, consumer, to):
        made = [consumer.create(to).json()["task_id"] for _ in range(3)]

        first = consumer.get("/v1/tasks?order=asc&limit=2").json()
        rest = consumer.get(f"/v1/tasks?order=asc&limit=2&cursor={first['next_cursor']}").json()

        assert [task["task_id"] for task in first["data"] + rest["data"]] == made

    def test_filters_narrow_it(self, consumer, to):
        other = builders.deployment("other-model")
        one = consumer.create(to, client_reference="r1").json()
        two = consumer.create(other).json()
        runner.run_next(to.queue)
        before = (timezone.now() - datetime.timedelta(hours=1)).isoformat().replace("+", "%2B")

        def ids(query):
            return {task["task_id"] for task in consumer.get(f"/v1/tasks?{query}").json()["data"]}

        assert ids("status=succeeded") == {one["task_id"]}
        assert ids("status=queued,running") == {two["task_id"]}
        assert ids("status=succeeded,queued") == {one["task_id"], two["task_id"]}
        assert ids("model=other-model") == {two["task_id"]}
        assert ids("capability=test.work") == {one["task_id"], two["task_id"]}
        assert ids("client_reference=r1") == {one["task_id"]}
        assert ids(f"id={two['task_id']},task_nonsense") == {two["task_id"]}
        assert ids(f"created_before={before}") == set()
        assert len(ids(f"created_after={before}")) == 2

    def test_summaries_grow_by_what_is_expanded(self, consumer, to):
        consumer.create(to)

        plain = consumer.get("/v1/tasks").json()["data"][0]
        some = consumer.get("/v1/tasks?expand=usage,billing").json()["data"][0]
        whole = consumer.get("/v1/tasks?expand=all").json()["data"][0]

        assert not {"input", "output", "usage", "billing", "callback"} & plain.keys()
        assert some.keys() - plain.keys() == {"usage", "billing"}
        assert whole == consumer.get(plain["links"]["self"]).json()

    @pytest.mark.parametrize(
        ("query", "param"),
        [
            ("limit=0", "/limit"),
            ("limit=-1", "/limit"),
            ("limit=%D9%A3", "/limit"),
            ("order=up", "/order"),
            ("status=done", "/status"),
            ("created_after=yesterday", "/created_after"),
            ("created_before=2026-01-01T00:00:00", "/created_before"),
            ("expand=secrets", "/expand"),
            ("page=2", "/page"),
            ("model=%00", "/model"),
        ],
    )
    def test_a_parameter_that_makes_no_sense_is_refused(self, consumer, query, param):
        answer = consumer.get(f"/v1/tasks?{query}")

        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == param

    def test_a_cursor_of_other_filters_or_another_account_is_refused(self, consumer, to):
        for _ in range(2):
            consumer.create(to)
        cursor = consumer.get("/v1/tasks?limit=1").json()["next_cursor"]

        answers = [
            consumer.get(f"/v1/tasks?limit=1&status=queued&cursor={cursor}"),
            consumer.get("/v1/tasks?cursor=forged"),
            Consumer().get(f"/v1/tasks?limit=1&cursor={cursor}"),
        ]

        assert {answer.json()["error"]["code"] for answer in answers} == {"invalid_cursor"}

    def test_a_limit_above_the_most_is_the_most(self, consumer):
        assert consumer.get("/v1/tasks?limit=5000").status_code == 200


class TestIdempotency:
    def test_the_same_key_and_body_give_the_same_task(self, consumer, to):
        first = self.create(consumer, to, "k")
        runner.run_next(to.queue)
        second = self.create(consumer, to, "k")

        assert (first.status_code, second.status_code) == (202, 200)
        assert second["Idempotent-Replayed"] == "true"
        assert second.json()["task_id"] == first.json()["task_id"]
        assert second.json()["status"] == "succeeded"
        assert builders.buckets(consumer.account)["charged"] == 1

    def test_another_body_is_a_conflict(self, consumer, to):
        self.create(consumer, to, "k")

        answer = self.create(consumer, to, "k", priority=1)

        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "idempotency_key_reused")

    def test_the_same_body_in_another_order_is_the_same(self, consumer, to):
        texts = [b'{"model": "%s", "input": {}}', b'{"input":{},  "model": "%s"}']

        made = [
            consumer.post("/v1/tasks", text % to.name.encode(), Idempotency_Key="k").json()["task_id"] for text in texts
        ]

        assert made[0] == made[1]

    def test_a_refused_request_binds_nothing(self, to):
        poor = Consumer(builders.account("0"))

        refused = self.create(poor, to, "k")
        builders.ledger.grant(poor.account.pk, builders.Decimal(5), key=str(uuid4()), reason="r", actor="t")
        accepted = self.create(poor, to, "k")

        assert (refused.status_code, accepted.status_code) == (402, 202)

    def test_accounts_do_not_share_keys(self, to):
        answers = [self.create(Consumer(), to, "k") for _ in range(2)]

        assert [answer.status_code for answer in answers] == [202, 202]

    def test_sixteen_posts_with_one_key_make_one_task(self, consumer, to):
        answers, barrier = [], threading.Barrier(16)

        def post():
            barrier.wait()
            answers.append(self.create(consumer, to, "k").status_code)
            connections.close_all()

        threads = [threading.Thread(target=post) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert Counter(answers) == {202: 1, 200: 15}
        assert Task.objects.count() == Transfer.objects.filter(kind="hold").count() == 1

    @pytest.mark.parametrize("key", ["", "k" * 256, "ké", "a\tb"])
    def test_a_key_that_cannot_be_one_is_refused(self, consumer, to, key):
        sent = {"HTTP_IDEMPOTENCY_KEY": key, "HTTP_AUTHORIZATION": f"Bearer {consumer.secret}"}

        answer = consumer.http.post("/v1/tasks", "{}", content_type="application/json", **sent)

        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_header")

    @staticmethod
    def create(consumer, to, key, **fields):
        return consumer.post("/v1/tasks", {"model": to.name, "input": {}, **fields}, Idempotency_Key=key)


class TestPause:
    def test_a_task_is_paused_and_resumed_by_its_owner(self, consumer, to):
        path = consumer.create(to)["Location"]

        paused = consumer.post(f"{path}/pause", {"reason": "not tonight"})
        again = consumer.post(f"{path}/pause")
        asleep = runner.run_next(to.queue)
        resumed = consumer.post(f"{path}/resume")

        assert [answer.status_code for answer in (paused, again, resumed)] == [200, 200, 200]
        assert (paused.json()["status"], resumed.json()["status"], asleep) == ("queued", "queued", False)
        assert paused.json()["paused_at"] == again.json()["paused_at"] is not None
        assert [answer.json()["seq"] for answer in (paused, again, resumed)] == [2, 2, 3]
        assert resumed.json()["paused_at"] is None
        assert runner.run_next(to.queue)
        events = consumer.get(f"{path}/events").json()["data"]
        assert [event["type"] for event in events[1:3]] == ["task.paused", "task.resumed"]
        assert {event["actor"] for event in events[1:3]} == {"api_key"}

    @pytest.mark.parametrize("act", ["pause", "resume"])
    def test_only_a_queued_one_is(self, consumer, to, act):
        path = consumer.create(to)["Location"]
        runner.run_next(to.queue)

        answer = consumer.post(f"{path}/{act}")

        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "task_not_queued")
        assert consumer.post(f"{path}/{act}", {"why": 1}).status_code == 422


class TestIds:
    @pytest.mark.parametrize(
        "task_id", ["task_", "x", "task_" + "z" * 26, "task_" + "0" * 25, "1", "%00", "task_01m8%2F.."]
    )
    def test_an_id_that_cannot_be_one_is_not_found(self, consumer, task_id):
        assert consumer.get(f"/v1/tasks/{task_id}").status_code == 404
        assert consumer.post(f"/v1/tasks/{task_id}/cancel").status_code == 404


class TestKeys:
    @pytest.mark.parametrize("path", ["/v1/tasks", f"/v1/tasks/{public_id(UUID(int=7))}"])
    @pytest.mark.parametrize(
        ("header", "code"),
        [
            (None, "unauthorized"),
            ("Basic abc", "unauthorized"),
            ("Bearer", "unauthorized"),
            ("Bearer cf_live_unknown", "invalid_api_key"),
            ("Bearer cf_live_\x00", "invalid_api_key"),
            ("Bearer é", "invalid_api_key"),
        ],
    )
    def test_no_key_or_a_wrong_one_is_401(self, consumer, path, header, code):
        answer = consumer.http.get(path, **({"HTTP_AUTHORIZATION": header} if header else {}))

        assert (answer.status_code, answer.json()["error"]["code"]) == (401, code)
        assert answer["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize("column", ["revoked_at", "expires_at"])
    def test_a_revoked_or_expired_key_is_401(self, consumer, to, column):
        path = consumer.create(to)["Location"]

        ApiKey.objects.filter(pk=consumer.api_key.pk).update(**{column: timezone.now()})

        for answer in (consumer.get(path), consumer.get("/v1/tasks"), consumer.create(to)):
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")

    def test_a_disabled_account_is_403_and_its_tasks_run_on(self, consumer, to):
        path = consumer.create(to)["Location"]
        Account.objects.filter(pk=consumer.account.pk).update(is_active=False)

        answers = [consumer.get(path), consumer.get("/v1/tasks"), consumer.create(to)]
        runner.run_next(to.queue)

        assert {(a.status_code, a.json()["error"]["code"]) for a in answers} == {(403, "account_disabled")}
        assert Task.objects.get().status == "succeeded"

    def test_a_key_does_what_its_scopes_say(self, to):
        account = builders.account()
        reader, writer = Consumer(account, scopes=["tasks:read"]), Consumer(account, scopes=["tasks:write"])

        made = writer.create(to)

        assert made.status_code == 202
        assert reader.get(made["Location"]).status_code == reader.get("/v1/tasks").status_code == 200
        for answer in (
            reader.create(to),
            reader.post(made["Location"] + "/cancel"),
            reader.post(made["Location"] + "/pause"),
            writer.get(made["Location"]),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
