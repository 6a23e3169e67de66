"""What a callback is: its body, its id, its signature; and how it is owed again."""

import base64
import json
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils.timezone import now
from standardwebhooks import Webhook, WebhookVerificationError

from billing.credentials import new_callback_secret
from tasks import callbacks, content, endpoints, queues
from tasks.exceptions import NoCallback, TaskNotFinal, TaskNotFound
from tasks.models import Callback, WebhookEndpoint
from tasks.statuses import FINAL, Status
from tests.builders import account, refused, submit, task_that_is

pytestmark = pytest.mark.django_db(transaction=True)

URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def woken(monkeypatch):
    """The queues that were woken."""
    heard = []
    monkeypatch.setattr(queues, "wake", heard.append)
    return heard


def shown(task):
    """The task as a GET shows it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT task_json(%s)", [task.pk])
        return json.loads(cursor.fetchone()[0])


def of(task):
    return Callback.objects.get(task=task)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_the_body_is_the_task_as_it_is_at_its_end(woken, status):
    task = task_that_is(status, callback_url=URL)

    body = json.loads(of(task).body)

    assert body == {"type": f"task.{status}", "timestamp": shown(task)["completed_at"], "data": shown(task)}
    assert body["data"]["callback"] == {
        "url": URL,
        "status": "pending",
        "attempt_count": 0,
        "delivered_at": None,
        "last_error": None,
    }
    assert woken[-2:].count("callbacks") == 1


def test_a_task_without_a_url_owes_nothing(woken):
    task_that_is(Status.SUCCEEDED)

    assert not Callback.objects.exists()
    assert "callbacks" not in woken


def test_the_signature_is_that_of_standard_webhooks():
    secret, body, callback = new_callback_secret(), b'{"type": "task.succeeded", "text": "\xc3\xa9"}', uuid4()

    headers = callbacks.sign_standard(callback, body, [secret], int(time.time()))

    assert headers["content-type"] == "application/json"
    assert Webhook(secret).verify(body, headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_callback_secret()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", headers)


def test_the_signature_of_the_specifications_example():
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    content = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330." + body

    assert callbacks._signature(secret, content) == "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert len(base64.b64decode(callbacks._signature(secret, content))) == 32


def test_each_valid_secret_signs():
    old, new = new_callback_secret(), new_callback_secret()

    headers = callbacks.sign_standard(uuid4(), b"{}", [new, old], int(time.time()))

    assert [part[:3] for part in headers["webhook-signature"].split(" ")] == ["v1,", "v1,"]
    Webhook(old).verify(b"{}", headers)
    Webhook(new).verify(b"{}", headers)


def test_a_callback_keeps_its_id():
    callback = uuid4()

    assert callbacks.message_id(callback) == callbacks.message_id(callback)
    assert callbacks.message_id(callback).startswith("msg_")
    assert callbacks.message_id(callback) != callbacks.message_id(uuid4())


def test_when_a_callback_failed_is_known_while_it_is_failed():
    task_that_is(Status.SUCCEEDED, callback_url=URL)
    ended = Callback.objects.filter(failed_at__isnull=False)

    Callback.objects.update(status="failed", next_attempt_at=None)
    first = ended.values_list("failed_at", flat=True).get()
    Callback.objects.update(status="failed")

    assert ended.values_list("failed_at", flat=True).get() == first
    Callback.objects.update(status="pending")
    assert not ended.exists()


@pytest.mark.parametrize("ended", [Callback.Status.DELIVERED, Callback.Status.FAILED, Callback.Status.PENDING])
def test_redelivery_owes_the_same_callback_again(woken, ended):
    task = task_that_is(Status.SUCCEEDED, callback_url=URL)
    before = of(task)
    Callback.objects.update(
        status=ended,
        attempt_count=10,
        tries_left=0,
        next_attempt_at=None if ended != "pending" else now() + timedelta(hours=1),
        delivered_at=now() if ended == "delivered" else None,
        last_error="No." if ended == "failed" else None,
        lease_token=uuid4(),
        lease_expires_at=now() + timedelta(hours=1),
    )
    woken.clear()

    callbacks.redeliver(task.pk, by="operator:ann")

    after = of(task)
    assert (after.pk, after.body) == (before.pk, before.body)
    assert (after.status, after.tries_left, after.attempt_count) == ("pending", callbacks.TRIES, 10)
    assert (after.delivered_at, after.last_error, after.lease_token, after.lease_expires_at) == (None,) * 4
    assert after.next_attempt_at <= now()
    assert woken == ["callbacks"]


def test_redelivery_is_on_the_timeline_each_time(woken):
    task = task_that_is(Status.FAILED, callback_url=URL)

    callbacks.redeliver(task.pk, by="operator:ann")
    callbacks.redeliver(task.pk, by="api_key:cf_live_12345678")

    told = list(task.events.filter(type="callback.redelivered").order_by("seq").values_list("seq", "actor"))
    assert told == [(task.seq + 1, "operator:ann"), (task.seq + 2, "api_key:cf_live_12345678")]
    assert shown(task)["seq"] == task.seq + 2


def test_redelivery_is_refused_before_the_end(woken):
    for task in (task_that_is(Status.RUNNING, callback_url=URL), submit(callback_url=URL)):
        with pytest.raises(TaskNotFinal):
            callbacks.redeliver(task.pk, by="test")


def test_redelivery_is_refused_without_a_callback(woken):
    task = task_that_is(Status.SUCCEEDED)

    with pytest.raises(NoCallback):
        callbacks.redeliver(task.pk, by="test")
    with pytest.raises(TaskNotFound):
        callbacks.redeliver(uuid4(), by="test")
    assert not task.events.filter(type="callback.redelivered").exists()


def test_a_body_that_was_deleted_is_not_delivered_again(woken):
    task = task_that_is(Status.SUCCEEDED, callback_url=URL)
    Callback.objects.update(body="")

    with pytest.raises(NoCallback):
        callbacks.redeliver(task.pk, by="test")


@pytest.mark.parametrize("deleted", ["content", "endpoint"])
def test_what_is_deleted_after_a_redelivery_looked_is_not_delivered_again(woken, monkeypatch, deleted):
    at = WebhookEndpoint.objects.create(account=account("10"), url=URL, events=["task.succeeded"])
    task = task_that_is(Status.SUCCEEDED, of=at.account)
    Callback.objects.update(status="delivered")
    plain = callbacks._owe_batch_again

    def late(*looked, **asked):
        content.delete_content(task.pk, by="test") if deleted == "content" else endpoints.delete(at.account_id, at.pk)
        return plain(*looked, **asked)

    monkeypatch.setattr(callbacks, "_owe_batch_again", late)

    assert callbacks.redeliver_many(Callback.objects.all(), since=now(), by="test") == 0
    assert Callback.objects.get().status == "delivered"


def test_an_empty_body_cannot_be_owed_again(woken):
    callback = of(task_that_is(Status.SUCCEEDED, callback_url=URL))

    with refused("23514", by="what_is_owed_again_has_a_body"):
        Callback.objects.filter(pk=callback.pk).update(redelivered_at=now(), body="")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM/x", "example.com"),
        ("https://example.com:8443?x", "example.com:8443"),
        ("http://example.com.:080/", "example.com"),
        ("https://example.com:443", "example.com"),
        ("http://example.com.:8080/", "example.com:8080"),
        ("http://[::1]:80/", "[::1]"),
        ("http://[::80]/", "[::80]"),
        ("nonsense", ""),
        ("http://" + "é" * 2000, "é" * 255),
    ],
)
def test_receivers_take_turns_by_their_host_and_port(woken, url, host):
    assert of(task_that_is(Status.SUCCEEDED, callback_url=url)).host == host
