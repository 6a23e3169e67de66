"""Webhook endpoints: who is told of what, beside the task's own URL, and nothing after a deletion."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.utils.timezone import now

from billing import audit, ledger
from billing.credentials import decrypt
from billing.models import Account
from billing.twins import twin_of
from tasks import callbacks, delivery, endpoints, lifecycle, runner
from tasks.callbacks import sign_standard
from tasks.exceptions import EndpointExists, TooManyEndpoints
from tasks.models import Callback, Task, TaskEvent, WebhookEndpoint
from tasks.statuses import Status
from tests.billing.builders import at_once
from tests.builders import account, claim, deployment, refused, submit, task_that_is
from tests.receiver import Receiver
from tests.tasks.api.client import Consumer

pytestmark = pytest.mark.django_db(transaction=True)
WHERE = "http://127.0.0.1:9/hook"
ENDS = ["task.succeeded", "task.failed", "task.canceled"]


def endpoint(of, *events, url=WHERE):
    return endpoints.add(of.pk, url=url, events=list(events or ENDS))


def told(to=None):
    """What the endpoints are owed: event, status and the endpoint of each callback, oldest first."""
    found = Callback.objects.filter(endpoint__isnull=False, **({"endpoint": to} if to else {})).order_by("pk")
    return [(callback.event, callback.status) for callback in found]


def body(callback):
    return json.loads(callback.body)


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_an_end_is_owed_to_each_endpoint_that_asks_for_it_beside_the_tasks_own_url(end):
    mine = account()
    others = [event for event in ENDS if event != f"task.{end}"]
    asks, does_not = endpoint(mine), endpoint(mine, *others, url=WHERE + "2")
    endpoint(account(), url=WHERE)

    task = task_that_is(end, of=mine, callback_url=WHERE)

    own, its = Callback.objects.get(endpoint=None), Callback.objects.get(endpoint=asks)
    assert (told(asks), told(does_not), Callback.objects.count()) == ([(f"task.{end}", "pending")], [], 2)
    assert body(own) == body(its)
    assert (body(its)["data"]["status"], its.task_id, its.account_id) == (end, task.pk, mine.pk)
    assert audit.run().holds


def test_an_end_without_endpoints_or_a_url_owes_nothing():
    task_that_is(Status.SUCCEEDED)

    assert not Callback.objects.exists()


def test_a_delivery_to_an_endpoint_leaves_the_task_as_it_is():
    mine = account()
    with Receiver([500, 200]) as receiver:
        asks = endpoint(mine, url=receiver.url)
        task = task_that_is(Status.SUCCEEDED, of=mine)
        delivery.deliver_due()
        assert Callback.objects.get().attempt_count == 1
        Callback.objects.update(next_attempt_at="2020-01-01T00:00:00Z")

        delivery.deliver_due()

    after = Task.objects.get(pk=task.pk)
    assert told(asks) == [("task.succeeded", "delivered")]
    assert after.seq == task.seq
    assert not TaskEvent.objects.filter(task=task, type__startswith="callback.").exists()
    assert Callback.objects.get().attempts.count() == 2
    assert audit.run().holds
    sent = receiver.requests[-1]
    callback = Callback.objects.get()
    expected = sign_standard(
        callback.pk, sent.body, [decrypt(mine.callback_secret)], int(sent.headers["webhook-timestamp"])
    )
    assert sent.headers["webhook-signature"] == expected["webhook-signature"]


def test_the_task_shows_its_own_url_whatever_becomes_of_the_endpoints():
    consumer = Consumer()
    to = deployment()
    with Receiver([200]) as good, Receiver([410]) as bad:
        endpoint(consumer.account, url=bad.url)
        path = consumer.create(to, callback={"url": good.url})["Location"]
        runner.run_next(to.queue)

        delivery.deliver_due()

    shown = consumer.get(path).json()["callback"]
    assert (shown["url"], shown["status"], shown["attempt_count"]) == (good.url, "delivered", 1)
    assert told() == [("task.succeeded", "failed")]
    assert [e.type for e in TaskEvent.objects.order_by("pk")][-1] == "callback.delivered"
    assert audit.run().holds


def test_a_refund_is_told_to_endpoints_and_not_to_the_tasks_own_url():
    mine = account()
    asks = endpoint(mine, "task.refunded")
    task = task_that_is(Status.SUCCEEDED, of=mine, callback_url=WHERE)

    lifecycle.refund(task.pk, Decimal("0.4"), key="r", reason="sorry", by="operator:ann")
    lifecycle.refund(task.pk, Decimal("0.4"), key="r", reason="sorry", by="operator:ann")

    owed = Callback.objects.get(endpoint=asks)
    assert Callback.objects.count() == 2
    assert body(owed)["type"] == "task.refunded"
    assert body(owed)["data"]["billing"]["refunded_credits"] == "0.4000"
    assert audit.run().holds


def test_a_low_balance_is_told_once_until_it_has_risen():
    mine = account("10", low_balance_threshold=5)
    asks = endpoint(mine, "account.balance_low")
    to = deployment(prices=[("task", "3")])

    first, _, _ = [submit(mine, to) for _ in range(3)]
    assert told(asks) == [("account.balance_low", "pending")]
    ledger.grant(mine.pk, Decimal(10), key="g", reason="r", actor="test")
    assert len(told(asks)) == 1
    [submit(mine, to) for _ in range(3)]

    assert len(told(asks)) == 2
    said = body(Callback.objects.order_by("pk").first())
    assert (said["type"], said["data"]["available_credits"]) == ("account.balance_low", "4.0000")
    assert set(said["data"]) == set(Consumer(mine).get("/v1/account").json())
    assert Callback.objects.first().pk.version == 7
    assert first.callbacks.count() == 0
    assert audit.run().holds


def test_holds_and_releases_about_the_threshold_tell_a_low_balance_once():
    mine = account("10")
    Account.objects.filter(pk=mine.pk).update(low_balance_threshold=Decimal("9.5"))
    asks, to = endpoint(mine, "account.balance_low"), deployment()

    for _ in range(4):
        lifecycle.cancel(submit(mine, to).pk, by="test")

    assert told(asks) == [("account.balance_low", "pending")]
    assert audit.run().holds


def test_a_large_hold_taken_again_and_again_tells_a_low_balance_once_an_hour_or_after_a_grant():
    mine = account("100")
    Account.objects.filter(pk=mine.pk).update(low_balance_threshold=20)
    asks, to = endpoint(mine, "account.balance_low"), deployment(prices=[("task", "90")])

    def fall_and_rise():
        lifecycle.cancel(submit(mine, to).pk, by="test")
        return len(told(asks))

    assert [fall_and_rise() for _ in range(3)] == [1, 1, 1]
    Callback.objects.update(created_at=now() - timedelta(minutes=59))
    assert fall_and_rise() == 1
    Callback.objects.update(created_at=now() - timedelta(minutes=61))
    assert [fall_and_rise() for _ in range(2)] == [2, 2]
    ledger.grant(mine.pk, Decimal(1), key="g", reason="r", actor="test")
    assert [fall_and_rise() for _ in range(2)] == [3, 3]
    assert Account.objects.get(pk=mine.pk).low_since is None
    assert audit.run().holds
    Callback.objects.update(body="", status="failed", next_attempt_at=None)
    assert fall_and_rise() == 4


@pytest.mark.parametrize(
    ("event", "scopes", "missing"),
    [
        ("task.succeeded", ["tasks:write", "billing:read"], "tasks:read"),
        ("task.refunded", ["tasks:write"], "tasks:read"),
        ("account.balance_low", ["tasks:write", "tasks:read"], "billing:read"),
    ],
)
def test_a_key_has_nothing_told_that_it_may_not_read(event, scopes, missing):
    consumer = Consumer(scopes=scopes)
    wanted = {"url": WHERE, "events": [event]}

    refusal = consumer.post("/v1/webhook_endpoints", wanted)
    made = Consumer(consumer.account, scopes=["tasks:write", missing]).post("/v1/webhook_endpoints", wanted)

    error = refusal.json()["error"]
    assert (refusal.status_code, error["code"]) == (403, "insufficient_scope")
    assert missing in error["message"]
    assert made.status_code == 201
    assert WebhookEndpoint.objects.count() == 1


def test_a_low_balance_is_delivered_as_any_event():
    mine = account("10", low_balance_threshold=50)
    with Receiver([500, 200]) as receiver:
        asks = endpoint(mine, "account.balance_low", url=receiver.url)
        ledger.grant(mine.pk, Decimal(100), key="g", reason="r", actor="test")
        ledger.adjust(mine.pk, Decimal(-100), key="a", reason="r", actor="test")
        delivery.deliver_due()
        Callback.objects.update(next_attempt_at="2020-01-01T00:00:00Z")
        delivery.deliver_due()

    assert told(asks) == [("account.balance_low", "delivered")]
    assert json.loads(receiver.requests[0].body)["data"]["object"] == "account"
    assert receiver.requests[0].body == receiver.requests[1].body
    assert audit.run().holds


def test_sixteen_threads_that_make_a_balance_low_tell_it_once():
    mine = account("100", low_balance_threshold=90, pending_limit=100)
    asks = endpoint(mine, "account.balance_low")
    to = deployment(prices=[("task", "2")])

    at_once(16, lambda n: submit(mine, to).pk)

    assert told(asks) == [("account.balance_low", "pending")]


def test_what_a_refused_hold_would_have_told_is_not_told():
    mine = account("10", low_balance_threshold=5, monthly_cap=1)
    endpoint(mine, "account.balance_low")

    Consumer(mine).create(deployment(prices=[("task", "9")]))

    assert told() == []
    assert Account.objects.get(pk=mine.pk).low_since is None


def test_a_deleted_endpoint_gets_nothing_new_and_what_it_was_owed_ends():
    mine = account()
    gone = endpoint(mine)
    task_that_is(Status.SUCCEEDED, of=mine)

    endpoints.delete(mine.pk, gone.pk)
    task_that_is(Status.SUCCEEDED, of=mine)

    owed = Callback.objects.get()
    assert (owed.status, owed.last_error, owed.next_attempt_at) == ("failed", "endpoint_deleted", None)
    assert list(endpoints.of(mine.pk)) == []
    assert callbacks.redeliver_many(Callback.objects.all(), since=owed.created_at, by="operator:ann") == 0
    assert audit.run().holds


def test_a_delivery_under_way_to_a_deleted_endpoint_changes_nothing_more():
    mine = account()
    with Receiver([200], on_request=lambda _: _delete_beside(mine)) as receiver:
        endpoint(mine, url=receiver.url)
        task_that_is(Status.SUCCEEDED, of=mine)

        delivery.deliver_due()

    owed = Callback.objects.get()
    assert (owed.status, owed.last_error, owed.attempts.count()) == ("failed", "endpoint_deleted", 1)


def _delete_beside(mine):
    try:
        endpoints.delete(mine.pk, WebhookEndpoint.objects.get().pk)
    finally:
        connection.close()


def test_nothing_stays_owed_however_a_deletion_meets_the_ends_of_tasks():
    mine = account("100", running_limit=100)
    to = deployment()
    for round_ in range(4):
        gone = endpoint(mine, url=f"{WHERE}{round_}")
        claims = [claim(submit(mine, to)) for _ in range(7)]

        def act(number, claims=claims, gone=gone):
            if number == 7:
                return endpoints.delete(mine.pk, gone.pk)
            return lifecycle.succeed(claims[number], output=None, usage={}, warnings=[])

        assert [each for each in at_once(8, act) if each is not None] == []

    assert not Callback.objects.filter(status="pending").exists()
    assert audit.run().holds


def test_ten_endpoints_are_the_most_and_a_url_has_one():
    mine = account()
    results = at_once(16, lambda n: endpoint(mine, url=f"{WHERE}{n}"))
    again = endpoints.of(mine.pk).first()

    assert sum(isinstance(result, TooManyEndpoints) for result in results) == 6
    endpoints.delete(mine.pk, endpoints.of(mine.pk).last().pk)
    with pytest.raises(EndpointExists):
        endpoint(mine, url=again.url)
    endpoints.delete(mine.pk, again.pk)
    assert endpoint(mine, url=again.url).pk != again.pk


def test_the_same_endpoint_from_eight_threads_is_one():
    mine = account()

    results = at_once(8, lambda n: endpoint(mine))

    assert sum(isinstance(result, EndpointExists) for result in results) == 7


def test_an_operator_redelivers_to_an_endpoint_and_the_account_to_its_own_url():
    mine = account()
    endpoint(mine)
    task = task_that_is(Status.SUCCEEDED, of=mine, callback_url=WHERE)
    Callback.objects.update(status="failed", next_attempt_at=None, tries_left=0)

    callbacks.redeliver(task.pk, by="api_key:x")
    assert told() == [("task.succeeded", "failed")]
    chosen = Callback.objects.filter(endpoint__isnull=False)
    assert callbacks.redeliver_many(chosen, since=task.created_at, by="operator:ann") == 1

    assert told() == [("task.succeeded", "pending")]
    assert TaskEvent.objects.filter(type="callback.redelivered").count() == 1


def test_content_that_is_deleted_is_told_to_nobody():
    consumer = Consumer()
    endpoint(consumer.account)
    to = deployment()
    path = consumer.create(to)["Location"]
    runner.run_next(to.queue)

    assert consumer.call("DELETE", f"{path}/content").status_code == 200

    owed = Callback.objects.get()
    assert (owed.status, owed.last_error, owed.body) == ("failed", "content_deleted", "")
    assert not TaskEvent.objects.filter(type="callback.failed").exists()
    assert audit.run().holds


def test_the_database_knows_no_other_event_and_no_callback_to_nobody():
    mine = account()
    made = endpoint(mine)

    with refused("23514", "an_endpoint_names_known_events"):
        WebhookEndpoint.objects.filter(pk=made.pk).update(events=["*"])
    with refused("23514", "an_endpoint_names_known_events"):
        WebhookEndpoint.objects.filter(pk=made.pk).update(events=[])
    with refused("23514", "a_callback_has_a_task_or_an_endpoint"):
        Callback.objects.create(account=mine, event="account.balance_low", url=WHERE, tries_left=1)
    endpoints.delete(mine.pk, made.pk)
    with refused("CF001", "a_deleted_endpoint_stays_deleted"):
        WebhookEndpoint.objects.update(deleted_at=None)


# Over HTTP.


def wanted(**fields):
    return {"url": WHERE, "events": ["task.failed"], **fields}


def test_an_endpoint_is_made_read_listed_and_deleted():
    consumer = Consumer()

    made = consumer.post("/v1/webhook_endpoints", wanted(description="prod", metadata={"a": "b"}))
    path = made["Location"]

    assert made.status_code == 201
    assert made.json() == consumer.get(path).json()
    assert consumer.get("/v1/webhook_endpoints").json()["data"] == [made.json()]
    assert (made.json()["events"], made.json()["description"]) == (["task.failed"], "prod")
    assert (consumer.call("DELETE", path).status_code, consumer.call("DELETE", path).status_code) == (204, 404)
    assert consumer.get(path).status_code == 404
    assert consumer.get("/v1/webhook_endpoints").json()["data"] == []


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"url": "http://me:x@example.com/"}, "/url"),
        ({"url": "ftp://example.com/"}, "/url"),
        ({"url": None}, "/url"),
        ({"events": []}, "/events"),
        ({"events": ["*"]}, "/events/0"),
        ({"events": ["task.failed", "task.failed"]}, "/events"),
        ({"events": "task.failed"}, "/events"),
        ({"secret": "whsec_x"}, "/secret"),
        ({"description": "x" * 501}, "/description"),
        ({"metadata": {"a": 1}}, "/metadata/a"),
    ],
)
def test_what_makes_no_endpoint_is_refused_where_it_stands(wrong, pointer):
    answer = Consumer().post("/v1/webhook_endpoints", wanted(**wrong))

    assert (answer.status_code, answer.json()["error"]["param"]) == (422, pointer)
    assert not WebhookEndpoint.objects.exists()


def test_live_and_test_keys_have_endpoints_of_their_own():
    live = Consumer()
    tester = Consumer(twin_of(live.account)[0])
    path = live.post("/v1/webhook_endpoints", wanted())["Location"]

    assert tester.get(path).status_code == tester.call("DELETE", path).status_code == 404
    assert tester.get("/v1/webhook_endpoints").json()["data"] == []
    assert tester.post("/v1/webhook_endpoints", wanted()).status_code == 201
