"""Tasks pile up while no worker runs: the broker holds a bounded number of hints, and the rows hold the rest."""

import threading
import time

import pytest
import redis
from django.conf import settings
from django.db import connection

from tasks import lifecycle, queues, sweep
from tasks.models import Task
from tests.builders import account, assert_sound, deployment, request, submit
from tests.faults.processes import Crew, until
from tests.workload.threads import together

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE = "backlog"
# Those who look at the depth at the same moment may each add one.
AT_ONCE = 4


@pytest.fixture
def broker():
    client = redis.from_url(settings.REDIS_URL)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


def crowd(of, to, many):
    for _ in range(many):
        lifecycle.submit(request(of, to))


def test_a_backlog_leaves_the_broker_as_it_is(broker):
    of, to = account("1000", pending_limit=1000, running_limit=1000), deployment(queue=QUEUE, prices=())
    crowd(of, to, 300)
    before = broker.info("memory")["used_memory"]

    depths = set()
    for _ in range(200):
        sweep.once()
        depths.add(queues.depth(QUEUE))

    assert depths == {queues.WAITING}
    assert broker.info("memory")["used_memory"] - before < 2**18


@pytest.mark.scale
@pytest.mark.timeout(600)
def test_twenty_thousand_tasks_wait_out_ten_minutes_without_workers(broker, tmp_path):
    """Ten minutes are 300 ticks of the sweeper, here 30 s. Then workers come, and a newcomer's task is their first."""
    of, to = account("1000", pending_limit=20_000, running_limit=4), deployment(queue=QUEUE, prices=())
    before = broker.info("memory")["used_memory"]
    crew = Crew(tmp_path, SWEEP_SECONDS="0.1")
    crew.sweeper()
    depths, over = [], threading.Event()
    watching = threading.Thread(target=watch, args=[depths, over])
    watching.start()
    try:
        assert together(*[lambda: crowd(of, to, 5_000)] * 4) == [None] * 4
        time.sleep(30)

        assert Task.objects.filter(status="queued").count() == 20_000
        assert broker.info("memory")["used_memory"] - before < 2**20
        newcomer = submit(account(), to, priority=0)
        started = time.monotonic()
        crew.worker(QUEUE, children=2)
        until(lambda: Task.objects.get(pk=newcomer.pk).status == "succeeded", within=30)
        waited = time.monotonic() - started
        until(lambda: Task.objects.filter(status="succeeded").count() > 500, within=60)
    finally:
        over.set()
        watching.join()
        crew.dismiss()
        print(crew.said())
    print(f"newcomer after {waited:.1f} s with the workers' start; depth up to {max(depths)} in {len(depths)} looks")
    assert max(depths) <= queues.WAITING + AT_ONCE
    for task in of.tasks.filter(status="running"):
        lifecycle.cancel(task.pk, by="test")
    assert_sound(of)


def watch(depths, over):
    while not over.wait(0.02):
        depths.append(queues.depth(QUEUE))
    connection.close()
