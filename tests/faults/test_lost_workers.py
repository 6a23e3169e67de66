"""Workers that are killed: the task is retried by another, charged once, or given up when it kills each of them."""

import os
import signal

import pytest

from tests.builders import account, assert_sound, buckets, deployment, submit
from tests.faults.processes import ended, kill_group, runs, until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def sweeper(crew):
    """Swept from the beginning; ended before the tables are flushed."""
    process = crew.sweeper()
    yield process
    kill_group(process)


def sleeper(witness, **more):
    return {"how": "sleep", "seconds": 60, "attempts": 1, "output": "done", "witness": str(witness), **more}


def test_the_task_of_a_killed_child_is_retried_and_charged_once(crew, witness):
    worker = crew.worker("child")
    task = submit(to=deployment(queue="child"), input=sleeper(witness))
    (child,) = until(witness.pids)

    os.kill(child, signal.SIGKILL)
    task = ended(task)

    assert (task.status, task.output, task.attempt, task.retries_left) == ("succeeded", "done", 2, 1)
    assert runs(task) == [("exception", "claim_expired"), ("succeeded", "completed")]
    assert buckets(task.account) == {"available": 9, "held": 0, "charged": 1}
    assert worker.poll() is None
    assert_sound(task.account)


def test_the_task_of_a_killed_worker_is_retried_by_another(crew, witness):
    worker = crew.worker("whole")
    task = submit(to=deployment(queue="whole"), input=sleeper(witness))
    until(witness.pids)

    kill_group(worker)
    crew.worker("whole")
    task = ended(task)

    assert (task.status, task.attempt) == ("succeeded", 2)
    assert runs(task)[0] == ("exception", "claim_expired")
    assert len(set(witness.pids())) == 2
    assert buckets(task.account) == {"available": 9, "held": 0, "charged": 1}


@pytest.mark.parametrize(("how", "retries"), [("die", 1), pytest.param("leave", 0, marks=pytest.mark.chaos)])
def test_a_task_that_kills_its_workers_is_given_up_for_nothing(crew, witness, how, retries):
    crew.worker(how)
    of, to = account(), deployment(queue=how, max_retries=retries)
    task = submit(of, to, input={"how": how, "witness": str(witness)})
    task = ended(task)

    after = ended(submit(of, to))

    assert (task.status, task.error["code"]) == ("failed", "worker_lost")
    assert runs(task) == [("exception", "claim_expired")] * (retries + 1)
    assert len(set(witness.pids())) == retries + 1
    assert after.status == "succeeded"
    assert buckets(of) == {"available": 9, "held": 0, "charged": 1}
    assert_sound(of)
