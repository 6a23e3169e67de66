"""One that is stuck, poisoned or slow keeps no other from its turn."""

import json
import socket
import threading
import time
import uuid
from datetime import timedelta
from decimal import Decimal

import pytest
import redis
from django.db import connection, transaction
from django.utils.timezone import now

from billing.exceptions import KeyReused
from billing.statements import one
from tasks import lifecycle, queues, sweep
from tasks.models import Deployment, Run, Task
from tests.builders import account, buckets, claim, deployment, submit
from tests.tasks.api.client import Consumer
from tests.workload.threads import together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def held():
    """Holds rows in a transaction of somebody who does not come back, until the test is over."""
    over, threads = threading.Event(), []

    def hold(*statement):
        taken = threading.Event()

        def sit():
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(*statement)
                taken.set()
                over.wait(20)
            connection.close()

        threads.append(threading.Thread(target=sit))
        threads[-1].start()
        assert taken.wait(5)

    yield hold
    over.set()
    for thread in threads:
        thread.join()


def overdue(*tasks):
    for age, task in enumerate(reversed(tasks), start=1):
        Task.objects.filter(pk=task.pk).update(deadline=now() - timedelta(seconds=age))


@pytest.mark.parametrize("table", ["tasks_task", "billing_account"])
def test_a_row_that_is_held_stops_no_sweep(held, table):
    to = deployment()
    stuck, free = submit(account(), to), submit(account(), to)
    overdue(stuck, free)
    key = stuck.pk if table == "tasks_task" else stuck.account_id
    held(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", [key])

    started = time.monotonic()
    sweep.once()
    sweep.once()

    assert time.monotonic() - started < 5
    assert [Task.objects.get(pk=task.pk).status for task in (stuck, free)] == ["queued", "failed"]


@pytest.mark.parametrize("table", ["tasks_task", "billing_account"])
def test_a_row_that_is_held_starves_no_other_account(held, table):
    to = deployment()
    stuck, free = submit(account(), to), submit(account(), to)
    key = stuck.pk if table == "tasks_task" else stuck.account_id
    held(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", [key])

    claimed = lifecycle.claim(to.queue, worker="w")

    assert claimed.task_id == free.pk


def test_a_post_behind_a_held_account_is_told_to_come_back(held, settings):
    consumer, to = Consumer(), deployment()
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '300ms'")
    held("SELECT 1 FROM billing_account WHERE id = %s FOR UPDATE", [consumer.account.pk])

    answer = consumer.create(to)
    connection.close()

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert not Task.objects.exists()


def test_connections_do_not_wait_for_locks_for_ever():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')")

        assert cursor.fetchone() == ("5s", "30s")


def test_a_callback_format_that_is_gone_lets_the_task_end():
    of, to = account(), deployment()
    odd = submit(of, to, callback_url="http://127.0.0.1:9/", callback_format="gone")
    other = submit(of, to)
    overdue(odd, other)

    sweep.once()

    assert {Task.objects.get(pk=task.pk).status for task in (odd, other)} == {"failed"}


def test_a_broker_that_never_answers_does_not_slow_the_sweep(monkeypatch):
    of, to = account("100"), deployment()
    overdue(*[submit(of, to, callback_url="http://127.0.0.1:9/") for _ in range(40)])
    with socket.create_server(("127.0.0.1", 0), backlog=500) as silent:
        address = silent.getsockname()
        client = redis.Redis(*address, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None)
        monkeypatch.setattr(queues, "_client", lambda: client)

        started = time.monotonic()
        sweep.once()
        client.close()

    assert time.monotonic() - started < 5
    assert not Task.objects.filter(status="queued").exists()


def test_tasks_of_a_queue_that_no_deployment_names_any_more_are_served():
    to = deployment(queue="old")
    submit(to=to)

    Deployment.objects.filter(pk=to.pk).update(queue="new")

    assert queues.in_use() == ["new", "old"]


def test_the_quote_decides_what_is_billed_in_part_whatever_became_of_the_deployment():
    of = account()
    to = deployment(prices=[("characters", "1")], bills_partial_output=False)
    task = submit(of, to, input={"usage": {"characters": 5}})
    lifecycle.publish(claim(task), text="abc", offset=0, usage={"characters": Decimal(3)})

    Deployment.objects.filter(pk=to.pk).update(bills_partial_output=True)
    lifecycle.cancel(task.pk, by="test")

    assert buckets(of)["charged"] == 0


def test_what_is_streamed_while_a_cancel_decides_is_either_billed_and_shown_or_refused(monkeypatch):
    to = deployment(prices=[("characters", "1")], bills_partial_output=True)
    task = submit(account("100"), to, input={"usage": {"characters": 50}})
    claimed = claim(task)
    lifecycle.publish(claimed, text="abc", offset=0, usage={"characters": Decimal(3)})
    end = lifecycle._end

    def slowly(*arguments, **options):
        streaming = threading.Thread(target=say, args=[claimed])
        streaming.start()
        streaming.join(0.5)
        return end(*arguments, **options)

    monkeypatch.setattr(lifecycle, "_end", slowly)
    lifecycle.cancel(task.pk, by="test")

    task.refresh_from_db()
    assert task.output == Run.objects.get(task=task).partial_text == "abc"


def say(claimed):
    try:
        lifecycle.publish(claimed, text="def", offset=3, usage={"characters": Decimal(6)})
    except lifecycle.LeaseLost:
        pass
    finally:
        connection.close()


def test_a_reader_never_sees_half_an_end():
    of, to = account("1000"), deployment(prices=[("characters", "1")])
    torn = []

    for _ in range(20):
        task = submit(of, to, input={"usage": {"characters": 5}})
        claimed, ended = claim(task), threading.Event()

        def read(task=task, ended=ended):
            while not ended.is_set():
                shown = json.loads(one("SELECT task_json(%(id)s)", {"id": task.pk})[0])
                if shown["status"] == "running" and shown["billing"]["held_credits"] == "0.0000":
                    torn.append(shown)

        def end(claimed=claimed, ended=ended):
            try:
                lifecycle.succeed(claimed, output=1, usage={"characters": Decimal(5)}, warnings=[])
            finally:
                ended.set()

        assert [found for found in together(read, read, end) if isinstance(found, Exception)] == []

    assert torn == []


def test_a_rerun_is_clipped_to_what_its_deployment_allows_now():
    of, to = account(), deployment(timeout=600, max_retries=2)
    task = submit(of, to)
    lifecycle.cancel(task.pk, by="test")
    Deployment.objects.filter(pk=to.pk).update(timeout=300, max_retries=1, name="renamed")

    again = lifecycle.rerun(task.pk, account_id=of.pk, api_key_id=None, actor="test")

    rerun = Task.objects.get(pk=again.task_id)
    assert (rerun.timeout, rerun.max_retries, rerun.model) == (300, 1, "renamed")


def test_a_refunds_key_is_that_refunds_alone():
    of, to = account("100"), deployment(prices=[("task", "4")])
    one_task, other = submit(of, to), submit(of, to)
    for task in (one_task, other):
        lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])
    first = lifecycle.refund(one_task.pk, Decimal(1), key="k", reason="r", by="operator:x")

    assert lifecycle.refund(one_task.pk, Decimal(1), key="k", reason="r", by="operator:x") == first
    for task, amount in ((other, Decimal(1)), (one_task, Decimal(2))):
        with pytest.raises(KeyReused):
            lifecycle.refund(task.pk, amount, key="k", reason="r", by="operator:x")
    assert buckets(of)["charged"] == 7


def test_reruns_with_one_key_at_the_same_time_are_one():
    of, to = account("1000"), deployment()

    for number in range(10):
        task = submit(of, to)
        lifecycle.cancel(task.pk, by="test")
        key = {"idempotency_key": f"k{number}", "fingerprint": "f"}

        def rerun(task=task, key=key):
            return lifecycle.rerun(task.pk, account_id=of.pk, api_key_id=None, actor="test", **key).task_id

        assert len(set(together(*[rerun] * 6))) == 1


def test_ids_are_of_the_databases_clock_and_sort_by_age():
    of, to = account("1000"), deployment()

    made = [submit(of, to) for _ in range(50)]

    assert [task.pk for task in made] == sorted(task.pk for task in made)
    for task in made:
        assert (task.pk.version, task.pk.variant) == (7, uuid.RFC_4122)
        assert abs((task.pk.int >> 80) - task.created_at.timestamp() * 1000) < 1000
