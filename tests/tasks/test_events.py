"""The timeline of a task: every move with a seq of its own, in order."""

from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import IntegrityError, transaction

from tasks import events, lifecycle
from tasks.models import Task, TaskEvent
from tasks.statuses import ErrorCode, Resolved, Status
from tests.builders import claim, submit, task_that_is

pytestmark = pytest.mark.django_db


def timeline(task, **of):
    return [(event.seq, event.type) for event in events.follow(task.pk, **of)]


def refund(task):
    lifecycle.refund(task.pk, Decimal("0.1"), key=str(uuid4()), reason="sorry", by="operator:ann")


def test_the_timeline_of_a_task_is_contiguous():
    task = task_that_is(Status.SUCCEEDED)

    refund(task)

    assert timeline(task) == [(1, "task.queued"), (2, "task.running"), (3, "task.succeeded"), (4, "task.refunded")]
    assert Task.objects.get().seq == 4


def test_progress_takes_a_seq_without_an_event():
    task = task_that_is(Status.RUNNING)

    lifecycle.progress(task.claimed, percent=1, stage=None, message=None)
    lifecycle.cancel(task.pk, by="test")

    assert timeline(task) == [(1, "task.queued"), (2, "task.running"), (4, "task.canceled")]


def test_a_retry_is_told_with_its_reason_and_attempt():
    task = task_that_is(Status.RUNNING)

    lifecycle.retry(task.claimed, code=ErrorCode.WORKER_LOST, message="", resolved=Resolved.CLAIM_EXPIRED)
    Task.objects.update(available_at=task.created_at)
    claim(task)

    told = list(task.events.order_by("seq").values_list("type", "data"))
    assert told == [
        ("task.queued", {"held_credits": "1.0000"}),
        ("task.running", {"attempt": 1}),
        ("task.queued", {"attempt": 2, "reason": "claim_expired"}),
        ("task.running", {"attempt": 2}),
    ]


def test_each_event_names_its_actor():
    task = submit()

    lifecycle.cancel(task.pk, by="operator:ann")

    assert [event.actor for event in events.follow(task.pk)] == ["api_key:test", "operator:ann"]


def test_followers_begin_where_they_were():
    task = task_that_is(Status.SUCCEEDED)

    assert timeline(task, after=1) == [(2, "task.running"), (3, "task.succeeded")]
    assert timeline(task, after=1, limit=1) == [(2, "task.running")]
    assert timeline(task, after=3) == []


def test_an_event_takes_the_next_seq_of_its_task():
    task = submit()

    assert events.record(task.pk, "task.paused", actor="operator:ann", note="x") == 2

    assert (Task.objects.get().seq, task.events.get(seq=2).data) == (2, {"note": "x"})


def test_an_event_of_a_purged_task_is_not_written():
    assert events.record(uuid4(), "task.paused", actor="test") is None


def test_two_events_never_share_a_seq():
    task = submit()

    with pytest.raises(IntegrityError, match="events_of_a_task_are_numbered"), transaction.atomic():
        TaskEvent.objects.create(task=task, seq=1, type="task.other", actor="test")
