"""Workers that are asked to stop."""

import signal

import pytest

from tasks.models import Task
from tests.builders import assert_sound, buckets, deployment, submit
from tests.faults.processes import ended, kill_group, runs, until

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_worker_asked_to_stop_finishes_its_task_and_leaves_the_next(crew, witness):
    worker = crew.worker("warm")
    to = deployment(queue="warm")
    task = submit(to=to, input={"how": "sleep", "seconds": 1, "witness": str(witness)})
    until(witness.pids)
    waiting = submit(to=to)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(10) == 0
    assert Task.objects.get(pk=task.pk).status == "succeeded"
    assert Task.objects.get(pk=waiting.pk).status == "queued"


def test_a_worker_told_to_stop_now_gives_its_task_back_unspent(crew, witness):
    worker = crew.worker("cold")
    to = deployment(queue="cold", max_retries=0)
    task = submit(to=to, input={"how": "sleep", "seconds": 60, "attempts": 1, "witness": str(witness)})
    until(witness.pids)

    worker.send_signal(signal.SIGQUIT)
    worker.wait(10)
    kill_group(worker)
    crew.worker("cold")
    task = ended(task)

    assert task.status == "succeeded"
    assert runs(task) == [("exception", "worker_shutdown"), ("succeeded", "completed")]
    assert buckets(task.account) == {"available": 9, "held": 0, "charged": 1}
    assert_sound(task.account)
