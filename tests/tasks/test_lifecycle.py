"""The verbs: what each changes, writes and moves, and whom it refuses."""

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from uuid import uuid4

import pytest
from django.db import connection
from django.utils.timezone import now

from billing.exceptions import InsufficientBalance, NothingCharged, RefundTooLarge
from billing.models import Account, Price, UsageLine
from tasks import lifecycle
from tasks.exceptions import LeaseLost, TaskNotFound
from tasks.models import Callback, Run, Task, TaskEvent
from tasks.statuses import FINAL, ErrorCode, Resolved, Status
from tests.builders import account, assert_sound, buckets, claim, deployment, submit, task_that_is

pytestmark = pytest.mark.django_db

STREAMED = [("task", "2"), ("characters", "0.5")]
LOST = {"code": ErrorCode.WORKER_LOST, "message": "Gone.", "resolved": Resolved.CLAIM_EXPIRED}


def succeed(claimed, **fields):
    lifecycle.succeed(claimed, **{"output": None, "usage": {}, "warnings": [], **fields})


def everything(task):
    """The task's rows as they are."""
    rows = [Task.objects.filter(pk=task.pk)]
    rows += [model.objects.filter(task=task).order_by("id") for model in (Run, TaskEvent, Callback)]
    return [list(row.values()) for row in rows], buckets(task.account)


WORKER_S_VERBS = {
    "progress": lambda claimed: lifecycle.progress(claimed, percent=50, stage=None, message=None),
    "publish": lambda claimed: lifecycle.publish(claimed, text="more", offset=0, usage={}),
    "succeed": succeed,
    "fail": lambda claimed: lifecycle.fail(claimed, code=ErrorCode.CAPABILITY_ERROR, message="No."),
    "retry": lambda claimed: lifecycle.retry(claimed, **LOST),
}


def lost_to_another(task):
    Run.objects.filter(task=task).update(lease_expires_at=task.created_at)
    lifecycle.give_up(task.pk)
    Task.objects.filter(pk=task.pk).update(available_at=task.created_at)
    claim(task)


LOSSES = {
    "canceled": lambda task: lifecycle.cancel(task.pk, by="test"),
    "succeeded": lambda task: succeed(task.claimed),
    "queued again": lambda task: lifecycle.retry(task.claimed, **LOST),
    "of another worker": lost_to_another,
}


@pytest.mark.parametrize("verb", WORKER_S_VERBS)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_worker_that_lost_its_lease_changes_nothing(loss, verb):
    task = task_that_is(Status.RUNNING, callback_url="http://127.0.0.1:9/")
    LOSSES[loss](task)
    before = everything(task)

    with pytest.raises(LeaseLost):
        WORKER_S_VERBS[verb](task.claimed)

    assert everything(task) == before
    assert lifecycle.renew(task.claimed.token) is None


@pytest.mark.parametrize("verb", WORKER_S_VERBS)
def test_a_wrong_token_changes_nothing(verb):
    task = task_that_is(Status.RUNNING)
    before = everything(task)

    with pytest.raises(LeaseLost):
        WORKER_S_VERBS[verb](replace(task.claimed, token=uuid4()))

    assert everything(task) == before
    assert lifecycle.renew(uuid4()) is None


def test_the_holder_renews_its_lease():
    task = task_that_is(Status.RUNNING)
    Run.objects.update(lease_expires_at=task.created_at)

    left = lifecycle.renew(task.claimed.token)

    assert left == pytest.approx((task.deadline - now()).total_seconds(), abs=5)

    assert Run.objects.get().lease_expires_at > task.created_at


def test_progress_is_seen_with_a_seq_and_without_an_event():
    task = task_that_is(Status.RUNNING)

    lifecycle.progress(task.claimed, percent=50, stage="half", message=None)

    after = Task.objects.get()
    assert (after.progress, after.seq) == ({"percent": 50, "stage": "half", "message": None}, task.seq + 1)
    assert task.events.count() == 2


def test_success_writes_lines_charge_event_and_callback():
    of, to = account(), deployment(prices=[("task", "1"), ("characters", "0.25")])
    task = submit(of, to, input={"bound": {"characters": 20}}, callback_url="http://127.0.0.1:9/")

    succeed(claim(task), output={"text": "hi"}, usage={"characters": Decimal(2)}, warnings=[{"code": "w"}])

    task.refresh_from_db()
    assert (task.status, task.output, task.usage, task.warnings) == (
        "succeeded",
        {"text": "hi"},
        {"characters": "2"},
        [{"code": "w"}],
    )
    assert buckets(of) == {"available": Decimal("8.5"), "held": 0, "charged": Decimal("1.5")}
    assert task.events.get(type="task.succeeded").data == {"charged_credits": "1.5000"}
    assert (Callback.objects.get().event, Callback.objects.get().status) == ("task.succeeded", "pending")
    assert '"status":"succeeded"' in Callback.objects.get().body
    assert_sound(of)


def test_a_waived_task_lists_its_usage_and_bills_nothing():
    of = account()
    task = free_rerun(of, deployment(prices=STREAMED))

    succeed(claim(task), usage={"characters": Decimal(3)}, estimated=frozenset({"characters"}))

    assert lines(task) == [("task", 2, 0, False), ("characters", Decimal("1.5"), 0, True)]
    assert buckets(of) == {"available": 10, "held": 0, "charged": 0}
    assert Task.objects.get(pk=task.pk).warnings == []
    assert_sound(of)


def test_a_waived_task_that_is_cut_short_lists_what_was_streamed():
    of = account()
    task = free_rerun(of, deployment(prices=STREAMED, bills_partial_output=True))
    lifecycle.publish(claim(task), text="abc", offset=0, usage={"characters": Decimal(3)})

    lifecycle.cancel(task.pk, by="test")

    assert lines(task) == [("characters", Decimal("1.5"), 0, False)]
    assert Task.objects.get(pk=task.pk).output == "abc"
    assert buckets(of) == {"available": 10, "held": 0, "charged": 0}


def lines(task):
    found = UsageLine.objects.filter(task_id=task.pk).order_by("position")
    return list(found.values_list("meter", "listed_amount", "billed_amount", "estimated"))


def free_rerun(of, to):
    first = submit(of, to)
    lifecycle.cancel(first.pk, by="test")
    return Task.objects.get(pk=lifecycle.rerun_free(first.pk, by="operator:ann", reason="sorry").task_id)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_failure_is_free_and_told(code):
    task = task_that_is(Status.RUNNING, callback_url="http://127.0.0.1:9/")

    lifecycle.fail(task.claimed, code=code, message="No.")

    task.refresh_from_db()
    assert task.error == {"code": code, "message": "No.", "retryable": False}
    assert (task.runs.get().status, task.runs.get().reason_resolved) == lifecycle.RESOLUTIONS[code]
    assert task.events.get(type="task.failed").data["error"]["code"] == code
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    assert Callback.objects.get().event == "task.failed"


def streaming(**fields):
    """A running task that has streamed 3 characters."""
    to = deployment(prices=STREAMED, **fields)
    task = task_that_is(Status.RUNNING, to=to, input={"bound": {"characters": 10}})
    lifecycle.publish(task.claimed, text="ab", offset=0, usage={"characters": Decimal(2)})
    for _ in range(2):  # the answer to the first was lost
        lifecycle.publish(task.claimed, text="c", offset=2, usage={"characters": Decimal(3)})
    return task


@pytest.mark.parametrize(
    "end",
    [
        lambda task: lifecycle.cancel(task.pk, by="test"),
        lambda task: lifecycle.fail(task.claimed, code=ErrorCode.TIMEOUT, message=""),
        lambda task: lifecycle.fail(task.claimed, code=ErrorCode.DEADLINE_EXCEEDED, message=""),
    ],
    ids=["cancel", "timeout", "deadline"],
)
def test_partial_output_is_billed_without_the_flat_price_where_the_deployment_says_so(end):
    task = streaming(bills_partial_output=True)

    end(task)

    task.refresh_from_db()
    assert (task.output, task.usage) == ("abc", {"characters": "3"})
    assert buckets(task.account) == {"available": Decimal("8.5"), "held": 0, "charged": Decimal("1.5")}
    assert_sound(task.account)


@pytest.mark.parametrize(
    ("bills", "end"),
    [
        (False, lambda task: lifecycle.cancel(task.pk, by="test")),
        (True, lambda task: lifecycle.fail(task.claimed, code=ErrorCode.CAPABILITY_ERROR, message="")),
        (True, lambda task: lifecycle.fail(task.claimed, code=ErrorCode.WORKER_LOST, message="")),
    ],
    ids=["not by this deployment", "not a failure", "not a lost worker"],
)
def test_partial_output_is_free_otherwise(bills, end):
    task = streaming(bills_partial_output=bills)

    end(task)

    task.refresh_from_db()
    assert (task.output, task.usage) == (None, {})
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING])
def test_cancel_is_immediate_and_free(status):
    task = task_that_is(status, callback_url="http://127.0.0.1:9/")

    assert lifecycle.cancel(task.pk, by="operator:ann", reason="duplicate") is True

    task.refresh_from_db()
    assert (task.status, task.cancel_reason) == ("canceled", "duplicate")
    assert task.cancel_requested_at == task.completed_at
    assert (task.runs.get().status, task.runs.get().reason_resolved) == ("exception", "canceled")
    event = task.events.get(type="task.canceled")
    assert (event.actor, event.data) == ("operator:ann", {"charged_credits": "0.0000", "reason": "duplicate"})
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    assert Callback.objects.get().event == "task.canceled"
    assert_sound(task.account)


@pytest.mark.parametrize("status", sorted(FINAL))
def test_cancel_of_what_has_ended_changes_nothing(status):
    task = task_that_is(status)
    before = everything(task)

    assert lifecycle.cancel(task.pk, by="test", reason="late") is False
    assert lifecycle.expire(task.pk) is False
    assert lifecycle.give_up(task.pk) is False

    assert everything(task) == before


@pytest.mark.parametrize(
    "verb", [lifecycle.expire, lifecycle.give_up, lambda task_id: lifecycle.cancel(task_id, by="x")]
)
def test_a_task_that_is_not_there_is_not_found(verb):
    with pytest.raises(TaskNotFound):
        verb(uuid4())


def test_a_retry_starts_over_after_a_while():
    task = task_that_is(Status.RUNNING)
    lifecycle.progress(task.claimed, percent=50, stage="half", message=None)

    lifecycle.retry(task.claimed, **LOST)

    task.refresh_from_db()
    assert (task.status, task.attempt, task.retries_left, task.progress["percent"]) == ("queued", 2, 1, None)
    assert 4 <= (task.available_at - task.created_at).total_seconds() <= 6
    assert list(task.runs.order_by("number").values_list("status", "reason_created", "reason_resolved")) == [
        ("exception", "scheduled", "claim_expired"),
        ("pending", "retry", None),
    ]
    assert buckets(task.account) == {"available": 9, "held": 1, "charged": 0}
    assert_sound(task.account)


def test_our_own_shutdown_spends_no_retry_and_waits_for_nothing():
    task = task_that_is(Status.RUNNING, to=deployment(max_retries=0))

    lifecycle.give_back(task.claimed)

    task.refresh_from_db()
    assert (task.status, task.retries_left, task.available_at) == ("queued", 0, task.created_at)


def test_a_task_that_is_given_back_again_and_again_waits_longer_and_then_spends_its_retries():
    task = task_that_is(Status.RUNNING, to=deployment(max_retries=2))
    left = []

    lifecycle.retry(task.claimed, **LOST)
    while Task.objects.filter(pk=task.pk, completed_at=None).exists():
        task.refresh_from_db()
        left.append(task.retries_left)
        Task.objects.filter(pk=task.pk).update(available_at=task.created_at)
        lifecycle.give_back(claim(task))

    task.refresh_from_db()
    waits = [run.scheduled_at - before.resolved_at for before, run in pairwise(task.runs.order_by("number"))]
    assert left == [1] * 6 + [0]
    assert waits[1].total_seconds() == 0
    assert waits[2:6] == sorted(waits[2:6])
    assert waits[2].total_seconds() > 0
    assert (task.status, task.error["code"], task.error["retryable"]) == ("failed", "worker_lost", True)
    assert_sound(task.account)


def test_a_task_that_was_tried_in_between_is_given_back_free_again(settings):
    settings.RETRY_BACKOFF_SECONDS = 0
    task = task_that_is(Status.RUNNING, to=deployment(max_retries=1))

    for _ in range(lifecycle.FREE_RETURNS):
        lifecycle.give_back(task.claimed)
        task.claimed = claim(task)
    lifecycle.retry(task.claimed, **LOST)
    lifecycle.give_back(claim(task))

    task.refresh_from_db()
    assert (task.status, task.retries_left, task.attempt) == ("queued", 0, lifecycle.FREE_RETURNS + 3)


def test_the_last_retry_fails_for_its_reason():
    task = task_that_is(Status.RUNNING, to=deployment(max_retries=0))

    lifecycle.retry(task.claimed, **LOST)

    task.refresh_from_db()
    assert (task.status, task.error["code"]) == ("failed", "worker_lost")
    assert (task.runs.get().status, task.runs.get().reason_resolved) == ("exception", "claim_expired")


def test_only_the_run_that_ends_the_task_is_billed():
    task = streaming(bills_partial_output=True)
    lifecycle.retry(task.claimed, **LOST)
    Task.objects.update(available_at=task.created_at)

    succeed(claim(task), usage={"characters": Decimal(1)})

    assert buckets(task.account) == {"available": Decimal("7.5"), "held": 0, "charged": Decimal("2.5")}


@pytest.mark.parametrize(
    ("attempt", "least", "most"), [(1, 4, 6), (2, 16, 24), (3, 64, 96), (4, 256, 384), (9, 480, 720)]
)
def test_the_back_off_grows_to_ten_minutes(attempt, least, most):
    waits = {lifecycle.backoff(attempt) for _ in range(50)}

    assert least <= min(waits) < max(waits) <= most


def refund(task, *args, **fields):
    return lifecycle.refund(task.pk, *args, **{"key": str(uuid4()), "reason": "sorry", "by": "operator:ann", **fields})


def test_a_refund_gives_back_what_is_left():
    task = task_that_is(Status.SUCCEEDED)

    refund(task, Decimal("0.3"))
    refund(task)

    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    events = task.events.filter(type="task.refunded").order_by("seq")
    assert [event.data["amount_credits"] for event in events] == ["0.3000", "0.7000"]
    assert {event.actor for event in events} == {"operator:ann"}
    with pytest.raises(NothingCharged):
        refund(task)
    assert_sound(task.account)


def test_a_refund_never_exceeds_the_charge_or_its_line():
    task = task_that_is(Status.RUNNING, to=deployment(prices=STREAMED), input={"bound": {"characters": 2}})
    succeed(task.claimed, usage={"characters": Decimal(2)})
    line = UsageLine.objects.get(meter="characters")

    with pytest.raises(RefundTooLarge):
        refund(task, Decimal("3.0001"))
    with pytest.raises(RefundTooLarge):
        refund(task, Decimal("1.0001"), line=line)
    refund(task, Decimal(1), line=line)

    assert buckets(task.account) == {"available": 8, "held": 0, "charged": 2}
    assert task.events.filter(type="task.refunded").count() == 1


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.FAILED, Status.CANCELED])
def test_what_was_not_charged_is_not_refunded(status):
    task = task_that_is(status)
    before = everything(task)

    with pytest.raises(NothingCharged):
        refund(task)

    assert everything(task) == before


def test_text_is_kept_as_it_is_and_not_in_escapes():
    task = task_that_is(Status.RUNNING, input={"text": "é😀"})

    lifecycle.succeed(task.claimed, output={"text": "é😀"}, usage={}, warnings=[])

    with connection.cursor() as cursor:
        cursor.execute("SELECT input::text, output::text FROM tasks_task WHERE id = %s", [task.pk])
        assert cursor.fetchone() == ('{"text": "é😀"}', '{"text": "é😀"}')


METERED = [("task", "0.25"), ("input_tokens", "0.3", 1000), ("output_tokens", "0.00005"), ("characters", "1", 3)]


def warned(task):
    return [warning["code"] for warning in Task.objects.get(pk=task.pk).warnings]


def test_usage_above_the_quote_is_cut_from_the_last_lines_and_warned_of():
    bound = {"input_tokens": 1000, "output_tokens": 1000, "characters": 3}
    task = task_that_is(Status.RUNNING, to=deployment(prices=METERED), input={"bound": bound})

    succeed(task.claimed, usage={"input_tokens": Decimal(4500), "output_tokens": Decimal(3), "characters": Decimal(1)})

    assert lines(task) == [
        ("task", Decimal("0.25"), Decimal("0.25"), False),
        ("input_tokens", Decimal("1.35"), Decimal("1.35"), False),
        ("output_tokens", Decimal("0.0002"), 0, False),
        ("characters", Decimal("0.3333"), 0, False),
    ]
    assert buckets(task.account) == {"available": Decimal("8.4"), "held": 0, "charged": Decimal("1.6")}
    assert warned(task) == ["usage_exceeds_quote"]


def test_partial_output_above_the_quote_is_cut_and_warned_of():
    to = deployment(prices=STREAMED, bills_partial_output=True)
    task = task_that_is(Status.RUNNING, to=to, input={"bound": {"characters": 2}})
    lifecycle.publish(task.claimed, text="a" * 9, offset=0, usage={"characters": Decimal(9)})

    lifecycle.cancel(task.pk, by="test")

    assert lines(task) == [("characters", Decimal("4.5"), 3, False)]
    assert buckets(task.account) == {"available": 7, "held": 0, "charged": 3}
    assert warned(task) == ["usage_exceeds_quote"]


def test_a_charge_follows_the_prices_of_its_quote_whatever_they_are_since():
    to = deployment(prices=[("characters", "0.5")])
    task = task_that_is(Status.RUNNING, to=to, input={"bound": {"characters": 4}})
    dearer = Price.objects.create(rate_card=to.rate_card, meter="characters", unit="character", credits=Decimal(2))

    succeed(task.claimed, usage={"characters": Decimal(3)})

    assert buckets(task.account) == {"available": Decimal("8.5"), "held": 0, "charged": Decimal("1.5")}
    assert UsageLine.objects.get(task_id=task.pk).price_id != dearer.pk


@pytest.mark.parametrize("end", ["cancel", "succeed"])
def test_a_credit_limit_that_is_lowered_later_blocks_no_end(end):
    of = account("0.5", credit_limit=Decimal(5))
    task = task_that_is(Status.RUNNING, of=of, to=deployment(prices=[("task", "2")]))
    Account.objects.filter(pk=of.pk).update(credit_limit=0)

    ends = {"cancel": lambda: lifecycle.cancel(task.pk, by="test"), "succeed": lambda: succeed(task.claimed)}
    ends[end]()

    charged = {"cancel": 0, "succeed": 2}[end]
    assert buckets(of) == {"available": Decimal("0.5") - charged, "held": 0, "charged": charged}
    with pytest.raises(InsufficientBalance):
        submit(of, deployment(prices=[("task", "2")]))


def test_a_refund_of_a_line_says_which():
    task = task_that_is(Status.RUNNING, to=deployment(prices=STREAMED), input={"bound": {"characters": 2}})
    succeed(task.claimed, usage={"characters": Decimal(2)})

    refund(task, Decimal("0.5"), line=UsageLine.objects.get(meter="characters"))

    told = task.events.get(type="task.refunded").data
    assert told == {"amount_credits": "0.5000", "line": "characters", "private": {"reason": "sorry"}}
