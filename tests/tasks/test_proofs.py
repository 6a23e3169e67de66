"""The audit of tasks: it holds on honest rows, and finds each kind of tampering."""

import pytest
from django.db import connection

from billing import audit
from tasks import lifecycle, runner
from tasks.models import Task
from tests import builders

pytestmark = pytest.mark.django_db

TAMPERED = {
    "UPDATE billing_account SET pending = pending + 1": "counters_are_tasks",
    "UPDATE billing_account SET running = 5": "counters_are_tasks",
    "UPDATE tasks_task SET quoted = 7 WHERE id = '%(queued)s'": "tasks_hold_their_quotes",
    "UPDATE tasks_task SET quoted = 0.5 WHERE id = '%(done)s'": "charges_stay_within_quotes",
    "UPDATE tasks_task SET status = 'canceled', completed_at = now() WHERE id = '%(queued)s'": "tasks_end_once",
    "DELETE FROM tasks_taskevent WHERE type = 'task.succeeded'": "tasks_end_once",
    "UPDATE tasks_run SET status = 'running' WHERE task_id = '%(queued)s'": "tasks_end_once",
    "DELETE FROM tasks_callback": "ended_tasks_owe_callbacks",
    "DELETE FROM tasks_taskevent WHERE task_id = '%(queued)s'; DELETE FROM tasks_run WHERE task_id = '%(queued)s';"
    "DELETE FROM tasks_task WHERE id = '%(queued)s'; UPDATE billing_account SET pending = 0": "holds_have_their_tasks",
    "DELETE FROM tasks_taskevent WHERE type = 'task.paused'": "events_tell_the_truth",
    "UPDATE tasks_task SET paused_at = NULL": "events_tell_the_truth",
    "UPDATE tasks_taskevent SET actor = 'system' WHERE type = 'task.paused'": "events_tell_the_truth",
    "UPDATE tasks_taskevent SET actor = '' WHERE type = 'task.paused'": "events_tell_the_truth",
    "UPDATE tasks_task SET priority = 4 WHERE id = '%(queued)s'": "events_tell_the_truth",
    "UPDATE tasks_task SET deadline = created_at - interval '1 day' WHERE id = '%(queued)s'": "runs_fit_their_task",
    "UPDATE tasks_task SET retries_left = retries_left + 1 WHERE id = '%(queued)s'": "runs_fit_their_task",
    "UPDATE tasks_task SET blocked = 1 WHERE id = '%(queued)s'": "runs_fit_their_task",
    """UPDATE tasks_task SET status = 'failed', error = '{"code": "capability_error"}' WHERE id = '%(done)s'""": (
        "only_work_is_charged"
    ),
    "UPDATE tasks_task SET status = 'canceled' WHERE id = '%(done)s'": "only_work_is_charged",
    "DELETE FROM billing_usageline WHERE task_id = '%(waived)s'": "usage_has_its_lines",
    "UPDATE tasks_task SET quote = jsonb_set(quote, '{rates,0,credits}', '[]')": "quotes_follow_their_prices",
    "INSERT INTO billing_pricewithdrawal (price_id, actor, reason) SELECT id, '', '' FROM billing_price": (
        "quotes_follow_their_prices"
    ),
}


@pytest.fixture
def tasks():
    account, to = builders.account(), builders.deployment()
    done = builders.submit(account, to, callback_url="http://127.0.0.1:9/")
    runner._run(lifecycle.claim(to.queue, worker="w"))
    waived = lifecycle.rerun_free(done.pk, by="operator:ann", reason="ours").task_id
    runner._run(lifecycle.claim(to.queue, worker="w"))
    queued = builders.submit(account, to).pk
    lifecycle.pause(queued, by="operator:ann")
    lifecycle.change_priority(queued, 7, by="operator:ann", reason="urgent")
    return {"done": done.pk, "waived": waived, "queued": queued}


@pytest.mark.django_db(transaction=True)
def test_honest_rows_pass(tasks):
    report = audit.run()

    assert report.holds, report.broken
    assert report.counts["tasks"] == Task.objects.count() == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("tampering", TAMPERED)
def test_the_audit_names_what_was_tampered_with(tasks, tampering):
    tables = ("billing_account", "tasks_task", "tasks_run", "tasks_taskevent", "tasks_callback", "billing_usageline",
              "billing_pricewithdrawal")  # fmt: skip

    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(tampering % tasks)
        for table in tables:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
    broken = [result.check.name for result in audit.run().broken]

    assert TAMPERED[tampering] in broken
