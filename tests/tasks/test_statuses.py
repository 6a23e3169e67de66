"""The table of statuses, where Python and the database both keep it."""

import pytest
from django.db import connection

from tasks import lifecycle
from tasks.exceptions import IllegalMove
from tasks.models import Task
from tasks.models.task import FROZEN
from tasks.statuses import FINAL, MOVES, UNFINISHED, ErrorCode, Resolved, Status
from tests.builders import claim, refused, submit, task_that_is

pytestmark = pytest.mark.django_db

PAIRS = [(a, b) for a in Status for b in Status if a != b]
LEGAL = [(a, b) for a, b in PAIRS if b in MOVES[a]]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]
NOW = "2026-01-01T00:00:00Z"
OTHER_VALUES = {
    "account_id": "00000000-0000-7000-8000-000000000000",
    "input": '{"other": 1}',
    "output": '"other"',
    "error": '{"code": "other"}',
    "warnings": '["other"]',
    "usage": '{"characters": "9"}',
    "quote": '{"other": 1}',
    "quoted": "9",
    "usd_rate": "9",
    "metadata": '{"other": "1"}',
    "created_at": NOW,
    "started_at": NOW,
    "completed_at": NOW,
    "cancel_requested_at": NOW,
    "cancel_reason": "other",
    "attempt": "9",
    "capability": "other",
    "model": "other",
    "resolved_model": "other",
    "client_reference": "other",
    "progress": '{"percent": 1}',
    "not_before": NOW,
    "expires_at": NOW,
    "deadline": NOW,
}


def raw(statement, *params):
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.rowcount


def move(task, to):
    return raw(
        "UPDATE tasks_task SET status = %s, completed_at = CASE WHEN %s THEN now() END,"
        " error = CASE WHEN %s THEN '{}'::jsonb END WHERE id = %s",
        to, to in FINAL, to == Status.FAILED, task.pk,
    )  # fmt: skip


@pytest.mark.parametrize(("was", "to"), LEGAL)
def test_the_database_lets_a_legal_move_pass(was, to):
    task = task_that_is(was)

    assert move(task, to) == 1

    assert Task.objects.get(pk=task.pk).status == to


@pytest.mark.parametrize(("was", "to"), ILLEGAL)
def test_the_database_refuses_an_illegal_move(was, to):
    task = task_that_is(was)

    with refused("CF002", "a_status_moves_by_the_table"):
        move(task, to)

    assert Task.objects.get(pk=task.pk).status == was


@pytest.mark.parametrize("was", Status)
@pytest.mark.parametrize("to", Status)
def test_python_checks_the_same_table(was, to):
    locked = lifecycle._lock(task_that_is(was).pk)

    if to in MOVES[was]:
        lifecycle._check(locked, to)
        return

    with pytest.raises(IllegalMove, match=f"{was} to {to}"):
        lifecycle._check(locked, to)


def test_the_verbs_make_every_legal_move_and_leave_its_status():
    made = {
        (Status.QUEUED, Status.RUNNING): lambda task: claim(task),
        (Status.QUEUED, Status.FAILED): lambda task: lifecycle.expire(task.pk),
        (Status.QUEUED, Status.CANCELED): lambda task: lifecycle.cancel(task.pk, by="test"),
        (Status.RUNNING, Status.QUEUED): lambda task: lifecycle.retry(
            task.claimed, code=ErrorCode.WORKER_LOST, message="", resolved=Resolved.CLAIM_EXPIRED
        ),
        (Status.RUNNING, Status.SUCCEEDED): lambda task: lifecycle.succeed(
            task.claimed, output=None, usage={}, warnings=[]
        ),
        (Status.RUNNING, Status.FAILED): lambda task: lifecycle.fail(
            task.claimed, code=ErrorCode.CAPABILITY_ERROR, message=""
        ),
        (Status.RUNNING, Status.CANCELED): lambda task: lifecycle.cancel(task.pk, by="test"),
    }
    assert set(made) == set(LEGAL)

    for (was, to), verb in made.items():
        task = task_that_is(was)
        if verb is made[Status.QUEUED, Status.FAILED]:
            raw("UPDATE tasks_task SET expires_at = now() WHERE id = %s", task.pk)
        verb(task)

        assert Task.objects.get(pk=task.pk).status == to


@pytest.mark.parametrize("status", [status for status in Status if status != Status.QUEUED])
def test_a_task_is_only_born_queued(status):
    task = submit()
    task.pk, task.status = None, status

    with refused("CF002", "a_task_starts_queued"):
        task.save(force_insert=True)


def test_an_unknown_status_is_refused():
    task = submit()

    with refused("CF002", "a_status_moves_by_the_table"):
        move(task, "paused")


def test_every_frozen_column_has_another_value_to_be_refused():
    assert set(FROZEN) == {"status", *OTHER_VALUES}


@pytest.mark.parametrize("column", OTHER_VALUES)
@pytest.mark.parametrize("status", sorted(FINAL))
def test_final_is_final(status, column):
    task = task_that_is(status)

    before = Task.objects.filter(pk=task.pk).values().get()

    with refused("CF001", "final_is_final"):
        raw(f"UPDATE tasks_task SET {column} = %s WHERE id = %s", OTHER_VALUES[column], task.pk)

    assert Task.objects.filter(pk=task.pk).values().get() == before


def test_the_content_of_a_final_task_may_be_deleted_and_nothing_with_it():
    task = task_that_is(Status.SUCCEEDED)
    deletion = "UPDATE tasks_task SET content_deleted_at = now(), input = '{}', output = NULL"

    with refused("CF001", "final_is_final"):
        raw(deletion + ", usage = '[]' WHERE id = %s", task.pk)
    with refused("CF001", "final_is_final"):
        raw("UPDATE tasks_task SET output = NULL WHERE id = %s", task.pk)
    assert raw(deletion + " WHERE id = %s", task.pk) == 1

    with refused("CF001", "final_is_final"):
        raw("UPDATE tasks_task SET output = '1' WHERE id = %s", task.pk)


@pytest.mark.parametrize("status", sorted(UNFINISHED))
def test_an_unfinished_task_is_never_deleted(status):
    task = task_that_is(status)

    with refused("CF001", "only_a_final_task_is_purged"):
        raw("DELETE FROM tasks_task WHERE id = %s", task.pk)


def test_a_final_task_may_be_purged():
    task = task_that_is(Status.CANCELED)

    task.delete()

    assert not Task.objects.exists()


def test_the_tasks_are_never_truncated():
    with refused("CF001", "no_truncate"):
        raw("TRUNCATE tasks_task CASCADE")
