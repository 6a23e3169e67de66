"""The deliverer against real receivers on loopback: what they get, and what their answers make of a callback."""

import json
import signal
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from uuid import uuid4

import pytest
from django.db import OperationalError, connection, transaction
from django.utils.timezone import now
from standardwebhooks import Webhook

from billing.credentials import decrypt, encrypt, new_callback_secret
from billing.models import Account
from tasks import callbacks, content, delivery, events, jobs, net, queues, sweep
from tasks.models import Callback, CallbackAttempt, Task, TaskEvent
from tasks.models import Receiver as Known
from tasks.statuses import Status
from tests.builders import account, deployment, task_that_is
from tests.faults.processes import deliverer, kill_group, until
from tests.receiver import RawServer, Receiver, Reply
from tests.workload.threads import together

pytestmark = pytest.mark.django_db(transaction=True)
OK = net.Answer(200, b"")


@pytest.fixture(autouse=True)
def schedule(settings, monkeypatch):
    """Three tries, one right after the other; a call sets others (in seconds)."""

    def tries(*seconds):
        settings.CALLBACK_SCHEDULE = [timedelta(seconds=each) for each in seconds]
        monkeypatch.setattr(callbacks, "TRIES", len(seconds))

    tries(0, 0.01, 0.01)
    return tries


@pytest.fixture(autouse=True)
def woken(monkeypatch):
    """The queues that were woken; no worker hears of it."""
    heard = []
    monkeypatch.setattr(queues, "wake", heard.append)
    return heard


def owed(url, **fields):
    """The callback of a task that ended well."""
    return Callback.objects.get(task=task_that_is(Status.SUCCEEDED, callback_url=url, **fields))


def deliver_all():
    """Deliver until nothing is pending, retries included."""

    def over():
        delivery.deliver_due()
        return not Callback.objects.filter(status="pending").exists()

    until(over, within=10)


def shown(callback):
    """The task as a GET shows it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT task_json(%s)", [callback.task_id])
        return json.loads(cursor.fetchone()[0])


def told(callback):
    """The callback's part of the task's timeline."""
    found = TaskEvent.objects.filter(task=callback.task_id, type__startswith="callback.").order_by("seq")
    return list(found.values_list("type", "data"))


def attempts(callback):
    return list(callback.attempts.order_by("number").values_list("number", "status_code", "error"))


def test_a_receiver_that_fails_twice_gets_the_same_a_third_time():
    with Receiver([500, Reply(503, body=b"later"), 200]) as receiver:
        callback = owed(receiver.url)
        deliver_all()

    first, second, third = receiver.requests
    assert first.body == second.body == third.body == callback.body.encode()
    assert {sent.headers["webhook-id"] for sent in receiver.requests} == {callbacks.message_id(callback.pk)}
    callback.refresh_from_db()
    assert (callback.status, callback.attempt_count, callback.tries_left) == ("delivered", 3, 0)
    assert (callback.last_error, callback.next_attempt_at, callback.lease_token) == (None, None, None)
    assert callback.delivered_at is not None
    assert attempts(callback) == [(1, 500, None), (2, 503, None), (3, 200, None)]
    assert CallbackAttempt.objects.get(number=2).response == "later"


def test_every_try_is_signed_anew(monkeypatch):
    clock = iter([1000, 2000, 3000, 4000])

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.fromtimestamp(time.time() + next(clock), tz)

    with Receiver([500, 200]) as receiver:
        callback = owed(receiver.url)
        monkeypatch.setattr(delivery, "datetime", Clock)
        deliver_all()

    first, second = receiver.requests
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) in (1000, 1001)
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]
    assert callback.body.encode() == first.body


def test_the_receiver_can_verify_the_signature():
    with Receiver() as receiver:
        callback = owed(receiver.url)
        secret = decrypt(Account.objects.get(pk=callback.account_id).callback_secret)
        before = shown(callback)
        delivery.deliver_due()

    (sent,) = receiver.requests
    verified = Webhook(secret).verify(sent.body, dict(sent.headers))
    assert verified["type"] == "task.succeeded"
    assert verified["data"] == before
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["user-agent"] == f"Counterfoil/{net.VERSION}"
    assert abs(int(sent.headers["webhook-timestamp"]) - time.time()) < 5


@pytest.mark.parametrize(("left", "signatures"), [(60, 2), (-60, 1)])
def test_the_previous_secret_signs_too_while_it_is_valid(left, signatures):
    old = new_callback_secret()
    of = account(callback_secret_previous=encrypt(old), callback_secret_previous_until=now() + timedelta(seconds=left))
    with Receiver() as receiver:
        owed(receiver.url, of=of)
        delivery.deliver_due()

    (sent,) = receiver.requests
    assert len(sent.headers["webhook-signature"].split(" ")) == signatures
    Webhook(decrypt(of.callback_secret)).verify(sent.body, dict(sent.headers))
    if signatures == 2:
        Webhook(old).verify(sent.body, dict(sent.headers))


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_delivers(status):
    with Receiver([status]) as receiver:
        callback = owed(receiver.url)
        delivery.deliver_due()

    callback.refresh_from_db()
    assert (callback.status, callback.attempt_count) == ("delivered", 1)
    assert told(callback) == [("callback.delivered", {"attempt_count": 1, "status_code": status})]


def test_gone_ends_it():
    with Receiver([410]) as receiver:
        callback = owed(receiver.url)
        delivery.deliver_due()
        delivery.deliver_due()

    callback.refresh_from_db()
    assert len(receiver.requests) == 1
    assert (callback.status, callback.tries_left) == ("failed", 2)
    assert callback.last_error == "The receiver answered 410."
    assert told(callback) == [
        ("callback.failed", {"attempt_count": 1, "status_code": 410, "error": "The receiver answered 410."})
    ]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failed_try(status):
    with Receiver() as elsewhere, Receiver([Reply(status, {"location": elsewhere.url})]) as receiver:
        callback = owed(receiver.url)
        deliver_all()

    callback.refresh_from_db()
    assert elsewhere.connections == 0
    assert (callback.status, callback.attempt_count) == ("failed", 3)
    assert callback.last_error == f"The receiver answered {status}; redirects are not followed."


@pytest.mark.parametrize("status", [304, 400, 401, 404, 429, 500, 599])
def test_it_fails_when_no_tries_are_left(status):
    with Receiver([status]) as receiver:
        callback = owed(receiver.url)
        deliver_all()

    callback.refresh_from_db()
    assert len(receiver.requests) == 3
    assert (callback.status, callback.attempt_count, callback.tries_left) == ("failed", 3, 0)
    assert callback.next_attempt_at is None
    assert [type_ for type_, _ in told(callback)] == ["callback.failed"]


def test_the_task_shows_each_change_under_a_new_seq(schedule):
    schedule(0, 3600)
    with Receiver([500, 200]) as receiver:
        callback = owed(receiver.url)
        seen = [shown(callback)]
        delivery.deliver_due()
        seen.append(shown(callback))
        Callback.objects.update(next_attempt_at=now())
        deliver_all()
        seen.append(shown(callback))

    assert [each["seq"] - seen[0]["seq"] for each in seen] == [0, 1, 2]
    assert [each["callback"]["status"] for each in seen] == ["pending", "pending", "delivered"]
    assert [each["callback"]["attempt_count"] for each in seen] == [0, 1, 2]
    assert [each["callback"]["last_error"] for each in seen] == [None, "The receiver answered 500.", None]
    assert seen[2]["callback"]["delivered_at"] is not None
    assert TaskEvent.objects.get(type="callback.delivered").seq == seen[2]["seq"]


def test_tries_follow_the_schedule(schedule):
    schedule(0, 5, 300, 1800)
    delays = []
    with Receiver([500]) as receiver:
        callback = owed(receiver.url)
        for _ in range(4):
            Callback.objects.filter(status="pending").update(next_attempt_at=now())
            before = now()
            delivery.deliver_due()
            callback.refresh_from_db()
            delays.append(callback.next_attempt_at and (callback.next_attempt_at - before).total_seconds())

    assert delays[0] == pytest.approx(5, rel=0.1, abs=1)
    assert delays[1] == pytest.approx(300, rel=0.1, abs=1)
    assert delays[2] == pytest.approx(1800, rel=0.1, abs=1)
    assert delays[3] is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("", 0),
        ("120", 120),
        (" 120 ", 120),
        ("0", 0),
        ("-5", 0),
        ("1.5", 0),
        ("soon", 0),
        ("٣", 0),
        ("999999999", 86400),
        ("9" * 5000, 0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 86400),
        ("Mon, 20 Nov 1995 19:12:08 +99999999999999999999", 0),
        ("Mon, 20 Nov " + "9" * 5000 + " 19:12:08 GMT", 0),
        ("Mon, 99 Nov 1995 99:99:99 GMT", 0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        (", , ,", 0),
    ],
)
def test_what_retry_after_asks_for(header, seconds):
    assert delivery.patience(header) == seconds


def test_retry_after_takes_a_date():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)

    assert delivery.patience(at) == pytest.approx(90, abs=2)


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_patience_gets_it(status):
    with Receiver([Reply(status, {"retry-after": "600"}), 200]) as receiver:
        callback = owed(receiver.url)
        delivery.deliver_due()
        delivery.deliver_due()

    callback.refresh_from_db()
    assert len(receiver.requests) == 1
    assert callback.next_attempt_at - now() == pytest.approx(timedelta(seconds=600), abs=timedelta(seconds=5))


def test_a_receiver_that_hangs_costs_the_others_nothing(settings):
    settings.CALLBACK_TIMEOUT_SECONDS = 1
    of, to = account("100"), deployment()
    with Receiver([Reply(delay=20)]) as hanging, Receiver() as well:
        stuck = owed(hanging.url, of=of, to=to)
        others = [owed(well.url, of=of, to=to) for _ in range(30)]
        started = now()
        delivery.deliver_due()

    stuck.refresh_from_db()
    assert stuck.last_error == "No answer within 1 s."
    assert len(well.requests) == len(others)
    for callback in others:
        callback.refresh_from_db()
        assert callback.delivered_at - started < timedelta(seconds=0.9)


def test_what_becomes_due_meanwhile_is_delivered_meanwhile(settings):
    settings.CALLBACK_TIMEOUT_SECONDS = 4
    with Receiver() as well:
        late = owed(well.url)
        Callback.objects.update(status="failed")

        def falls_due(_):
            Callback.objects.filter(pk=late.pk).update(status="pending")
            connection.close()

        with Receiver([Reply(delay=20)], on_request=falls_due) as hanging:
            stuck = owed(hanging.url)
            delivery.deliver_due()

    late.refresh_from_db()
    stuck.refresh_from_db()
    assert (late.status, late.last_error) == ("delivered", None)
    assert late.delivered_at < stuck.attempts.get().started_at + timedelta(seconds=3.8)


def test_a_host_gets_ten_at_a_time():
    of, to = account("100"), deployment()
    with Receiver() as one, Receiver() as other:
        for _ in range(15):
            owed(one.url, of=of, to=to)
        owed(other.url, of=of, to=to)

        claimed = delivery.claim(200)
        again = delivery.claim(200)

    assert sorted(each.url for each in claimed) == sorted([one.url] * 10 + [other.url])
    assert again == []
    assert len({each.token for each in claimed}) == 1


def test_a_host_gets_ten_of_many_that_fell_due_together():
    of, to = account("100"), deployment()
    for _ in range(25):
        owed("http://127.0.0.1:9/", of=of, to=to)
    Callback.objects.update(next_attempt_at=now())

    assert [len(delivery.claim(200)) for _ in range(3)] == [10, 0, 0]


def test_more_than_ten_of_a_host_are_delivered_one_turn_after_the_other():
    of, to = account("100"), deployment()
    with Receiver() as receiver:
        for _ in range(45):
            owed(receiver.url, of=of, to=to)
        delivery.deliver_due()

    assert len(receiver.requests) == 45
    assert set(Callback.objects.values_list("status", flat=True)) == {"delivered"}


def test_an_account_leaves_places_to_others_however_much_it_is_owed_and_since_when(monkeypatch):
    monkeypatch.setattr(delivery, "LOOK", 4)
    monkeypatch.setattr(delivery, "PLACES_AN_ACCOUNT", 3)
    many, one, to = account("100"), account("100"), deployment()
    for port in range(1, 13):
        owed(f"http://127.0.0.1:{port}/", of=many, to=to)
    other = owed("http://127.0.0.1:99/", of=one, to=to)

    claimed = delivery.claim(200)

    assert [each.account_id for each in claimed].count(many.pk) == 3
    assert {each.id for each in claimed if each.account_id == one.pk} == {other.pk}
    assert delivery.claim(200) == []


def test_accounts_take_turns_when_places_are_few():
    many, one, to = account("100"), account("100"), deployment()
    for port in (1, 2, 3):
        owed(f"http://127.0.0.1:{port}/", of=many, to=to)
    owed("http://127.0.0.1:99/", of=one, to=to)

    assert [each.account_id for each in delivery.claim(1)] == [many.pk]
    assert [each.account_id for each in delivery.claim(1)] == [one.pk]


def test_a_host_with_more_due_than_a_claim_looks_at_hides_no_other(monkeypatch):
    monkeypatch.setattr(delivery, "LOOK", 12)
    of, to = account("100"), deployment()
    for _ in range(25):
        owed("http://127.0.0.1:9/", of=of, to=to)
    other = owed("http://127.0.0.1:99/", of=of, to=to)

    assert other.pk in {each.id for each in delivery.claim(200)}
    assert delivery.claim(200) == []


def test_a_try_that_found_no_thread_for_its_look_up_is_not_made(monkeypatch):
    monkeypatch.setattr(net, "LOOKUPS_EACH", 0)
    with Receiver() as receiver:
        callback = owed(receiver.url.replace("127.0.0.1", "localhost"))
        delivery.deliver_due()
        callback.refresh_from_db()
        assert (callback.status, callback.tries_left, callback.attempt_count) == ("pending", 3, 0)
        assert (callback.lease_token, Known.objects.count(), attempts(callback)) == (None, 0, [])
        assert now() < callback.next_attempt_at < now() + timedelta(seconds=6)

        monkeypatch.setattr(net, "LOOKUPS_EACH", 64)
        Callback.objects.update(next_attempt_at=now())
        delivery.deliver_due()

    assert attempts(callback) == [(1, 200, None)]


def test_the_longest_due_go_first():
    of, to = account("100"), deployment()
    due = [owed(f"http://127.0.0.1:{port}/", of=of, to=to) for port in (1, 2, 3)]
    Callback.objects.filter(pk=due[2].pk).update(next_attempt_at=now() - timedelta(hours=1))
    Callback.objects.filter(pk=due[0].pk).update(next_attempt_at=now() + timedelta(hours=1))

    assert [each.id for each in delivery.claim(1)] == [due[2].pk]
    assert [each.id for each in delivery.claim(5)] == [due[1].pk]


def test_a_lease_is_committed_before_the_first_post():
    with pytest.raises(RuntimeError), transaction.atomic():
        delivery.claim(10)


def test_no_transaction_is_open_while_a_receiver_thinks():
    busy = []

    def look(_):
        """Twenty times while the deliverer waits; now and then it looks for new work."""
        for _ in range(20):
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL AND backend_type = 'client backend'"
                )
                busy.append(cursor.fetchone()[0])
            time.sleep(0.01)
        connection.close()

    with Receiver(on_request=look) as receiver:
        owed(receiver.url)
        delivery.deliver_due()

    assert len(busy) == 20
    assert busy.count(0) > 10


def test_two_deliverers_deliver_each_once():
    of, to = account("100"), deployment()
    with ExitStack() as open_ones:
        receivers = [open_ones.enter_context(Receiver([Reply(delay=0.02)])) for _ in range(4)]
        owing = [owed(receiver.url, of=of, to=to) for receiver in receivers for _ in range(15)]
        assert together(delivery.deliver_due, delivery.deliver_due) == [None, None]
        got = [sent.headers["webhook-id"] for receiver in receivers for sent in receiver.requests]

    assert sorted(got) == sorted(callbacks.message_id(callback.pk) for callback in owing)
    assert set(Callback.objects.values_list("status", "attempt_count")) == {("delivered", 1)}


def test_records_and_other_writers_of_the_same_tasks_take_turns():
    of, to = account("100"), deployment()
    with Receiver([500]) as receiver:
        owing = [owed(f"{receiver.url}/{number}", of=of, to=to) for number in range(10)]
        before = {callback.task_id: shown(callback)["seq"] for callback in owing}

        def write():
            for callback in reversed(owing * 5):
                events.record(callback.task_id, "task.noted", actor="test")

        answers = together(write, write, deliver_all)

    assert answers == [None, None, None]
    for callback in owing:
        assert shown(callback)["seq"] == before[callback.task_id] + 10 + 3
        assert [type_ for type_, _ in told(callback)] == ["callback.failed"]


def test_a_deliverer_killed_before_it_recorded_is_made_up_for():
    with Receiver([Reply(delay=30), 200]) as receiver:
        callback = owed(receiver.url)
        killed = deliverer()
        until(lambda: receiver.requests)
        killed.send_signal(signal.SIGKILL)
        kill_group(killed)
        callback.refresh_from_db()
        assert (callback.status, callback.attempt_count) == ("pending", 0)

        delivery.deliver_due()
        assert len(receiver.requests) == 1
        Callback.objects.update(lease_expires_at=now())
        delivery.deliver_due()

    first, second = receiver.requests
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    callback.refresh_from_db()
    assert (callback.status, callback.attempt_count) == ("delivered", 1)


def test_a_result_whose_lease_went_to_somebody_else_is_an_attempt_and_no_more():
    callback = owed("http://127.0.0.1:9/")
    (lost,) = delivery.claim(10)
    Callback.objects.update(lease_expires_at=now())
    (held,) = delivery.claim(10)
    seq = shown(callback)["seq"]
    answered = partial(delivery.Try, started_at=now(), duration_ms=1)

    assert delivery.record([answered(lost, answer=net.Answer(410, b""))]) == 0
    callback.refresh_from_db()
    assert (callback.status, callback.attempt_count, callback.lease_token) == ("pending", 1, held.token)
    assert shown(callback)["seq"] == seq + 1
    assert delivery.record([answered(held, answer=net.Answer(200, b""))]) == 1
    assert delivery.record([answered(held, answer=net.Answer(500, b""))]) == 0
    assert attempts(callback) == [(1, 410, None), (2, 200, None), (3, 500, None)]
    assert [type_ for type_, _ in told(callback)] == ["callback.delivered"]
    assert shown(callback)["callback"]["status"] == "delivered"


def test_two_tries_of_one_callback_in_one_batch_are_both_logged_and_the_lease_decides():
    callback = owed("http://127.0.0.1:9/")
    (lost,) = delivery.claim(10)
    callbacks.redeliver(callback.task_id, by="operator:ann")
    (held,) = delivery.claim(10)
    seq, earlier = shown(callback)["seq"], now()
    tries = [delivery.Try(held, now(), 1, OK), delivery.Try(lost, earlier, 1, net.Answer(503, b""))]

    assert delivery.record(tries) == 1

    callback.refresh_from_db()
    assert (callback.status, callback.attempt_count) == ("delivered", 2)
    assert attempts(callback) == [(1, 503, None), (2, 200, None)]
    assert shown(callback)["seq"] == TaskEvent.objects.get(type="callback.delivered").seq == seq + 2


def test_two_callbacks_of_one_task_end_in_one_batch():
    callback = owed("http://127.0.0.1:9/")
    Callback.objects.create(
        task_id=callback.task_id, account_id=callback.account_id, event="x", url=callback.url, body="{}", tries_left=1
    )
    seq = shown(callback)["seq"]
    both = delivery.claim(10)

    delivery.record([delivery.Try(each, now(), 1, net.Answer(200, b"")) for each in both])

    assert sorted(TaskEvent.objects.filter(type="callback.delivered").values_list("seq", flat=True)) == [
        seq + 1,
        seq + 2,
    ]
    assert shown(callback)["seq"] == seq + 2


def test_a_forbidden_address_is_never_called(settings):
    settings.CALLBACK_ALLOWED_NETWORKS = []
    with Receiver() as receiver:
        callback = owed(receiver.url)
        deliver_all()

    says = "The address is not allowed: it must be public, on port 80 or 443."
    callback.refresh_from_db()
    assert receiver.connections == 0
    assert (callback.status, callback.last_error) == ("failed", says)
    assert attempts(callback) == [(number, None, says) for number in (1, 2, 3)]


def test_a_refused_connection_is_a_failed_try():
    with Receiver() as receiver:
        url = receiver.url
    callback = owed(url)
    deliver_all()

    callback.refresh_from_db()
    assert (callback.status, callback.last_error) == ("failed", "The connection was refused.")
    assert told(callback) == [("callback.failed", {"attempt_count": 3, "error": "The connection was refused."})]


def test_a_url_that_nobody_would_call_is_a_failed_try():
    callback = owed("gopher://127.0.0.1/")
    deliver_all()

    callback.refresh_from_db()
    assert callback.last_error == "The URL must begin with http:// or https:// and a host."


def test_one_that_cannot_be_signed_does_not_keep_the_others_from_their_receivers():
    with Receiver() as receiver:
        broken = owed(receiver.url, of=account(callback_secret="not ours"))
        sound = owed(receiver.url)
        delivery.deliver_due()

    broken.refresh_from_db()
    sound.refresh_from_db()
    assert sound.status == "delivered"
    assert broken.last_error == "The callback could not be sent: an internal error."


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"x" * 100_000, "x" * 2048),
        (b"a\x00b", "a\ufffdb"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("\U0001f600".encode(), "\U0001f600"),
    ],
)
def test_the_answer_is_kept_in_part(body, kept):
    with Receiver([Reply(200, body=body)]) as receiver:
        callback = owed(receiver.url)
        delivery.deliver_due()

    assert callback.attempts.get().response == kept


ODD_ANSWERS = [
    b"HTTP/1.1 000 Odd\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 99999 Odd\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 -1 Odd\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n\x00\x01",
    b"HTTP/1.1 500 \xff\x00\r\n\r\n",
    b"HTTP/1.1 503 Odd\r\nretry-after: \xff\xfe\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 503 Odd\r\nretry-after: Fri, 31 Dec 99999999999 23:59:59 GMT\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 500 Odd\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    b"HTTP/1.1 500 Odd\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 500 Odd\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 500 Odd\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n\x00\x00",
    b"HTTP/1.1 500 Odd\r\nset-cookie: \x01=\x02\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/0.9",
    b"\x16\x03\x01",
    b"\x00" * 100_000,
]


def test_no_answer_is_too_odd_to_be_recorded(schedule):
    schedule(0, 3600)
    of, to = account("100"), deployment()
    with ExitStack() as open_ones:
        urls = [open_ones.enter_context(RawServer(answer, hang=False)) for answer in ODD_ANSWERS]
        for url in urls:
            owed(url, of=of, to=to)
        delivery.deliver_due()

    assert set(Callback.objects.values_list("status", "attempt_count")) == {("pending", 1)}
    assert CallbackAttempt.objects.count() == len(ODD_ANSWERS)


def test_a_deliverer_that_loses_its_database_ends_and_is_made_up_for(monkeypatch):
    recorded = delivery.record

    def gone(_):
        raise OperationalError("gone")

    with Receiver() as receiver, Receiver([Reply(delay=20)]) as hanging:
        callback = owed(receiver.url)
        owed(hanging.url)
        monkeypatch.setattr(delivery, "record", gone)
        with pytest.raises(OperationalError, match="gone"):
            delivery.deliver_due()
        monkeypatch.setattr(delivery, "record", recorded)
        Callback.objects.filter(url=hanging.url).update(status="failed")
        Callback.objects.update(lease_expires_at=now())
        delivery.deliver_due()

    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    callback.refresh_from_db()
    assert callback.status == "delivered"


def test_a_verdict_that_crashes_uses_up_its_try_and_spares_the_others(monkeypatch):
    sound, crash = delivery.patience, ValueError("a header nobody thought of")

    def patience(header):
        if header == "poison":
            raise crash
        return sound(header)

    monkeypatch.setattr(delivery, "patience", patience)
    with Receiver([Reply(503, {"retry-after": "poison"})]) as poisoner, Receiver([Reply(delay=0.3)]) as well:
        poisoned, others = owed(poisoner.url), [owed(well.url) for _ in range(3)]
        deliver_all()

    poisoned.refresh_from_db()
    assert (poisoned.status, poisoned.attempt_count, poisoned.tries_left) == ("failed", 3, 0)
    assert len(poisoner.requests) == 3
    for callback in others:
        callback.refresh_from_db()
        assert (callback.status, callback.attempt_count) == ("delivered", 1)


@pytest.mark.parametrize(
    "poison",
    [
        {"answer": net.Answer(99_999, b"")},
        {"duration_ms": -1, "answer": net.Answer(500, b"")},
        {"error": "a\x00b"},
        {"error": "\ud800"},
    ],
)
def test_a_try_that_the_database_refuses_is_used_up_and_spoils_none_of_the_others(poison):
    of, to = account("100"), deployment()
    callback, *others = [owed(f"http://127.0.0.1:{port}/", of=of, to=to) for port in (1, 2, 3)]
    tries = [
        delivery.Try(each, now(), **({"duration_ms": 1} | (poison if each.id == callback.pk else {"answer": OK})))
        for each in delivery.claim(10)
    ]

    assert delivery.record(tries) == 3

    callback.refresh_from_db()
    assert (callback.status, callback.attempt_count, callback.tries_left) == ("pending", 1, 2)
    assert attempts(callback) == [(1, None, "What came of the try could not be recorded: an internal error.")]
    assert set(Callback.objects.filter(pk__in=[each.pk for each in others]).values_list("status", flat=True)) == {
        "delivered"
    }


LARGE = 3 * 2**18


def owing_large(count, *, hosts, **fields):
    """Callbacks with large bodies, over this many hosts, the longest due first."""
    made = [owed(f"http://h{number % hosts}.example/", **fields) for number in range(count)]
    Callback.objects.filter(pk__in=[each.pk for each in made]).update(body="x" * LARGE)
    return made


def test_a_turn_takes_no_more_large_bodies_than_there_is_room_for():
    owing_large(20, hosts=20, of=account("100"), to=deployment())

    claimed = delivery.claim(200)
    rest = delivery.claim(200)

    assert len(claimed) == 16  # 12 MiB
    assert sum(len(each.body) for each in claimed + rest) == 20 * LARGE


def test_what_is_under_way_leaves_less_room_and_small_bodies_need_none():
    of, to = account("100"), deployment()
    large = owing_large(2, hosts=2, of=of, to=to)
    small = owed("http://127.0.0.1:9/", of=of, to=to)

    assert [each.id for each in delivery.claim(200, room=0)] == [small.pk]
    assert [each.id for each in delivery.claim(200, room=1)] == [large[0].pk]
    assert [each.id for each in delivery.claim(200, room=1)] == [large[1].pk]


def test_a_host_has_its_share_of_the_room_only():
    owing_large(5, hosts=1, of=account("100"), to=deployment())

    assert [len(delivery.claim(200)) for _ in range(2)] == [2, 0]


def test_large_bodies_are_delivered_one_turn_after_the_other(monkeypatch):
    monkeypatch.setattr(delivery, "ROOM", 2**20)
    of, to = account("100"), deployment()
    with Receiver() as receiver:
        for _ in range(6):
            owed(receiver.url, of=of, to=to)
        Callback.objects.update(body="x" * LARGE)
        delivery.deliver_due()

    assert [len(sent.body) for sent in receiver.requests] == [LARGE] * 6
    assert set(Callback.objects.values_list("status", flat=True)) == {"delivered"}


@pytest.mark.parametrize("when", ["after the try", "during the try"])
def test_what_a_receiver_answered_goes_with_the_content(when):
    def delete(*_):
        content.delete_content(callback.task_id, by="test")
        connection.close()

    during = delete if when == "during the try" else None
    with Receiver([Reply(200, body=b"You sent: everything.")], on_request=during) as receiver:
        callback = owed(receiver.url)
        delivery.deliver_due()
    if not during:
        delete()

    assert list(CallbackAttempt.objects.values_list("status_code", "response")) == [(200, "")]


def test_an_endless_answer_ends():
    with Receiver([Reply(200, body=b"x" * 500, endless=True)]) as receiver:
        callback = owed(receiver.url)
        started = time.monotonic()
        delivery.deliver_due()

    callback.refresh_from_db()
    assert callback.status == "delivered"
    assert time.monotonic() - started < 2


def test_redelivery_sends_the_same_again_with_fresh_tries():
    with Receiver([200, 500]) as receiver:
        callback = owed(receiver.url)
        deliver_all()
        callbacks.redeliver(callback.task_id, by="operator:ann")
        deliver_all()

    sent = {(each.headers["webhook-id"], each.body) for each in receiver.requests}
    callback.refresh_from_db()
    assert len(sent) == 1
    assert len(receiver.requests) == 1 + 3
    assert (callback.status, callback.attempt_count) == ("failed", 4)
    assert [type_ for type_, _ in told(callback)] == ["callback.delivered", "callback.redelivered", "callback.failed"]


def test_redelivery_beats_a_delivery_under_way():
    with Receiver() as receiver:
        callback = owed(receiver.url)
        (before,) = delivery.claim(10)
        callbacks.redeliver(callback.task_id, by="operator:ann")
        delivery.record([delivery.Try(before, now(), 1, net.Answer(410, b""))])
        delivery.deliver_due()

    callback.refresh_from_db()
    assert (callback.status, callback.attempt_count) == ("delivered", 2)
    assert attempts(callback) == [(1, 410, None), (2, 200, None)]


def test_a_long_shift_ends_and_calls_the_next_deliverer(monkeypatch, woken):
    monkeypatch.setattr(delivery, "SECONDS", 0.2)
    with Receiver([Reply(delay=0.5)]) as receiver:
        first = owed(receiver.url)
        Callback.objects.update(next_attempt_at=now() - timedelta(hours=1))
        later = owed(receiver.url)
        Callback.objects.filter(pk=later.pk).update(next_attempt_at=now() + timedelta(seconds=0.3))
        woken.clear()
        delivery.deliver_due()

    first.refresh_from_db()
    later.refresh_from_db()
    assert woken == ["callbacks"]
    assert (first.status, later.status) == ("delivered", "pending")
    assert len(receiver.requests) == 1


def test_the_sweeper_wakes_for_what_is_due(monkeypatch):
    filled = []
    monkeypatch.setattr(queues, "fill", lambda queue, eligible: filled.append((queue, eligible)))
    callback = owed("http://127.0.0.1:9/")
    leased = {"lease_token": uuid4(), "lease_expires_at": now() + timedelta(minutes=1)}

    def woke(**fields):
        filled.clear()
        Callback.objects.filter(pk=callback.pk).update(**fields)
        sweep.wake_callbacks()
        return filled == [("callbacks", 1)]

    assert woke()
    assert not woke(**leased)
    assert woke(lease_expires_at=now())
    assert not woke(next_attempt_at=now() + timedelta(hours=1))
    assert not woke(status="failed", next_attempt_at=None)


def test_the_job_is_a_door():
    with Receiver() as receiver:
        owed(receiver.url)
        jobs.deliver_due()

    assert len(receiver.requests) == 1
    assert jobs.deliver_due.name == queues.DOORS["callbacks"]


def test_a_final_task_stays_as_it_was():
    with Receiver([500, 200]) as receiver:
        callback = owed(receiver.url)
        before = Task.objects.filter(pk=callback.task_id).values().get()
        deliver_all()

    after = Task.objects.filter(pk=callback.task_id).values().get()
    assert {name for name in before if before[name] != after[name]} == {"seq"}
