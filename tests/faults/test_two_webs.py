"""Two web processes are one API: what one of them has accepted or counted, the other knows."""

import threading
from collections import Counter

import pytest

from billing import audit
from billing.models import Transfer
from tasks.models import Task
from tests.builders import account, buckets, deployment
from tests.config.running import free_port
from tests.faults.promises import Client

CALLERS = 16


@pytest.fixture(scope="module")
def ports(crew):
    """Where two web processes listen."""
    found = [free_port(), free_port()]
    for port in found:
        crew.web(port)
    return found


@pytest.fixture
def pair(ports):
    """A way to make two clients with one key, one at each process; both processes answer."""

    def make(available="100", **fields):
        of = account(available, **fields)
        one, other = (Client(port, of) for port in ports)
        other.secret = one.secret
        for client in (one, other):
            client.insist("GET", "/v1/nothing")
        return one, other

    return make


def at_once(clients, call):
    """What so many callers, half of them at each process, are answered."""
    answers, barrier = [], threading.Barrier(CALLERS)

    def ask(client):
        barrier.wait()
        answers.append(call(client))

    threads = [threading.Thread(target=ask, args=(clients[place % 2],)) for place in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("available", ["100", "1"], ids=["with credits to spare", "with credits for one"])
def test_sixteen_equal_requests_at_once_make_one_task_and_one_hold(pair, available):
    clients, to = pair(available), deployment(queue="unserved")
    body, key = {"model": to.name, "input": {}}, {"idempotency-key": "the same"}

    answers = at_once(clients, lambda client: client.call("POST", "/v1/tasks", body, **key))

    assert Counter(answer.status for answer in answers) == {202: 1, 200: CALLERS - 1}
    assert len({answer.body["task_id"] for answer in answers}) == 1
    assert Task.objects.count() == Transfer.objects.filter(kind="hold").count() == 1
    assert buckets(clients[0].account)["held"] == 1
    assert audit.run().broken == []


def test_sixteen_equal_reruns_at_once_make_one_task(pair):
    clients, to = pair(), deployment(queue="unserved")
    made = clients[0].call("POST", "/v1/tasks", {"model": to.name, "input": {}}).body
    clients[1].call("POST", made["links"]["cancel"])
    key = {"idempotency-key": "the same"}

    answers = at_once(clients, lambda client: client.call("POST", made["links"]["self"] + "/rerun", **key))

    assert Counter(answer.status for answer in answers) == {202: 1, 200: CALLERS - 1}
    assert {answer.body["rerun_of"] for answer in answers} == {made["task_id"]}
    assert Task.objects.count() == 2


def test_both_count_the_requests_of_a_key(pair):
    clients = pair(requests_per_minute=CALLERS // 2 + 1)

    answers = at_once(clients, lambda client: client.call("GET", "/v1/tasks"))

    assert Counter(answer.status for answer in answers) == {200: CALLERS // 2 + 1, 429: CALLERS // 2 - 1}
