"""Pause and resume, priority and deadline, drain: what decides when a task runs, and that its times run on."""

from datetime import timedelta

import pytest
from django.utils.timezone import now

from tasks import lifecycle, queues, sweep, waiting
from tasks.exceptions import Invalid, TaskEnded, TaskNotFound, TaskNotQueued
from tasks.models import Deployment, Task
from tasks.statuses import ErrorCode, Resolved, Status
from tests.builders import account, assert_sound, claim, deployment, submit, task_that_is
from tests.workload.threads import together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def woken(monkeypatch):
    seen = []
    monkeypatch.setattr(queues, "wake", seen.append)
    return seen


def state(task):
    task.refresh_from_db()
    return task.status, task.paused_at is not None, task.seq


def last_event(task):
    return task.events.order_by("seq").values_list("seq", "type", "actor", "data").last()


def next_of(queue="default"):
    claimed = lifecycle.claim(queue, worker="test")
    return claimed and claimed.task_id


def test_a_paused_task_waits_until_it_is_resumed(woken):
    task = submit()

    assert lifecycle.pause(task.pk, by="operator:ann", reason="too early")
    assert not lifecycle.pause(task.pk, by="operator:bob")
    assert (state(task), next_of()) == (("queued", True, 2), None)
    assert last_event(task) == (2, "task.paused", "operator:ann", {"private": {"reason": "too early"}})
    woken.clear()

    assert lifecycle.resume(task.pk, by="operator:ann")
    assert not lifecycle.resume(task.pk, by="operator:ann")
    assert state(task) == ("queued", False, 3)
    assert last_event(task) == (3, "task.resumed", "operator:ann", {})
    assert (woken, next_of()) == (["default"], task.pk)


def test_a_task_in_its_back_off_can_be_paused():
    task = task_that_is(Status.RUNNING)
    lifecycle.retry(task.claimed, code=ErrorCode.WORKER_LOST, message="", resolved=Resolved.CLAIM_EXPIRED)

    lifecycle.pause(task.pk, by="test")
    Task.objects.filter(pk=task.pk).update(available_at=task.created_at)

    assert next_of() is None
    lifecycle.resume(task.pk, by="test")
    assert next_of() == task.pk


@pytest.mark.parametrize("status", [Status.RUNNING, Status.SUCCEEDED, Status.FAILED, Status.CANCELED])
def test_only_a_queued_task_is_paused_or_resumed(status):
    task = task_that_is(status)
    before = state(task)

    for verb in (lifecycle.pause, lifecycle.resume):
        with pytest.raises(TaskNotQueued):
            verb(task.pk, by="test")

    assert state(task) == before


def test_pause_against_claim_has_one_winner():
    of, to = account("1000", running_limit=100), deployment()

    for _ in range(20):
        task = submit(of, to)
        paused, claimed = together(lambda t=task: lifecycle.pause(t.pk, by="test"), lambda: next_of())
        if claimed is None:
            assert (paused, state(task)[:2]) == (True, ("queued", True))
            lifecycle.cancel(task.pk, by="test")
        else:
            assert isinstance(paused, TaskNotQueued)
            assert state(task)[:2] == ("running", False)
    assert_sound(of)


@pytest.mark.parametrize("how", ["paused", "drained", "backing off", "waiting for its time", "at its account's limit"])
@pytest.mark.parametrize(("time", "ends"), [("deadline", "expired"), ("expires_at", "expired")])
def test_times_run_on_whatever_a_task_waits_for(how, time, ends):
    to, of = deployment(), account(running_limit=0 if "limit" in how else 10)
    task = submit(of, to, not_before=now() + timedelta(hours=1) if "time" in how else None)
    if how == "paused":
        lifecycle.pause(task.pk, by="test")
    if how == "drained":
        waiting.drain(to.pk)
    if how == "backing off":
        Task.objects.filter(pk=task.pk).update(available_at=now() + timedelta(hours=1))
    Task.objects.filter(pk=task.pk).update(**{time: now() - timedelta(seconds=1)})

    sweep.once()

    task.refresh_from_db()
    assert (task.status, task.error["code"]) == ("failed", ends)
    assert_sound(of)


def test_priority_is_changed_until_the_end():
    of, to = account(), deployment()
    first, second = submit(of, to), submit(of, to)

    assert lifecycle.change_priority(second.pk, 9, by="operator:ann", reason="the director asked")
    assert not lifecycle.change_priority(second.pk, 9, by="operator:ann", reason="again")

    told = {"priority": 9, "before": 5, "private": {"reason": "the director asked"}}
    assert last_event(second) == (2, "task.priority_changed", "operator:ann", told)
    assert [next_of(), next_of()] == [second.pk, first.pk]
    lifecycle.cancel(second.pk, by="test")
    with pytest.raises(TaskEnded):
        lifecycle.change_priority(second.pk, 1, by="operator:ann", reason="too late")
    for odd in (-1, 10):
        with pytest.raises(Invalid):
            lifecycle.change_priority(first.pk, odd, by="operator:ann", reason="odd")


def test_a_deadline_is_extended_within_its_deployments_lifetime():
    task = submit(to=deployment(max_lifetime=7200), deadline=now() + timedelta(hours=1))
    later = task.created_at + timedelta(hours=2)

    for odd in (task.deadline, now() - timedelta(hours=1), later + timedelta(seconds=1)):
        with pytest.raises(Invalid):
            lifecycle.extend_deadline(task.pk, odd, by="operator:ann", reason="odd")
    lifecycle.extend_deadline(task.pk, later, by="operator:ann", reason="it takes longer")

    told = {"deadline": later.isoformat(), "before": task.deadline.isoformat()}
    assert last_event(task) == (
        2,
        "task.deadline_extended",
        "operator:ann",
        told | {"private": {"reason": "it takes longer"}},
    )
    task.refresh_from_db()
    assert task.deadline == later
    lifecycle.cancel(task.pk, by="test")
    with pytest.raises(TaskEnded):
        lifecycle.extend_deadline(task.pk, later, by="operator:ann", reason="too late")


def test_a_running_worker_hears_of_its_new_deadline():
    task = submit(to=deployment(max_lifetime=7200), deadline=now() + timedelta(hours=1))
    claimed = claim(task)

    lifecycle.extend_deadline(task.pk, task.deadline + timedelta(minutes=30), by="operator:ann", reason="more")

    assert 5390 < lifecycle.renew(claimed.token) <= 5400


def test_a_drained_deployment_takes_tasks_and_starts_none_until_it_is_resumed(woken):
    of, to = account(), deployment()
    running, waits = submit(of, to), submit(of, to)
    claimed = claim(running)

    assert waiting.drain(to.pk)
    assert not waiting.drain(to.pk)
    lifecycle.succeed(claimed, output=None, usage={}, warnings=[])
    later = submit(of, to)
    assert next_of() is None
    woken.clear()

    assert waiting.undrain(to.pk)
    assert not waiting.undrain(to.pk)
    assert woken == ["default"]
    assert Deployment.objects.get(pk=to.pk).drained_at is None
    assert [next_of(), next_of()] == [waits.pk, later.pk]
    assert_sound(of)


def test_a_task_that_is_not_there_is_not_found():
    stranger = account().pk

    for verb in (lifecycle.pause, lifecycle.resume):
        with pytest.raises(TaskNotFound):
            verb(stranger, by="test")
