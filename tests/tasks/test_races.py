"""What threads with connections of their own do to the same rows at the same time."""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from functools import partial
from threading import Event
from uuid import uuid4

import pytest
from django.db import connection, transaction
from django.db.models import Count
from django.utils.timezone import now

from billing.exceptions import InsufficientBalance, RefundTooLarge
from billing.models import Account, Transfer
from tasks import lifecycle, sweep
from tasks.exceptions import LeaseLost, TaskNotFinal, TooManyPendingTasks
from tasks.models import Callback, Run, Task
from tasks.statuses import FINAL, ErrorCode, Resolved, Status
from tasks.submission import fingerprint
from tests.builders import account, assert_sound, buckets, claim, deployment, request, submit, task_that_is
from tests.workload.threads import together

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 25
CALLBACK = {"callback_url": "http://127.0.0.1:9/hook"}


def succeed(claimed):
    lifecycle.succeed(claimed, output=None, usage={}, warnings=[])


def holding(of, seconds, *, held):
    """Keep an account's row, as a submission does, for so long."""
    with transaction.atomic():
        Account.objects.select_for_update(no_key=True).get(pk=of.pk)
        held.set()
        time.sleep(seconds)


@pytest.mark.parametrize(("seconds", "gets_it"), [(0.5, True), (1.6, False)], ids=["for a moment", "for long"])
def test_a_claim_waits_a_moment_for_the_only_account_that_has_work(seconds, gets_it):
    of, held = account(), Event()
    task = submit(of)

    def work():
        held.wait()
        return lifecycle.claim("default", worker="w")

    _, claimed = together(partial(holding, of, seconds, held=held), work)

    assert (claimed and claimed.task_id) == (task.pk if gets_it else None)


def test_an_account_that_submits_without_a_pause_is_served_all_the_while():
    of, to = account("0", running_limit=100), deployment(prices=())
    for _ in range(20):
        submit(of, to)
    over = Event()

    def flood():
        while not over.is_set():
            lifecycle.submit(request(of, to))

    def work():
        claimed = [lifecycle.claim("default", worker="w") for _ in range(20)]
        over.set()
        return claimed

    *_, claimed = together(flood, flood, work)

    assert None not in claimed
    assert_sound(of)


@pytest.mark.parametrize("accounts", [1, 3])
def test_two_sweepers_share_what_is_to_end(accounts, monkeypatch):
    monkeypatch.setattr(sweep, "TOGETHER", 5)
    to, owners = deployment(), [account("100") for _ in range(accounts)]
    for of in owners:
        for _ in range(60 // accounts):
            submit(of, to, **CALLBACK)
    Task.objects.update(deadline=now() - timedelta(seconds=1))

    ended = together(sweep.expire_overdue, sweep.expire_overdue)
    left = sweep.expire_overdue()

    assert sum(ended) + left == 60
    assert min(ended) > 0
    for of in owners:
        assert_sound(of)


@pytest.mark.parametrize("workers", [2, 8])
def test_workers_run_each_task_once_and_never_more_than_the_limit(workers):
    to = deployment()
    accounts = [account(running_limit=2) for _ in range(3)]
    submitted = [submit(of, to).pk for of in accounts for _ in range(10)]
    seen = []

    def work():
        done, until = [], time.monotonic() + 20
        while Task.objects.exclude(status__in=FINAL).exists():
            assert time.monotonic() < until
            if claimed := lifecycle.claim("default", worker="w"):
                seen.extend(Task.objects.filter(status="running").values("account").annotate(n=Count("*")))
                succeed(claimed)
                done.append(claimed.task_id)
        return done

    done = together(*[work] * workers)

    assert all(isinstance(part, list) for part in done), done
    assert sorted(task for part in done for task in part) == sorted(submitted)
    assert max(row["n"] for row in seen) <= 2
    assert Run.objects.filter(status="succeeded").count() == len(submitted)
    for of in accounts:
        assert_sound(of)


def test_cancel_against_completion_has_one_winner():
    of, to = account("100"), deployment(prices=[("task", "1.5")])
    won = []
    for _ in range(ROUNDS):
        task = submit(of, to, **CALLBACK)
        claimed = claim(task)
        succeeded, canceled = together(partial(succeed, claimed), partial(lifecycle.cancel, task.pk, by="test"))

        assert (succeeded is None) != canceled, (succeeded, canceled)
        assert succeeded is None or isinstance(succeeded, LeaseLost)
        assert Task.objects.get(pk=task.pk).status == ("canceled" if canceled else "succeeded")
        won.append(not canceled)

    charged = sum(won) * Decimal("1.5")
    assert buckets(of) == {"available": 100 - charged, "held": 0, "charged": charged}
    assert Callback.objects.count() == ROUNDS
    assert_sound(of)


def test_every_end_at_once_ends_a_task_once():
    of, to = account("100"), deployment()
    for _ in range(ROUNDS):
        task = submit(of, to, **CALLBACK)
        claimed = claim(task)
        Run.objects.filter(task=task).update(lease_expires_at=now())
        Task.objects.filter(pk=task.pk).update(deadline=now())

        gave_up, expired, canceled, succeeded, failed, again = together(
            partial(lifecycle.give_up, task.pk),
            partial(lifecycle.expire, task.pk),
            partial(lifecycle.cancel, task.pk, by="test"),
            partial(succeed, claimed),
            partial(lifecycle.fail, claimed, code=ErrorCode.CAPABILITY_ERROR, message=""),
            partial(lifecycle.give_back, claimed),
        )

        ended = [expired is True, canceled is True, succeeded is None, failed is None]
        assert sum(ended) == 1, (expired, canceled, succeeded, failed)
        assert [gave_up, expired, canceled].count(True) + [succeeded, failed, again].count(None) <= 2
        assert all(isinstance(lost, LeaseLost | None) for lost in (succeeded, failed, again))
    assert Callback.objects.count() == ROUNDS
    assert_sound(of)


def test_a_verb_that_waited_for_a_retry_acts_on_the_next_run():
    task = task_that_is(Status.RUNNING)

    def hand_back(slowly):
        with transaction.atomic():
            lifecycle.retry.__wrapped__(
                task.claimed, code=ErrorCode.WORKER_LOST, message="", resolved=Resolved.CLAIM_EXPIRED
            )
            slowly()

    def until_somebody_waits():
        with connection.cursor() as cursor:
            for _ in range(5000):
                cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if cursor.fetchone()[0]:
                    return
        raise AssertionError("nobody waited")

    def cancel_late():
        while not waiting:
            pass
        return lifecycle.cancel(task.pk, by="test")

    waiting = []

    def slowly():
        waiting.append(True)
        until_somebody_waits()

    _, canceled = together(partial(hand_back, slowly), cancel_late)

    assert canceled is True
    assert list(task.runs.order_by("number").values_list("status", "reason_resolved")) == [
        ("exception", "claim_expired"),
        ("exception", "canceled"),
    ]
    assert_sound(task.account)


def test_submits_beyond_the_balance_are_refused():
    of, to = account("2"), deployment()

    answers = together(*[partial(lifecycle.submit, request(of, to))] * 8)

    assert sum(isinstance(answer, InsufficientBalance) for answer in answers) == 6
    assert Task.objects.count() == 2
    assert buckets(of) == {"available": 0, "held": 2, "charged": 0}
    assert_sound(of)


def test_one_idempotency_key_makes_one_task():
    of, to = account(), deployment()
    keyed = request(of, to, idempotency_key="key", fingerprint=fingerprint({}))

    answers = together(*[partial(lifecycle.submit, keyed)] * 16)

    assert {answer.task_id for answer in answers} == {Task.objects.get().pk}
    assert [answer.replayed for answer in answers].count(False) == 1
    assert buckets(of) == {"available": 9, "held": 1, "charged": 0}
    assert_sound(of)


def refund(task, amount, key):
    return lifecycle.refund(task.pk, amount, key=key, reason="sorry", by="operator:ann")


def test_a_refund_pressed_twice_is_one():
    task = task_that_is(Status.SUCCEEDED)
    key = str(uuid4())

    given = together(*[partial(refund, task, Decimal("0.4"), key)] * 8)

    assert {transfer.pk for transfer in given} == {Transfer.objects.get(kind="refund").pk}
    assert task.events.filter(type="task.refunded").count() == 1
    assert buckets(task.account) == {"available": Decimal("9.4"), "held": 0, "charged": Decimal("0.6")}


def test_refunds_at_once_never_exceed_the_charge():
    task = task_that_is(Status.SUCCEEDED)

    given = together(*[partial(refund, task, Decimal("0.4"), str(uuid4())) for _ in range(8)])

    assert sum(isinstance(answer, Transfer) for answer in given) == 2
    assert sum(isinstance(answer, RefundTooLarge) for answer in given) == 6
    assert buckets(task.account) == {"available": Decimal("9.8"), "held": 0, "charged": Decimal("0.2")}
    assert_sound(task.account)


def test_a_chain_has_one_unfinished_rerun():
    task = task_that_is(Status.CANCELED)
    again = partial(lifecycle.rerun, task.pk, account_id=task.account_id, api_key_id=None, actor="api_key:test")

    answers = together(*[again] * 8)

    assert sum(isinstance(answer, TaskNotFinal) for answer in answers) == 7
    assert task.reruns.count() == 1
    assert buckets(task.account) == {"available": 9, "held": 1, "charged": 0}


def test_a_rerun_does_not_wait_for_who_holds_the_task():
    task = task_that_is(Status.SUCCEEDED)
    again = partial(lifecycle.rerun, task.pk, account_id=task.account_id, api_key_id=None, actor="api_key:test")

    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        lifecycle._lock(task.pk)
        answer = pool.submit(together, again).result(timeout=5)

    assert answer[0].task_id == task.reruns.get().pk


def test_sweepers_at_once_end_a_task_once():
    of, to = account("100"), deployment(max_retries=0)
    for task in [submit(of, to) for _ in range(10)]:
        claim(task)
    Task.objects.update(deadline=now() - timedelta(seconds=1))

    moved = together(*[sweep.expire_overdue] * 4)

    assert sum(moved) == 10
    assert buckets(of) == {"available": 100, "held": 0, "charged": 0}
    assert_sound(of)


def test_a_burst_fills_a_deployment_exactly():
    of, to = account("100"), deployment(max_pending=5, prices=())

    answers = together(*[lambda: submit(of, to)] * 12)

    refused = [answer for answer in answers if isinstance(answer, TooManyPendingTasks)]
    assert (len(refused), Task.objects.count()) == (7, 5)
