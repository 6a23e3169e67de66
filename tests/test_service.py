"""The whole service by `up`, over HTTP, with real processes that are killed."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from config import demo
from tests.config.running import remove

ROOT = Path(__file__).resolve().parent.parent
QUICK = {
    "LEASE_SECONDS": "2",
    "HEARTBEAT_SECONDS": "0.3",
    "SWEEP_SECONDS": "0.3",
    "RETRY_BACKOFF_SECONDS": "0.1",
    "CALLBACK_SCHEDULE": "0,0.2,0.2,0.2,0.2",
    "LOG_LEVEL": "INFO",
}
OURS = ("REDIS_URL", "DATABASE_URL", "EXTRA_APPS", "CALLBACK_ALLOWED_NETWORKS")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data folder of its own, and the environment of every command on it."""
    folder = tmp_path_factory.mktemp("service")
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | QUICK
    environment |= {"COUNTERFOIL_DATA": str(folder)}
    yield folder, environment
    remove(folder)


@pytest.fixture(scope="module")
def url(data):
    folder, environment = data
    with as_environment(environment), demo.service(log=folder / "up.log", workers=2) as url:
        yield url


@contextmanager
def as_environment(environment):
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def manage(*arguments, environment):
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def consumer(url, data):
    made = manage("create_account", "Acme", "--credits", "100", "--json", environment=data[1])
    account = json.loads(made.stdout)
    consumer = demo.Consumer(url, account["api_key"])
    consumer.secret = account["callback_secret"]
    return consumer


def until(condition, *, seconds=30):
    ends = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.1)
    return found


def test_a_worker_killed_in_the_middle_of_a_task_costs_a_retry_and_no_credit(consumer, data):
    made = consumer.post("/v1/tasks", {"model": "echo", "input": {"seconds": 4, "steps": 40, "output": {"kept": True}}})
    until(lambda: consumer.get(made["links"]["self"])["status"] == "running")

    kill_the_worker()
    ended = until(lambda: (shown := consumer.get(made["links"]["self"]))["status"] in demo.FINAL and shown)

    assert (ended["status"], ended["attempt"], ended["output"]) == ("succeeded", 2, {"kept": True})
    assert ended["billing"]["charged_credits"] == ended["billing"]["quoted_credits"]
    kinds = [event["type"] for event in consumer.get(ended["links"]["events"])["data"]]
    assert kinds == ["task.queued", "task.running", "task.queued", "task.running", "task.succeeded"]
    assert manage("audit", environment=data[1]).returncode == 0


def kill_the_worker():
    """kill -9 the whole worker, its children first: the one at work and those that could take over at once."""
    ours = psutil.Process().children(recursive=True)
    workers = [process for process in ours if title(process).startswith("counterfoil: worker")]
    assert len(workers) >= 2, [title(process) for process in ours]
    for process in reversed(workers):
        process.send_signal(signal.SIGKILL)


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def test_a_receiver_that_fails_twice_gets_the_same_bytes_a_third_time(consumer):
    receiver = demo.Receiver(consumer.secret)
    plain, failures = receiver.take, iter([True, True])
    bodies = []

    def take(headers, body):
        bodies.append((headers["webhook-id"], body))
        if next(failures, False):
            raise ConnectionAbortedError
        plain(headers, body)

    receiver.take = take
    receiver.server.handle_error = lambda *_: None
    try:
        made = consumer.post(
            "/v1/tasks", {"model": "text-analyze", "input": {"text": "Twice."}, "callback": {"url": receiver.url}}
        )
        told = until(lambda: receiver.of(made["task_id"]))
        shown = until(lambda: (t := consumer.get(made["links"]["self"]))["callback"]["status"] == "delivered" and t)
    finally:
        receiver.close()

    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert told[0].verified
    assert shown["callback"]["attempt_count"] == 3


def in_chunks(url, key, *chunks):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    try:
        connection.request("POST", "/v1/tasks", iter(chunks), headers, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    finally:
        connection.close()


def test_a_body_in_chunks_is_a_body(consumer, url):
    status, made = in_chunks(url, consumer.key, b'{"model": "text-analyze", ', b'"input": {"text": "in two"}}')
    too_much, error = in_chunks(url, consumer.key, *[b" " * 2**18] * 5)

    assert (status, made["input"]) == (202, {"text": "in two"})
    assert (too_much, error["error"]["code"]) == (413, "payload_too_large")


@pytest.mark.chaos
def test_the_demo_says_only_what_is_true(data, tmp_path):
    environment = data[1] | {"COUNTERFOIL_DATA": str(tmp_path), "LEASE_SECONDS": "60", "HEARTBEAT_SECONDS": "0.5"}

    shown = manage("demo", environment=environment)
    engines = manage("engines", "status", environment=environment)
    look = "from tasks.models import Deployment; print(Deployment.objects.get(name='echo').is_active)"
    echo = manage("shell", "-v0", "-c", look, environment=environment)
    remove(tmp_path)

    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "NO " not in shown.stdout
    assert engines.stdout.count(": stopped") == 2
    assert echo.stdout == "False\n"
    for words in (
        "every callback came with a valid signature",
        "granted = available + held + charged",
        "login   demo /",
    ):
        assert words in shown.stdout
