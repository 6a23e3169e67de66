"""The database is away: crashed and restarted, failed over, or cut off from some. Work goes on; money moves once."""

import subprocess
import sys
import time

import pytest
from django.conf import settings
from django.db import connection

from billing import audit
from tasks.models import Callback
from tests.builders import account, assert_sound, buckets, deployment, submit
from tests.config.running import free_port
from tests.faults.engines import Database, Line
from tests.faults.processes import HASTE, Crew, ended, environment, runs, until
from tests.faults.promises import Client
from tests.receiver import Receiver

# Long enough for twenty processes of a busy machine to be heard again.
LEASE = 5.0
BRISK = {**HASTE, "LEASE_SECONDS": str(LEASE)}
SLOW = {"LEASE_SECONDS": "60", "HEARTBEAT_SECONDS": "15", "SWEEP_SECONDS": "2"}


@pytest.fixture(scope="module")
def database(django_db_setup, django_db_blocker):
    """A database of our own, which is the test's as well as its processes'."""
    with Database() as own, django_db_blocker.unblock():
        connection.close()
        ours = {"NAME": "counterfoil", "USER": "counterfoil", "HOST": str(own.folder), "PORT": "5432"}
        kept = {name: connection.settings_dict[name] for name in ours}
        connection.settings_dict.update(ours)
        try:
            migrate = [sys.executable, "manage.py", "migrate", "-v0"]
            subprocess.run(migrate, cwd=settings.BASE_DIR, env=environment(), check=True, timeout=60)
            yield own
        finally:
            connection.close()
            connection.settings_dict.update(kept)


@pytest.fixture
def line(database, tmp_path):
    """Another way to the database, which can be cut."""
    with Line(tmp_path / ".s.PGSQL.5432", database.folder / ".s.PGSQL.5432") as line:
        yield line


@pytest.fixture
def hire(database, tmp_path):
    """Crews that reach the database by this socket folder."""
    crews = []

    def hire(folder=database.folder, **more):
        url = f"postgres://counterfoil@/counterfoil?host={folder}&port=5432"
        (tmp_path / str(len(crews))).mkdir()
        crews.append(Crew(tmp_path / str(len(crews)), **{"DATABASE_URL": url, "WEB_STREAMS": "8", **BRISK, **more}))
        return crews[-1]

    yield hire
    for crew in crews:
        print(crew.said())
        crew.dismiss()


def begun(queue, *, seconds, receiver, number=20):
    """So many running tasks of one account, with callbacks."""
    of, to = account("100", running_limit=number), deployment(queue=queue)
    work = {"how": "sleep", "seconds": seconds}
    tasks = [submit(of, to, input=work, callback_url=receiver.url) for _ in range(number)]
    until(lambda: sum(task.runs.filter(status="running").exists() for task in tasks) == number, within=30)
    return of, tasks


def all_succeed_at_once(of, tasks, *, within):
    """Every one without a retry, charged once, its callback delivered."""
    over = [ended(task, within=within) for task in tasks]
    assert {(task.status, task.attempt, task.retries_left) for task in over} == {("succeeded", 1, 2)}
    assert [runs(task) for task in tasks] == [[("succeeded", "completed")]] * len(tasks)
    assert buckets(of) == {"available": 100 - len(tasks), "held": 0, "charged": len(tasks)}
    until(lambda: not Callback.objects.filter(task__in=tasks).exclude(status="delivered").exists())
    assert_sound(of)
    assert audit.run().broken == []


def unavailable(client):
    answer = client.insist("GET", "/v1/tasks")
    return answer.status == 503 and answer


@pytest.mark.parametrize(
    ("times", "away", "work"),
    [
        pytest.param(BRISK, 2 * LEASE, LEASE, marks=pytest.mark.chaos),
        pytest.param(SLOW, 90, 60, marks=[pytest.mark.chaos, pytest.mark.timeout(300)]),
    ],
    ids=["two short leases", "90 seconds"],
)
def test_twenty_running_tasks_outlive_a_database_that_crashed(database, hire, times, away, work):
    crew, port = hire(**times), free_port()
    crew.worker("away", "callbacks", children=22)
    crew.sweeper()
    web = crew.web(port)
    with Receiver() as receiver:
        of, tasks = begun("away", seconds=work, receiver=receiver)
        client = Client(port, of)
        assert client.insist("GET", "/v1/tasks").status == 200
        connection.close()
        database.crash()

        refused = until(lambda: unavailable(client))
        time.sleep(away)
        database.start()

        all_succeed_at_once(of, tasks, within=60)
        until(lambda: client.insist("GET", "/v1/tasks").status == 200)
    assert refused.body["error"]["code"] == "unavailable"
    assert refused.headers["retry-after"] == "2"
    assert web.poll() is None


@pytest.mark.chaos
def test_nobody_loses_a_task_when_everybody_is_cut_off_from_a_database_that_runs_on(line, hire):
    crew = hire(line.here.parent)
    crew.worker("cut", "callbacks", children=22)
    crew.sweeper()
    with Receiver() as receiver:
        of, tasks = begun("cut", seconds=LEASE, receiver=receiver)
        line.cut()
        time.sleep(2 * LEASE)
        line.join()

        all_succeed_at_once(of, tasks, within=30)


@pytest.mark.chaos
def test_a_worker_that_alone_is_cut_off_loses_its_task_to_another_and_it_is_charged_once(line, hire, tmp_path):
    alone, others = hire(line.here.parent), hire()
    alone.worker("part")
    others.sweeper()
    with Receiver() as receiver:
        of, (task,) = begun("part", seconds=2 * LEASE, receiver=receiver, number=1)
        line.cut()
        others.worker("part", "callbacks", children=2)
        over = ended(task, within=30)
        line.join()
        until(lambda: "too late" in alone.said())

        assert (over.status, over.attempt) == ("succeeded", 2)
        assert runs(task) == [("exception", "claim_expired"), ("succeeded", "completed")]
        assert buckets(of) == {"available": 99, "held": 0, "charged": 1}
        assert audit.run().broken == []
