"""How a task begins: quoted, held and queued, or refused with nothing written."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from django.db import connection
from django.utils.timezone import now

from billing import audit
from billing.exceptions import InsufficientBalance, SpendCapReached
from billing.models import Account, Transfer
from tasks import capabilities, lifecycle, queues
from tasks.capabilities import CapabilityError
from tasks.exceptions import (
    IdempotencyKeyReused,
    Invalid,
    TaskNotFinal,
    TaskNotFound,
    TooManyPendingTasks,
    UnsupportedCapability,
    UnsupportedModel,
)
from tasks.models import Deployment, Run, Task, TaskEvent
from tasks.statuses import UNFINISHED, Status
from tasks.submission import fingerprint, stored_key
from tests.builders import account, assert_sound, buckets, claim, deployment, request, submit, task_that_is

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)


def refuse(error, asked, *, param=None):
    """The submission is refused, and nothing was written."""
    of = Account.objects.get(pk=asked.account_id)
    before = buckets(of)
    with pytest.raises(error) as caught:
        lifecycle.submit(asked)
    assert caught.value.param == param
    assert buckets(of) == before
    assert not Task.objects.filter(status="queued").exists()


def test_a_task_is_quoted_held_and_queued():
    of, to = account(), deployment(prices=[("task", "1"), ("characters", "0.01", 10)])

    submitted = lifecycle.submit(request(of, to, input={"bound": {"characters": 1000}}, metadata={"a": "b"}))

    task = Task.objects.get()
    assert (submitted.task_id, submitted.replayed, task.status, task.quoted) == (task.pk, False, "queued", 2)
    assert task.quote["bound"] == {"characters": "1000"}
    assert [rate["meter"] for rate in task.quote["rates"]] == ["task", "characters"]
    assert buckets(of) == {"available": 8, "held": 2, "charged": 0}
    assert (Run.objects.get().status, Run.objects.get().reason_created) == ("pending", "scheduled")
    assert_sound(of)


def test_the_answer_is_the_task_as_a_read_would_give_it():
    submitted = lifecycle.submit(request(account(), deployment(), metadata={"a": "b"}))

    with connection.cursor() as cursor:
        cursor.execute("SELECT task_json(%s)", [submitted.task_id])
        assert cursor.fetchone()[0] == submitted.json
    assert json.loads(submitted.json)["billing"]["held_credits"] == "1.0000"


def test_a_task_without_a_price_holds_nothing():
    of = account("0")
    task = submit(of, deployment(prices=()))

    lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])

    assert not Transfer.objects.exists()
    assert_sound(of)


def test_times_follow_from_the_deployment():
    to = deployment(timeout=60, max_retries=2, ttl=600, max_lifetime=7200)
    task = submit(to=to)
    kept = submit(to=to, timeout=30, max_retries=0, deadline=task.created_at + HOUR)

    assert (task.timeout, task.max_retries, task.retries_left) == (60, 2, 2)
    assert task.expires_at - task.created_at == timedelta(seconds=600)
    assert task.deadline - task.created_at == timedelta(seconds=600 + 3 * 60 + 300)
    assert (kept.timeout, kept.retries_left, kept.deadline) == (30, 0, task.created_at + HOUR)


def test_the_default_deadline_stays_within_the_lifetime():
    task = submit(to=deployment(ttl=600, max_lifetime=700))

    assert task.deadline - task.created_at == timedelta(seconds=700)


def test_a_task_that_asks_to_wait_waits_and_its_ttl_begins_then():
    start = now() + HOUR
    task = submit(to=deployment(ttl=600), not_before=start)

    assert (task.available_at, task.not_before) == (start, start)
    assert task.expires_at == start + timedelta(seconds=600)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"timeout": 601}, "/timeout"),
        ({"max_retries": 3}, "/max_retries"),
        ({"deadline": now() - HOUR}, "/deadline"),
        ({"deadline": now() + 999 * HOUR}, "/deadline"),
        ({"not_before": now() + 999 * HOUR}, "/not_before"),
        ({"deadline": now() + HOUR, "not_before": now() + 2 * HOUR}, "/not_before"),
        ({"input": {"seconds": "soon"}}, "/input/seconds"),
        ({"input": {"usage": []}}, "/input/usage"),
        ({"model": None}, "/capability"),
    ],
)
def test_what_cannot_be_is_refused_and_pointed_at(fields, param):
    refuse(Invalid, request(account(), deployment(), **fields), param=param)


def test_a_model_or_capability_nobody_offers_is_refused():
    of, to = account(), deployment()
    asked = request(of, to)

    refuse(UnsupportedModel, replace(asked, model="nobody"), param="/model")
    refuse(UnsupportedModel, replace(asked, capability="text.other"), param="/model")
    refuse(UnsupportedCapability, replace(asked, model=None, capability="test.work"), param="/capability")
    Deployment.objects.update(is_active=False)
    refuse(UnsupportedModel, asked, param="/model")


def test_a_capability_that_is_not_installed_is_refused():
    refuse(UnsupportedCapability, request(account(), deployment(capability="test.gone")), param="/capability")


def test_a_capability_alone_means_its_default_deployment():
    to = deployment(is_default=True)
    deployment()

    submitted = lifecycle.submit(replace(request(account(), to), model=None, capability="test.work"))

    assert Task.objects.get(pk=submitted.task_id).deployment == to


def test_too_little_balance_is_refused():
    refuse(InsufficientBalance, request(account("0.9999"), deployment()))


def test_the_credit_limit_may_be_used_up():
    of = account("0", credit_limit=1)

    submit(of)

    assert buckets(of) == {"available": -1, "held": 1, "charged": 0}


def test_the_monthly_cap_is_kept():
    refuse(SpendCapReached, request(account(monthly_cap=Decimal("0.5")), deployment()))


def test_an_account_has_no_more_unfinished_tasks_than_it_may():
    of, to = account(pending_limit=1), deployment()
    task = submit(of, to)

    with pytest.raises(TooManyPendingTasks):
        submit(of, to)
    assert buckets(of) == {"available": 9, "held": 1, "charged": 0}

    lifecycle.cancel(task.pk, by="test")
    assert submit(of, to).status == "queued"


def test_a_deployment_has_no_more_unfinished_tasks_than_it_may():
    to = deployment(max_pending=1)
    first = submit(to=to)

    with pytest.raises(TooManyPendingTasks):
        submit(to=to)
    lifecycle.cancel(first.pk, by="test")

    assert submit(to=to).status == "queued"


@pytest.mark.parametrize("most", ["NaN", "Infinity", "-1", True, None, [1], 10**18])
def test_a_bound_that_is_no_quantity_submits_nothing(most):
    of, to = account(), deployment(prices=[("characters", "1")])

    with pytest.raises(CapabilityError, match="reported usage that is"):
        submit(of, to, input={"bound": {"characters": most}})

    assert not Task.objects.exists()
    assert buckets(of) == {"available": 10, "held": 0, "charged": 0}


@pytest.mark.parametrize(
    ("most", "kept"), [(0.00015, "0.00015"), (1e-7, "0"), (Decimal("1E+3"), "1000"), (2.50, "2.5")]
)
def test_a_bound_is_kept_as_usage_is_measured(most, kept, monkeypatch):
    monkeypatch.setattr(capabilities.get("test.work"), "bound", lambda input: {"audio_seconds": most})

    task = submit(account("1000"), deployment(prices=[("audio_seconds", "1")]))

    assert task.quote["bound"] == {"audio_seconds": kept}
    assert audit.examine().broken == []


def keyed(of, to, body="{}"):
    return request(of, to, idempotency_key=stored_key("native", str(of.pk), "key"), fingerprint=fingerprint(body))


def test_the_same_key_and_body_give_the_same_task():
    of, to = account(), deployment()
    first = lifecycle.submit(keyed(of, to))
    Deployment.objects.update(is_active=False)

    again = lifecycle.submit(keyed(of, to))

    assert (again.task_id, again.json, again.replayed) == (first.task_id, first.json, True)
    assert buckets(of) == {"available": 9, "held": 1, "charged": 0}


def test_the_same_key_with_another_body_is_refused():
    of, to = account(), deployment()
    lifecycle.submit(keyed(of, to))

    with pytest.raises(IdempotencyKeyReused):
        lifecycle.submit(keyed(of, to, body="[]"))
    assert Task.objects.count() == 1


def test_a_key_is_an_account_s_own():
    to = deployment()
    mine, yours = lifecycle.submit(keyed(account(), to)), lifecycle.submit(keyed(account(), to))

    assert mine.task_id != yours.task_id


def test_a_refused_request_binds_nothing():
    of, to = account("0"), deployment()
    with pytest.raises(InsufficientBalance):
        lifecycle.submit(keyed(of, to))

    Account.objects.filter(pk=of.pk).update(credit_limit=1)

    assert not lifecycle.submit(keyed(of, to, body="[]")).replayed


def test_the_order_of_keys_is_no_other_body():
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": 2})


def rerun(task, **fields):
    by = {"account_id": task.account_id, "api_key_id": None, "actor": "api_key:test", **fields}
    return Task.objects.get(pk=lifecycle.rerun(task.pk, **by).task_id)


def test_a_rerun_is_a_new_task_that_points_back():
    task = task_that_is(Status.SUCCEEDED, input={"output": 1}, metadata={"a": "b"}, priority=7, timeout=9)

    again = rerun(task)

    assert (again.rerun_of_id, again.rerun_root, again.status) == (task.pk, task.pk, "queued")
    assert (again.input, again.metadata, again.priority, again.timeout) == ({"output": 1}, {"a": "b"}, 7, 9)
    assert again.runs.get().reason_created == "rerun"
    assert buckets(task.account) == {"available": 8, "held": 1, "charged": 1}
    task.refresh_from_db()
    assert task.status == "succeeded"


@pytest.mark.parametrize("status", sorted(UNFINISHED))
def test_an_unfinished_task_is_not_rerun(status):
    task = task_that_is(status)

    with pytest.raises(TaskNotFinal):
        rerun(task)


def test_a_chain_has_one_unfinished_task():
    task = task_that_is(Status.FAILED)
    again = rerun(task)

    with pytest.raises(TaskNotFinal):
        rerun(task)
    lifecycle.cancel(again.pk, by="test")
    third = rerun(again)

    assert (third.rerun_of_id, third.rerun_root) == (again.pk, task.pk)


def test_a_free_rerun_holds_nothing_and_says_who_gave_it_and_why():
    task = task_that_is(Status.SUCCEEDED)

    again = Task.objects.get(pk=lifecycle.rerun_free(task.pk, by="operator:ann", reason="our fault").task_id)

    assert (again.waived, again.quoted, again.rerun_of_id) == (True, 0, task.pk)
    assert again.quote["rates"] == task.quote["rates"]
    assert buckets(task.account) == {"available": 9, "held": 0, "charged": 1}
    event = again.events.get()
    told = {"held_credits": "0.0000", "waived": True, "private": {"reason": "our fault"}}
    assert (event.type, event.actor, event.data) == ("task.queued", "operator:ann", told)


def test_a_rerun_of_a_free_rerun_is_charged():
    free = lifecycle.rerun_free(task_that_is(Status.FAILED).pk, by="operator:ann", reason="our fault").task_id
    lifecycle.cancel(free, by="test")

    again = rerun(Task.objects.get(pk=free))

    assert (again.waived, again.quoted) == (False, 1)
    assert buckets(again.account) == {"available": 9, "held": 1, "charged": 0}


def test_the_same_key_is_one_free_rerun():
    task = task_that_is(Status.FAILED)
    key = {"idempotency_key": "k", "fingerprint": "k"}

    once, again = (lifecycle.rerun_free(task.pk, by="operator:ann", reason="our fault", **key) for _ in range(2))

    assert (once.task_id, again.replayed) == (again.task_id, True)


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_free_rerun_has_a_reason(reason):
    task = task_that_is(Status.FAILED)

    with pytest.raises(Invalid):
        lifecycle.rerun_free(task.pk, by="operator:ann", reason=reason)

    assert task.account.tasks.count() == 1


@pytest.mark.parametrize("status", sorted(UNFINISHED))
def test_an_unfinished_task_is_not_rerun_for_free(status):
    task = task_that_is(status)

    with pytest.raises(TaskNotFinal):
        lifecycle.rerun_free(task.pk, by="operator:ann", reason="our fault")


def test_a_stranger_s_task_is_not_rerun():
    task = task_that_is(Status.CANCELED)

    with pytest.raises(TaskNotFound):
        rerun(task, account_id=account().pk)


@pytest.mark.django_db(transaction=True)
def test_two_hundred_submissions_leave_sixty_four_messages():
    of, to = account("1000"), deployment(queue="bounded")
    queues._client().delete("bounded")
    for _ in range(200):
        submit(of, to)

    assert queues.depth("bounded") == queues.WAITING
    queues._client().delete("bounded")


@pytest.mark.django_db(transaction=True)
def test_a_refused_submission_wakes_nobody():
    of, to = account("0"), deployment(queue="silent")
    submit_one = partial(lifecycle.submit, request(of, to))

    with pytest.raises(InsufficientBalance):
        submit_one()

    assert queues.depth("silent") == 0
    assert TaskEvent.objects.count() == 0
