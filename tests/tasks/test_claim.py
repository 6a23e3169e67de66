"""Who is next: fairness between accounts, order inside one, and what is never claimed."""

import json
import time
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils.timezone import now

from billing.models import Account
from billing.statements import rows
from tasks import lifecycle
from tasks.models import Deployment, Task
from tasks.models.task import NO_PROGRESS
from tasks.sql import load
from tasks.submission import FULL
from tests.builders import account, assert_sound, claim, deployment, submit

pytestmark = pytest.mark.django_db

SOME = timedelta(hours=1)


def next_of(queue="default"):
    claimed = lifecycle.claim(queue, worker="test")
    return claimed and claimed.task_id


def change(task, **fields):
    Task.objects.filter(pk=task.pk).update(**fields)


def newcomer_s_turn(queue, newcomer, *, workers):
    """After how many claims the newcomer's task is claimed, by so many workers that each end one before the next."""
    running = []
    for claims in range(1, 20):
        if len(running) == workers:
            lifecycle.succeed(running.pop(0), output=None, usage={}, warnings=[])
        running.append(lifecycle.claim(queue, worker="test"))
        if running[-1].task_id == newcomer.pk:
            return claims
    return None


def test_the_account_with_the_fewest_running_goes_first():
    to = deployment()
    busy, idle = account(), account()
    tasks = [submit(busy, to, priority=9) for _ in range(3)]
    claim(tasks[0])
    late = submit(idle, to, priority=0)

    assert [next_of(), next_of(), next_of()] == [late.pk, tasks[1].pk, tasks[2].pk]


def test_between_equals_the_higher_priority_goes_first_and_then_the_older():
    to = deployment()
    old, new, urgent = submit(to=to), submit(to=to), submit(to=to, priority=6)

    assert [next_of(), next_of(), next_of()] == [urgent.pk, old.pk, new.pk]


def test_with_one_worker_accounts_take_turns_and_a_newcomer_is_next():
    to = deployment()
    old, new = account("20"), account("20")
    crowd = [submit(old, to, priority=9) for _ in range(6)]
    served = [next_of()]
    lifecycle.cancel(served[0], by="test")
    late = [submit(new, to, priority=0) for _ in range(3)]

    for _ in range(5):
        served.append(next_of())
        lifecycle.cancel(served[-1], by="test")

    assert served == [crowd[0].pk, late[0].pk, crowd[1].pk, late[1].pk, crowd[2].pk, late[2].pk]


def test_with_more_backlogged_accounts_than_workers_a_newcomer_waits_for_no_backlog():
    to = deployment(queue="short-of-workers")
    for _ in range(4):
        crowd = account()
        for _ in range(4):
            submit(crowd, to)
    newcomer = submit(to=to)

    assert newcomer_s_turn("short-of-workers", newcomer, workers=3) <= 5


def test_what_an_account_runs_in_another_queue_costs_it_no_turn_in_this_one():
    to, elsewhere = deployment(queue="here"), deployment(queue="elsewhere")
    small, crowd = account(), account("20")
    for _ in range(3):
        claim(submit(small, elsewhere))
    for _ in range(10):
        submit(crowd, to)
    newcomer = submit(small, to)

    assert newcomer_s_turn("here", newcomer, workers=2) <= 2


def test_inside_an_account_priority_decides_and_then_age():
    of, to = account(), deployment()
    low, old, new, high = (submit(of, to, priority=priority) for priority in (0, 5, 5, 9))

    assert [next_of() for _ in range(5)] == [high.pk, old.pk, new.pk, low.pk, None]


def test_five_hundred_waiting_tasks_of_one_account_do_not_starve_another():
    to = deployment()
    crowd, single = account("1000", running_limit=1000), account()
    for _ in range(500):
        submit(crowd, to, priority=9)
    assert next_of() is not None
    alone = submit(single, to, priority=0)

    assert next_of() == alone.pk


def test_an_account_at_its_limit_waits():
    of, to = account(running_limit=1), deployment()
    first, second = submit(of, to), submit(of, to)
    claimed = claim(first)

    assert next_of() is None
    lifecycle.succeed(claimed, output=None, usage={}, warnings=[])
    assert next_of() == second.pk
    assert_sound(of)


def test_a_limit_that_was_lowered_blocks_only_new_claims():
    of, to = account(), deployment()
    claimed = [claim(submit(of, to)) for _ in range(3)]
    waiting = submit(of, to)
    type(of).objects.filter(pk=of.pk).update(running_limit=2)

    for ended in claimed[:2]:
        assert next_of() is None
        lifecycle.succeed(ended, output=None, usage={}, warnings=[])
    assert next_of() == waiting.pk


@pytest.mark.parametrize(
    "fields",
    [
        *({"available_at": now() + SOME}, {"paused_at": now()}, {"blocked": 1}, {"queue": "other"}),
        *({"deadline": now() - SOME}, {"expires_at": now() - SOME}),
    ],
    ids=["not yet", "paused", "blocked", "of another queue", "overdue", "past its ttl"],
)
def test_what_may_not_run_is_not_claimed_and_holds_nobody_up(fields):
    of, to = account(), deployment()
    task, behind = submit(of, to, priority=9), submit(of, to)
    change(task, **fields)

    assert [next_of(), next_of()] == [behind.pk, None]


def test_a_task_that_asked_to_wait_waits():
    task = submit(not_before=now() + SOME)

    assert next_of() is None
    change(task, available_at=now() - SOME)
    assert next_of() == task.pk


def test_a_drained_deployment_keeps_its_tasks():
    of, drained, to = account(), deployment(), deployment()
    waiting, behind = submit(of, drained, priority=9), submit(of, to)
    Deployment.objects.filter(pk=drained.pk).update(drained_at=now())

    assert [next_of(), next_of()] == [behind.pk, None]
    Deployment.objects.filter(pk=drained.pk).update(drained_at=None)
    assert next_of() == waiting.pk


def test_the_claim_carries_what_the_work_needs():
    to = deployment(settings={"base_url": "http://127.0.0.1"}, timeout=60)
    task = submit(to=to, input={"output": 1}, timeout=30)

    claimed = claim(task)
    task.refresh_from_db()

    assert (claimed.capability, claimed.resolved_model, claimed.input) == (
        "test.work",
        to.resolved_model,
        {"output": 1},
    )
    assert (claimed.attempt, claimed.timeout, claimed.settings) == (1, 30, {"base_url": "http://127.0.0.1"})
    assert claimed.quote["ceiling_credits"] == "1.0000"
    assert claimed.time_left == task.deadline - task.started_at
    assert task.status == "running"


def test_started_at_is_the_first_start():
    task = submit(to=deployment(max_retries=1))
    claimed = claim(task)
    early = now() - SOME
    change(task, started_at=early)
    lifecycle.retry(claimed, code="worker_lost", message="", resolved="claim_expired")
    change(task, available_at=early)

    again = claim(task)

    task.refresh_from_db()
    assert (again.attempt, task.attempt, task.started_at) == (2, 2, early)


COLUMNS = ", ".join(
    field.column for field in Task._meta.concrete_fields if field.name not in ("id", "account", "priority")
)
CROWD = f"""
INSERT INTO tasks_task (id, account_id, priority, {COLUMNS})
SELECT gen_random_uuid(), %(account)s, n %% 10, {COLUMNS} FROM tasks_task, generate_series(1, %(many)s) n
WHERE id = %(like)s
"""


@pytest.fixture
def crowded():
    """A queue of 20,000 tasks of one account; another account has one."""
    to = deployment(prices=())
    crowd, single = account(pending_limit=100_000), account()
    alone = submit(single, to, priority=0)
    counting = next(t for t in Task._meta.triggers if t.name == "a_task_is_counted").get_pgid(Task)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE tasks_task DISABLE TRIGGER {counting}")
        cursor.execute(CROWD, {"account": crowd.pk, "many": 20_000, "like": alone.pk})
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE tasks_task ENABLE TRIGGER {counting}")
        cursor.execute("ANALYZE tasks_task")
    return crowd, alone


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_a_claim_reads_no_crowd(crowded, mode):
    params = {"queue": "default", "worker": "w", "token": uuid4(), "lease": 60, "progress": json.dumps(NO_PROGRESS)}
    params |= {"lost": [], "held": None}
    statement = load("claim")
    for name in params:
        statement = statement.replace(f"%({name})s", f"${list(params).index(name) + 1}")
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL plan_cache_mode = {mode}")
        cursor.execute(f"PREPARE claim (text, text, uuid, float8, jsonb, uuid[], uuid) AS {statement}")
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE claim (%s, %s, %s, %s, %s, %s, %s)"
        cursor.execute(explain, [*params.values()])
        (explained,) = cursor.fetchone()
        cursor.execute("DEALLOCATE claim")

    scans = [node for node in nodes(explained[0]["Plan"]) if node.get("Relation Name") == "tasks_task"]
    assert scans
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan", "ModifyTable", "Tid Scan"}
    assert max(node["Actual Rows"] for node in scans) < 10
    assert explained[0]["Execution Time"] < 100


def test_how_full_a_deployment_is_costs_no_look_at_the_tasks_of_others(crowded):
    of, quiet = account("0"), deployment(prices=(), max_pending=50)
    waiting = {submit(of, quiet).pk for _ in range(3)}
    params = {"id": quiet.pk, "most": 50}

    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + FULL, params)
        (explained,) = cursor.fetchone()

    (scan,) = [node for node in nodes(explained[0]["Plan"]) if node.get("Relation Name") == "tasks_task"]
    assert (scan["Index Name"], scan["Actual Rows"]) == ("task_pending", len(waiting))
    assert scan.get("Rows Removed by Filter", 0) == 0


def nodes(plan):
    yield plan
    for below in plan.get("Plans", []):
        yield from nodes(below)


def test_a_claim_out_of_a_crowd_is_fast_and_fair(crowded):
    crowd, alone = crowded
    for _ in range(6):
        lifecycle.claim("default", worker="w")

    started = time.monotonic()
    for _ in range(3):
        assert lifecycle.claim("default", worker="w")
    took = (time.monotonic() - started) / 3

    assert Task.objects.get(pk=alone.pk).status == "running"
    assert crowd.tasks.filter(status="running").count() == 8
    assert took < 0.5
    assert set(crowd.tasks.filter(status="running").values_list("priority", flat=True)) == {9}


def test_a_crowd_at_its_limit_costs_neither_claim_nor_sweep(crowded):
    crowd, alone = crowded
    type(crowd).objects.filter(pk=crowd.pk).update(running_limit=0)

    took, claimed = timed(next_of)
    swept, found = timed(lambda: rows(load("eligible"), {"queues": ["default"], "most": 64}))

    assert claimed == alone.pk
    assert found == [("default", 0)]
    assert max(took, swept) < 0.5


def test_the_sweep_counts_no_crowd(crowded):
    type(crowded[0]).objects.filter(pk=crowded[0].pk).update(running_limit=1000)
    params = {"queues": ["default"], "most": 64}

    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN (ANALYZE, FORMAT JSON) " + load("eligible"), params)
        (explained,) = cursor.fetchone()

    scans = [node for node in nodes(explained[0]["Plan"]) if node.get("Relation Name") == "tasks_task"]
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    assert max(node["Actual Rows"] for node in scans) <= 64
    assert rows(load("eligible"), params) == [("default", 64)]


def test_two_hundred_accounts_wait_for_one_claim_each_while_the_one_at_its_limit_waits():
    to = deployment(prices=())
    full = account(running_limit=0)
    submit(full, to, priority=9)
    waiting = {account("0").pk for _ in range(200)}
    for one in Account.objects.filter(pk__in=waiting):
        submit(one, to)

    took, claimed = timed(lambda: [lifecycle.claim("default", worker="w").account_id for _ in range(200)])

    assert set(claimed) == waiting
    assert took / 200 < 0.2


@pytest.mark.parametrize("why", ["paused", "backing off", "drained"])
def test_a_crowd_that_may_not_run_yet_holds_nobody_up(crowded, why):
    crowd, alone = crowded
    theirs = Task.objects.filter(account=crowd)
    if why == "paused":
        theirs.update(paused_at=now())
    if why == "backing off":
        theirs.update(available_at=now() + SOME)
    if why == "drained":
        Task.objects.filter(pk=alone.pk).update(deployment=deployment(prices=()))
        Deployment.objects.filter(pk=theirs.first().deployment_id).update(drained_at=now())

    took, claimed = timed(next_of)
    again, nobody = timed(next_of)
    swept, _ = timed(lambda: rows(load("eligible"), {"queues": ["default"], "most": 64}))

    assert (claimed, nobody) == (alone.pk, None)
    assert max(took, again, swept) < 2  # a walk over the index: 0.03 s on an idle machine


def timed(act):
    started = time.monotonic()
    done = act()
    return time.monotonic() - started, done
