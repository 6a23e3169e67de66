"""What an operator does about receivers that fail: probe now, and redeliver one or all that failed."""

from datetime import timedelta

import pytest
from django.utils import timezone

from tasks.models import Callback, Receiver, TaskEvent
from tests.admin.people import act_url, history, member, root, told
from tests.admin.world import world

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def paused():
    """A paused receiver, of whose callbacks one has failed."""
    world()
    Callback.objects.exclude(endpoint=None).delete()
    Callback.objects.update(status="failed", tries_left=0, next_attempt_at=None)
    Receiver.objects.update(next_probe_at=timezone.now() + timedelta(hours=1))
    return Receiver.objects.get()


def test_a_paused_receiver_is_probed_now(paused):
    root().do(paused, "probe", reason="they say it is up")

    paused.refresh_from_db()
    assert paused.next_probe_at <= timezone.now()
    assert history(paused) == ["It is probed as soon as something waits for it. Reason: they say it is up"]


def test_a_receiver_that_is_not_paused_is_not_probed(paused):
    Receiver.objects.update(paused_at=None, next_probe_at=None)

    answer = root().do(paused, "probe")

    assert told(answer) == [f"{paused}: it is not paused."]


def test_all_that_failed_is_redelivered_once(paused):
    person = root()

    first, second = (person.do(paused, "redeliver-failed") for _ in range(2))

    assert told(first) == [f"{paused}: Due again: 1 callbacks."]
    assert told(second) == [f"{paused}: Due again: 0 callbacks."]
    assert Callback.objects.get().status == "pending"
    assert [event.actor for event in TaskEvent.objects.filter(type="callback.redelivered")] == ["operator:root"]


def test_chosen_callbacks_are_redelivered(paused):
    callback = Callback.objects.get()

    answer = root().do(callback, "redeliver")

    assert told(answer) == [f"{callback}: Due again."]
    callback.refresh_from_db()
    assert callback.status == "pending"


def test_a_callback_without_content_is_not_redelivered(paused):
    Callback.objects.update(body="")
    callback = Callback.objects.get()

    answer = root().do(callback, "redeliver")

    assert told(answer) == [f"{callback}: its content was deleted, or somebody has just redelivered it."]


@pytest.mark.parametrize(("group", "status"), [("Operator", 200), ("Billing", 403), ("Support", 403)])
def test_who_may_act_on_receivers(paused, group, status):
    person = member(group)

    for row, act in ((paused, "probe"), (paused, "redeliver-failed"), (Callback.objects.get(), "redeliver")):
        assert person.get(act_url(row, act)).status_code == status
