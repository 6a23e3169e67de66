"""Workers that are asked to stop."""

import contextlib
import os
import signal
import time

import pytest
from django.db import connection

from tasks import lifecycle
from tasks.models import Task
from tests.builders import assert_sound, buckets, deployment, submit
from tests.faults.processes import Crew, alive, ended, kill_group, runs, until

pytestmark = pytest.mark.django_db(transaction=True)


def work(how, witness, **more):
    return {"how": how, "seconds": 60, "witness": str(witness), **more}


def test_a_worker_asked_to_stop_finishes_its_task_and_leaves_the_next(crew, witness):
    worker = crew.worker("warm")
    to = deployment(queue="warm")
    task = submit(to=to, input={"how": "sleep", "seconds": 1, "witness": str(witness)})
    until(witness.pids)
    waiting = submit(to=to)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(20) == 0
    assert Task.objects.get(pk=task.pk).status == "succeeded"
    assert Task.objects.get(pk=waiting.pk).status == "queued"


@pytest.fixture
def hasty(tmp_path):
    """Workers that give running work half a second when they are asked to stop."""
    crew = Crew(tmp_path, STOP_SECONDS="0.5")
    yield crew
    crew.dismiss()
    print(crew.said())


@pytest.mark.parametrize(
    "how", ["busy", "swallow", *(pytest.param(how, marks=pytest.mark.chaos) for how in ("sleep", "query", "hog"))]
)
def test_a_worker_asked_to_stop_gives_back_what_does_not_end_in_its_time(hasty, witness, how):
    queue = f"late-{how}"
    worker = hasty.worker(queue)
    task = submit(to=deployment(queue=queue, max_retries=0), input=work(how, witness))
    (child,) = until(witness.pids)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(20) is not None
    assert not alive(child)
    task.refresh_from_db()
    assert (task.status, task.attempt, task.retries_left) == ("queued", 2, 0)
    assert runs(task)[0] == ("exception", "worker_shutdown")
    assert "WorkerLostError" not in hasty.said() or how == "swallow"
    assert_sound(task.account)


def test_a_worker_asked_twice_gives_its_work_the_same_time(hasty, witness):
    worker = hasty.worker("twice")
    task = submit(to=deployment(queue="twice"), input=work("sleep", witness))
    until(witness.pids)

    worker.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(20) == 0
    assert runs(task) == [("exception", "worker_shutdown"), ("pending", None)]


def test_an_idle_worker_stops_at_once(hasty, witness):
    worker = hasty.worker("idle")
    ended(submit(to=deployment(queue="idle")))

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(15) == 0


def test_a_process_that_is_asked_alone_gives_its_task_back_and_is_replaced(hasty, witness):
    hasty.worker("alone")
    task = submit(to=deployment(queue="alone", max_retries=0), input=work("sleep", witness, attempts=1))
    (child,) = until(witness.pids)

    os.kill(child, signal.SIGTERM)
    hasty.sweeper()
    task = ended(task)

    assert runs(task) == [("exception", "worker_shutdown"), ("succeeded", "completed")]
    assert len(set(witness.pids())) == 2


@pytest.mark.chaos
def test_work_that_asks_its_own_process_to_stop_does_not_go_on_for_ever(tmp_path, witness):
    crew = Crew(tmp_path, RETRY_BACKOFF_SECONDS="0.01")
    try:
        crew.sweeper()
        crew.worker("self")
        task = submit(to=deployment(queue="self", max_retries=0), input=work("terminate", witness))
        task = ended(task, within=60)
    finally:
        crew.dismiss()
        print(crew.said())

    assert (task.status, task.error["code"]) == ("failed", "worker_lost")
    assert runs(task) == [("exception", "worker_shutdown")] * (lifecycle.FREE_RETURNS + 1)
    assert_sound(task.account)


def test_a_worker_asked_to_stop_while_the_database_is_away_stops(hasty, witness):
    worker = hasty.worker("away")
    task = submit(to=deployment(queue="away"), input=work("sleep", witness, seconds=1))
    until(witness.pids)

    with nobody_connects():
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(25) == 0

    task.refresh_from_db()
    assert task.status == "running"  # until its lease runs out
    lifecycle.cancel(task.pk, by="test")


@contextlib.contextmanager
def nobody_connects():
    """The database has no connection but ours, and lets nobody in."""
    name = connection.ops.quote_name(connection.settings_dict["NAME"])
    others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 0")
        try:
            cursor.execute(f"{others} AND pid <> pg_backend_pid()")
            yield
        finally:
            cursor.execute(f"ALTER DATABASE {name} CONNECTION LIMIT -1")


def test_a_worker_told_to_stop_now_gives_its_task_back_unspent(crew, witness):
    worker = crew.worker("cold")
    to = deployment(queue="cold", max_retries=0)
    task = submit(to=to, input={"how": "sleep", "seconds": 60, "attempts": 1, "witness": str(witness)})
    until(witness.pids)

    worker.send_signal(signal.SIGQUIT)
    worker.wait(20)
    kill_group(worker)
    crew.worker("cold")
    task = ended(task)

    assert task.status == "succeeded"
    assert runs(task) == [("exception", "worker_shutdown"), ("succeeded", "completed")]
    assert buckets(task.account) == {"available": 9, "held": 0, "charged": 1}
    assert_sound(task.account)
