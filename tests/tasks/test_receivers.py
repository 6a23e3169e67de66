"""A receiver that fails again and again: paused, probed, opened again; and nobody else's affair."""

import time
from datetime import timedelta

import pytest
from django.db.models import F
from django.utils.timezone import now

from tasks import callbacks, delivery, net, queues, sweep
from tasks.models import Callback, CallbackAttempt, TaskEvent
from tasks.models import Receiver as Known
from tasks.statuses import Status
from tests.builders import account, deployment, task_that_is
from tests.receiver import Receiver, Reply
from tests.workload.threads import together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def schedule(settings, monkeypatch):
    """Ten tries, an hour apart; probes after 30 s, 60 s and then always 90 s."""
    settings.CALLBACK_SCHEDULE = [timedelta()] + [timedelta(hours=1)] * 9
    settings.CALLBACK_PROBE_SECONDS = [30.0, 60.0, 90.0]
    monkeypatch.setattr(callbacks, "TRIES", 10)
    monkeypatch.setattr(queues, "wake", lambda _: None)


@pytest.fixture
def owe():
    """Owe this many callbacks of one account to a URL."""
    to = deployment()

    def made(count, url, *, of):
        tasks = [task_that_is(Status.SUCCEEDED, callback_url=url, of=of, to=to).pk for _ in range(count)]
        return list(Callback.objects.filter(task__in=tasks).order_by("pk"))

    return made


def pause(owe, url, *, of, waiting=0):
    """Ten failures in a row, and callbacks that came later."""
    failed = owe(10, url, of=of)
    delivery.deliver_due()
    return failed, owe(waiting, url, of=of)


def time_passes(receiver, *, seconds=3600):
    Known.objects.filter(pk=receiver.pk).update(next_probe_at=F("next_probe_at") - timedelta(seconds=seconds))


def pending():
    return Callback.objects.filter(status="pending")


def test_ten_failures_in_a_row_pause_a_url_without_its_query(owe):
    of = account("100")
    with Receiver([500]) as receiver:
        for number in range(10):
            owe(1, f"{receiver.url}?task={number}", of=of)
        delivery.deliver_due()
        later = owe(3, f"{receiver.url}?late", of=of)
        delivery.deliver_due()

    known = Known.objects.get()
    assert len(receiver.requests) == 10
    assert (known.account_id, known.url, known.failures) == (of.pk, receiver.url, 10)
    assert known.last_error == "The receiver answered 500."
    assert known.next_probe_at - known.paused_at == timedelta(seconds=30)
    assert {each.tries_left for each in Callback.objects.filter(pk__in=[each.pk for each in later])} == {10}
    assert set(pending().values_list("waits_for", flat=True)) == {known.pk}


def test_a_success_in_between_begins_the_count_anew(owe):
    of = account("100")
    with Receiver([500] * 9 + [200] + [500]) as receiver:
        for _ in range(18):
            owe(1, receiver.url, of=of)
            delivery.deliver_due()

    known = Known.objects.get()
    assert len(receiver.requests) == 18
    assert (known.failures, known.paused_at) == (8, None)
    assert known.recovered_at is not None


def test_one_that_never_fails_has_no_row(owe):
    with Receiver() as receiver:
        owe(3, receiver.url, of=account("100"))
        delivery.deliver_due()

    assert not Known.objects.exists()


def test_one_probe_at_a_time_at_growing_intervals_and_it_uses_up_no_try(owe):
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=account("100"), waiting=5)
        known = Known.objects.get()
        before = dict(pending().values_list("pk", "tries_left"))
        pauses = []
        for probed in range(1, 5):
            time_passes(known)
            delivery.deliver_due()
            delivery.deliver_due()
            known.refresh_from_db()
            assert len(receiver.requests) == 10 + probed
            pauses.append((known.next_probe_at - known.last_failure_at).total_seconds())

    assert pauses == [60, 90, 90, 90]
    assert (known.failures, known.probes, known.probing_until) == (14, 4, None)
    assert dict(pending().values_list("pk", "tries_left")) == before
    assert CallbackAttempt.objects.count() == 14


def test_probes_take_turns_so_that_one_that_is_always_refused_keeps_nobody_waiting(owe):
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=account("100"))
        known = Known.objects.get()
        for _ in range(10):
            time_passes(known)
            delivery.deliver_due()

    probed = [sent.headers["webhook-id"] for sent in receiver.requests[10:]]
    assert len(set(probed)) == 10


def test_many_deliverers_send_one_probe(owe):
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=account("100"), waiting=5)
        receiver.answers = [Reply(500, delay=0.3)]
        time_passes(Known.objects.get())
        together(*[delivery.deliver_due] * 4)

    assert len(receiver.requests) == 11


def test_a_probe_that_succeeds_opens_the_url_and_all_that_is_owed_goes_out_at_once(owe, settings):
    of = account("100")
    with Receiver([500]) as receiver:
        failed, waiting = pause(owe, receiver.url, of=of, waiting=30)
        receiver.answers = [Reply(200)]
        time_passes(Known.objects.get())
        delivery.deliver_due()

    known = Known.objects.get()
    assert (known.paused_at, known.failures, known.next_probe_at) == (None, 0, None)
    assert set(Callback.objects.values_list("status", "waits_for")) == {("delivered", None)}
    assert len(receiver.requests) == 10 + len(failed) + len(waiting)
    assert {each.tries_left for each in Callback.objects.filter(pk__in=[each.pk for each in waiting])} <= {9, 10}


def test_another_accounts_callbacks_to_the_same_url_go_on(owe):
    one, other = account("100"), account("100")
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=one, waiting=40)
        receiver.answers = [Reply(200)]
        theirs = owe(3, receiver.url, of=other)
        delivery.deliver_due()

    assert len(receiver.requests) == 10 + 3
    assert {each.status for each in Callback.objects.filter(pk__in=[each.pk for each in theirs])} == {"delivered"}
    assert Known.objects.get().account_id == one.pk


def test_another_url_of_the_same_host_goes_on_behind_what_waits(owe, monkeypatch):
    monkeypatch.setattr(delivery, "BATCH", 3)
    of = account("100")
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=of, waiting=40)
        receiver.answers = [Reply(200)]
        well = owe(2, f"{receiver.url}/other", of=of)
        delivery.deliver_due()

    assert [sent.path for sent in receiver.requests[10:]] == ["/hook/other"] * len(well)


def test_what_is_due_to_a_paused_url_is_neither_leased_nor_looked_at_again(owe):
    pause(owe, "http://127.0.0.1:9/", of=account("100"), waiting=15)

    assert delivery.claim(200) == []
    assert pending().filter(waits_for=None).count() == 0
    assert pending().exclude(lease_token=None).count() == 0


def test_tries_that_were_under_way_when_it_was_paused_use_up_theirs_and_wait_too(owe):
    of, url = account("100"), "http://127.0.0.1:9/"
    owe(10, url, of=of)
    Known.objects.create(account=of, url=url, failures=9, last_failure_at=now())
    first, *others = [delivery.Try(each, now(), 1, net.Answer(500, b"")) for each in delivery.claim(10)]

    delivery.record([first])
    paused = Known.objects.get()
    delivery.record(others)

    known = Known.objects.get()
    assert (known.failures, known.probes, known.next_probe_at) == (19, 0, paused.next_probe_at)
    assert set(pending().values_list("waits_for", "tries_left", "attempt_count")) == {(known.pk, 9, 1)}


def test_gone_ends_the_callback_that_probes(owe):
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=account("100"))
        receiver.answers = [Reply(410)]
        time_passes(Known.objects.get())
        delivery.deliver_due()

    assert Callback.objects.filter(status="failed").count() == 1
    assert Known.objects.get().paused_at is not None


def test_the_first_pause_is_as_long_as_the_receiver_asks_for(owe):
    with Receiver([Reply(503, {"retry-after": "600"})]) as receiver:
        pause(owe, receiver.url, of=account("100"))

    known = Known.objects.get()
    assert known.next_probe_at - known.paused_at == timedelta(seconds=600)


def test_an_error_of_ours_says_nothing_of_the_receiver(owe):
    owe(12, "http://127.0.0.1:9/", of=account("100", callback_secret="not ours"))
    delivery.deliver_due()

    assert CallbackAttempt.objects.count() == 12
    assert not Known.objects.exists()


def test_a_redelivery_probes_a_paused_url_with_that_very_callback(owe):
    with Receiver([500]) as receiver:
        failed, _ = pause(owe, receiver.url, of=account("100"), waiting=5)
        callbacks.redeliver(failed[7].task_id, by="operator:ann")
        delivery.deliver_due()
        assert len(receiver.requests) == 11
        receiver.answers = [Reply(200)]
        callbacks.redeliver(failed[3].task_id, by="operator:ann")
        delivery.deliver_due()

    asked = [sent.headers["webhook-id"] for sent in receiver.requests[10:12]]
    assert asked == [callbacks.message_id(failed[7].pk), callbacks.message_id(failed[3].pk)]
    assert set(Callback.objects.values_list("status", flat=True)) == {"delivered"}


def test_a_receiver_that_is_asked_is_probed_now(owe):
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=account("100"))
        receiver.answers = [Reply(200)]
        known = Known.objects.get()

        assert callbacks.probe(known.pk)
        delivery.deliver_due()

    assert set(Callback.objects.values_list("status", flat=True)) == {"delivered"}
    assert not callbacks.probe(known.pk)


def test_a_probe_whose_deliverer_died_is_made_again(owe):
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=account("100"))
        known = Known.objects.get()
        time_passes(known)
        (lost,) = delivery.claim(10)
        assert delivery.claim(10) == []
        Known.objects.update(probing_until=now())
        Callback.objects.filter(pk=lost.id).update(lease_expires_at=now())
        delivery.deliver_due()

    assert len(receiver.requests) == 11


def test_what_waited_too_long_ends_as_failed_and_says_why(owe, settings):
    with Receiver([500]) as receiver:
        failed, _ = pause(owe, receiver.url, of=account("100"), waiting=2)
        delivery.deliver_due()
    old = [each.pk for each in failed[:4]]
    Callback.objects.filter(pk__in=old).update(
        waits_since=now() - timedelta(days=settings.CALLBACK_PAUSE_DAYS, hours=1)
    )

    sweep.end_waits()
    sweep.end_waits()

    ended = Callback.objects.filter(status="failed")
    says = "The receiver was paused for 5 days, every probe failed; the last: The receiver answered 500."
    assert sorted(ended.values_list("pk", flat=True)) == sorted(old)
    assert set(ended.values_list("last_error", "waits_for", "next_attempt_at")) == {(says, None, None)}
    assert TaskEvent.objects.filter(type="callback.failed", data__error=says).count() == 4
    callbacks.redeliver(failed[0].task_id, by="operator:ann")
    assert pending().count() == 9


def test_the_sweeper_wakes_for_a_probe_and_for_what_waits_in_vain(owe, monkeypatch):
    filled = []
    monkeypatch.setattr(queues, "fill", lambda queue, _: filled.append(queue))
    pause(owe, "http://127.0.0.1:9/", of=account("100"))
    delivery.deliver_due()

    def woke(**fields):
        filled.clear()
        Known.objects.update(**fields)
        sweep.wake_callbacks()
        return filled == ["callbacks"]

    assert not woke()
    assert woke(next_probe_at=now())
    assert not woke(probing_until=now() + timedelta(minutes=1))
    assert woke(probing_until=now())
    assert woke(paused_at=None, next_probe_at=now())
    assert not woke(next_probe_at=None)
    monkeypatch.setattr(sweep, "_done_at", {})
    sweep.find_overlooked()
    assert woke()


def test_one_for_which_nothing_waits_is_looked_at_again_when_something_does(owe):
    of, url = account("100"), "http://127.0.0.1:9/"
    pause(owe, url, of=of)
    Callback.objects.update(status="failed", waits_for=None, waits_since=None)
    Known.objects.update(next_probe_at=now())

    assert delivery.claim(200) == []
    assert Known.objects.get().next_probe_at is None

    owe(1, url, of=of)
    assert [each.probes for each in delivery.claim(200)] == [Known.objects.get().pk]


def test_probes_leave_places_to_other_accounts(owe, monkeypatch):
    monkeypatch.setattr(delivery, "PLACES_AN_ACCOUNT", 2)
    many, one = account("100"), account("100")
    for of, ports in ((many, (3, 4, 5, 6)), (one, (7,))):
        for port in ports:
            owe(1, f"http://127.0.0.1:{port}/", of=of)
    for callback in Callback.objects.all():
        receiver = Known.objects.create(
            account=callback.account, url=callback.url, last_failure_at=now(), paused_at=now(), next_probe_at=now()
        )
        Callback.objects.filter(pk=callback.pk).update(waits_for=receiver, waits_since=now())

    assert sorted(each.url[-3:] for each in delivery.claim(200)) == [":3/", ":4/", ":7/"]
    assert delivery.claim(200) == []


def test_three_receivers_of_a_host_are_probed_at_a_time(owe):
    for number in range(5):
        pause(owe, f"http://127.0.0.1:9/{number}", of=account("100"))
    Known.objects.update(next_probe_at=now())

    first = delivery.claim(200)
    delivery.record([delivery.Try(first[0], now(), 1, net.Answer(500, b""))])
    second = delivery.claim(200)

    assert (len(first), len(second)) == (3, 1)
    assert len({each.probes for each in first + second}) == 4


def test_no_probe_is_made_while_there_is_no_room_for_its_body(owe):
    pause(owe, "http://127.0.0.1:9/", of=account("100"))
    Known.objects.update(next_probe_at=now())

    assert delivery.claim(200, room=0) == []
    assert len(delivery.claim(200, room=1)) == 1


def test_old_receivers_are_forgotten_unless_something_waits(owe, settings):
    settings.CALLBACK_ATTEMPT_DAYS = 30
    pause(owe, "http://127.0.0.1:9/", of=account("100"))
    owe(1, "http://127.0.0.1:9/once", of=account("100"))
    delivery.deliver_due()
    Known.objects.update(last_failure_at=now() - timedelta(days=31))

    sweep.forget_attempts()

    assert [known.url for known in Known.objects.all()] == ["http://127.0.0.1:9/"]


@pytest.mark.parametrize(("days", "left"), [(30, {1, 3, 4}), (0, {1, 2, 3, 4})])
def test_old_attempts_of_ended_callbacks_are_deleted(owe, settings, monkeypatch, days, left):
    monkeypatch.setattr(sweep, "BATCH", 2)
    settings.CALLBACK_ATTEMPT_DAYS = days
    ended, owing = owe(2, "http://127.0.0.1:9/", of=account("100"))
    Callback.objects.filter(pk=ended.pk).update(status="delivered", attempt_count=2)
    made = [
        CallbackAttempt(id=1, callback=ended, number=6, started_at=now() - timedelta(days=29), duration_ms=1),
        *(
            CallbackAttempt(id=10 + n, callback=ended, number=n, started_at=now() - timedelta(days=31), duration_ms=1)
            for n in range(1, 6)
        ),
        CallbackAttempt(id=3, callback=owing, number=1, started_at=now() - timedelta(days=31), duration_ms=1),
        CallbackAttempt(id=4, callback=owing, number=2, started_at=now(), duration_ms=1),
    ]
    CallbackAttempt.objects.bulk_create(made)

    sweep.forget_attempts()

    kept = set(CallbackAttempt.objects.values_list("id", flat=True))
    assert {2 if each > 10 else each for each in kept} == left


def test_many_are_owed_again_each_once_however_often_it_is_asked_for(owe, monkeypatch):
    monkeypatch.setattr(callbacks, "BATCH", 4)
    of, asked = account("100"), now()
    made = owe(11, "http://127.0.0.1:9/", of=of)
    Callback.objects.update(status="failed", next_attempt_at=None, tries_left=0)
    Callback.objects.filter(pk=made[10].pk).update(body="")
    every = Callback.objects.filter(account=of)

    owed = together(*[lambda: callbacks.redeliver_many(every, since=asked, by="operator:ann")] * 3)
    again = callbacks.redeliver_many(every, since=asked, by="operator:ann")
    later = callbacks.redeliver_many(every.filter(pk=made[0].pk), since=now(), by="operator:bob")

    assert (sum(owed), again, later) == (10, 0, 1)
    assert pending().filter(tries_left=10, next_attempt_at__lte=now()).count() == 10
    told = TaskEvent.objects.filter(type="callback.redelivered")
    assert (told.count(), told.filter(task=made[0].task_id).count()) == (11, 2)
    for each in made:
        last = TaskEvent.objects.filter(task=each.task_id).order_by("-seq").first()
        each.task.refresh_from_db()
        assert last.seq == each.task.seq


def test_many_redelivered_to_a_paused_url_are_probed_by_one(owe):
    with Receiver([500]) as receiver:
        pause(owe, receiver.url, of=account("100"))
        callbacks.redeliver_many(Callback.objects.all(), since=now(), by="operator:ann")
        delivery.deliver_due()
        assert len(receiver.requests) == 11
        receiver.answers = [Reply(200)]
        callbacks.redeliver_many(Callback.objects.all(), since=now(), by="operator:ann")
        delivery.deliver_due()

    assert set(Callback.objects.values_list("status", flat=True)) == {"delivered"}
    assert len(receiver.requests) == 11 + 10


def test_a_url_as_long_as_one_may_be_is_known(owe):
    url = "http://127.0.0.1:9/" + "ü" * 2000
    pause(owe, url, of=account("100"))

    assert Known.objects.get(url=url).paused_at is not None


def test_pausing_and_opening_under_many_deliverers_loses_nothing(owe):
    one, other = account("500"), account("500")
    with Receiver([500] * 40 + [200]) as first, Receiver([500] * 15 + [200]) as second:
        made = owe(40, first.url, of=one) + owe(40, second.url, of=one) + owe(40, first.url, of=other)
        deadline = time.monotonic() + 15
        while pending().exists() and time.monotonic() < deadline:
            Known.objects.filter(paused_at__isnull=False).update(next_probe_at=now())
            pending().filter(waits_for=None).update(next_attempt_at=now())
            together(*[delivery.deliver_due] * 3)

    assert set(Callback.objects.values_list("status", "waits_for")) == {("delivered", None)}
    assert len(made) == 120
    assert CallbackAttempt.objects.filter(status_code=200).count() == 120
    assert CallbackAttempt.objects.count() == len(first.requests) + len(second.requests)
