"""All that match, at size: two thousand refunds by workers that are killed again and again."""

import time

import pytest
import redis
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Count, Sum

from billing import audit
from billing.models import Account, Transfer
from tasks import bulk
from tasks.models import BulkAction, Task, TaskEvent
from tasks.models.bulk import BULK_QUEUE
from tests.faults.processes import kill_group, until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.chaos]
TASKS, KILLS = 2_500, 3
# How long whoever wants an account's row may wait for a bulk action.
A_MOMENT = 1.0


@pytest.mark.timeout(1500)
def test_two_thousand_refunds_by_workers_that_are_killed_are_each_given_once(crew, capsys):
    call_command("seed_tasks", TASKS, accounts=20, seed=5)
    before = dict(Transfer.objects.filter(kind="refund").aggregate(count=Count("id"), sum=Sum("amount")))
    action = started("refund")
    crew.sweeper()
    begun, slowest = time.monotonic(), 0.0

    for turn in range(1, KILLS + 1):
        worker = crew.worker(BULK_QUEUE, "callbacks", children=2)
        until(lambda turn=turn: done(action) > action.suited * turn / (KILLS + 2), within=600)
        kill_group(worker)
        redis.from_url(settings.REDIS_URL).flushdb()
    crew.worker(BULK_QUEUE, "callbacks", children=2)
    while now_of(action).status == "running":
        slowest = max(slowest, a_look_at_every_account())
    seconds = time.monotonic() - begun

    action = now_of(action)
    given = Transfer.objects.filter(kind="refund")
    told = (
        f"{action.done} refunds in {seconds:.0f} s, {action.done / seconds:.0f} a second; a look took {slowest:.3f} s"
    )
    with capsys.disabled():
        print(f"\n{told}")
    assert action.suited > 2_000
    assert (action.status, action.done, action.moved) == ("done", action.suited, action.credits), told
    assert given.count() == before["count"] + action.done
    assert given.aggregate(sum=Sum("amount"))["sum"] == before["sum"] + action.moved
    assert LogEntry.objects.filter(content_type__model="task").count() == action.done
    assert TaskEvent.objects.filter(type="task.refunded", actor="operator:boss").count() == action.done
    assert slowest < A_MOMENT
    assert audit.run().holds


def test_what_is_done_in_bulk_goes_on_without_a_broker_for_its_wake_ups(crew):
    """The messages are lost; the sweeper sends another."""
    call_command("seed_tasks", 1000, accounts=20, seed=6)
    action = started("delete_content", chosen=Task.objects.filter(status="failed"))
    redis.from_url(settings.REDIS_URL).flushdb()
    crew.worker(BULK_QUEUE, "callbacks", children=2)
    crew.sweeper()

    until(lambda: now_of(action).status == "done", within=60)

    assert now_of(action).done == action.suited > 0


def started(act, chosen=None) -> BulkAction:
    boss, _ = User.objects.get_or_create(username="boss", is_staff=True, is_superuser=True)
    every = Task.objects.all() if chosen is None else chosen
    action = bulk.freeze(every, act=act, data={}, operator=boss, filters={}, words="all tasks")
    bulk.start(action.pk, operator=boss, reason="outage", number=action.suited, seen=action.digest)
    return action


def now_of(action) -> BulkAction:
    return BulkAction.objects.get(pk=action.pk)


def done(action) -> int:
    return now_of(action).done


def a_look_at_every_account() -> float:
    """The longest wait for one account's row."""
    waits = []
    for pk in Account.objects.values_list("pk", flat=True):
        begun = time.monotonic()
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT FROM billing_account WHERE id = %s FOR NO KEY UPDATE", [pk])
        waits.append(time.monotonic() - begun)
    return max(waits)
