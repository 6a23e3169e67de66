"""What `manage.py demo` does: it runs the service, is its consumer and its webhook receiver, and checks every promise.

All it shows comes from the public API and from the audit.
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from config import interruptions, ports, session
from config.processes import LEASH

ROOT = Path(__file__).resolve().parent.parent
FINAL = {"succeeded", "failed", "canceled"}
TEXTS = (
    *("README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"),
    *("tasks/lifecycle.py", "billing/ledger.py", "config/settings.py"),
)
START_SECONDS, WORK_SECONDS = 45, 40


class DemoError(Exception):
    """The demo cannot go on; the message is one sentence."""


class Consumer:
    """A consumer of the API, with nothing but its key."""

    def __init__(self, url: str, key: str) -> None:
        self.host, self.key = url.removeprefix("http://"), key
        self.seen: dict[str, tuple[str, dict[str, Any]]] = {}

    def get(self, path: str) -> dict[str, Any]:
        """What is there now; what has not changed is not sent again, and does not count."""
        etag, value = self.seen.get(path, ("", {}))
        answer, fresh = self._call("GET", path, etag=etag)
        if answer.status != HTTPStatus.NOT_MODIFIED:
            self.seen[path] = answer.headers.get("ETag", ""), fresh
            return fresh
        return value

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._call("POST", path, body or {})[1]

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, etag: str = ""
    ) -> tuple[http.client.HTTPResponse, dict[str, Any]]:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        sent = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        if etag:
            sent["If-None-Match"] = etag
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            value: dict[str, Any] = json.loads(answer.read() or "{}")
        finally:
            connection.close()
        if answer.status >= 400:
            raise DemoError(f"{method} {path} answered {answer.status}: {value['error']['message']}")
        return answer, value


@dataclass
class Delivery:
    """A callback that came in, and whether its signature is the account's."""

    message_id: str
    verified: bool
    type: str
    task: dict[str, Any]


class Receiver:
    """A webhook receiver on loopback. It trusts nothing but the signature."""

    def __init__(self, secret: str) -> None:
        self.key = base64.b64decode(secret.removeprefix("whsec_"))
        self.deliveries: list[Delivery] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.take(self.headers, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing: the demo does the talking."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/callbacks"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, headers: Any, body: bytes) -> None:
        told = json.loads(body)
        self.deliveries.append(Delivery(headers["webhook-id"], self.verify(headers, body), told["type"], told["data"]))

    def verify(self, headers: Any, body: bytes) -> bool:
        """Standard Webhooks: HMAC-SHA256 over id, timestamp and body, and a timestamp of the last five minutes."""
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        given = [part.partition(",")[2] for part in headers["webhook-signature"].split()]
        fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
        return fresh and any(hmac.compare_digest(expected, signature) for signature in given)

    def of(self, task_id: str) -> list[Delivery]:
        return [delivery for delivery in self.deliveries if delivery.task["task_id"] == task_id]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Job:
    """A task of the demo: what it is called on the screen, what was submitted, and how it is now."""

    title: str
    expected: str
    task: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return str(self.task["task_id"])

    @property
    def status(self) -> str:
        return str(self.task["status"])

    @property
    def percent(self) -> int:
        return 100 if self.status in FINAL else self.task["progress"]["percent"] or 0

    def amount(self, name: str) -> Decimal:
        return Decimal(self.task["billing"][name] or 0)


@contextmanager
def service(*, log: Path, workers: int = 4) -> Iterator[str]:
    """The whole service, by `manage.py up`; yields its URL once it is ready, and stops it at the end."""
    with _free_port() as port:
        yield from _serve(port, log, workers)


def _serve(port: int, log: Path, workers: int) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "PUBLIC_URL": url,
        "ENABLE_TEST_CAPABILITIES": "true",
        "CALLBACK_ALLOWED_NETWORKS": ",".join(
            filter(None, [os.environ.get("CALLBACK_ALLOWED_NETWORKS"), "127.0.0.0/8"])
        ),
        "PYTHONUNBUFFERED": "1",
        session.OF_DEMO: "1",
    }
    leash = [*LEASH, str(os.getpid()), str(signal.SIGTERM.value)]  # who kills us ends all of it
    command = [*leash, sys.executable, "manage.py", "up", "--port", str(port), "--workers", str(workers)]
    with log.open("wb") as output:
        up = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        _wait_for(up, log, b"Counterfoil is ready at")
        yield url
    finally:
        _end(up)


def _end(up: "subprocess.Popen[bytes]") -> None:
    """Ask it to stop, and again when we are asked again or have waited long; then it has no choice."""
    for _ in range(2):
        up.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            up.wait(timeout=40)
            return
    up.kill()
    up.wait()


def _wait_for(up: "subprocess.Popen[bytes]", log: Path, words: bytes) -> None:
    until = time.monotonic() + START_SECONDS
    while words not in log.read_bytes():
        interruptions.check()
        if up.poll() is not None or time.monotonic() > until:
            raise DemoError(f"The service did not start; its log is {log}.")
        time.sleep(0.1)


@contextmanager
def _free_port() -> Iterator[int]:
    """A port that is ours until the end of the block: two demos at once do not choose the same."""
    with contextlib.ExitStack() as held:
        yield _claim_one(held)


def _claim_one(held: contextlib.ExitStack) -> int:
    for port in range(8000, 8200):
        with contextlib.suppress(OSError):
            held.enter_context(ports.claimed("127.0.0.1", port))
            return port
    raise DemoError("No port from 8000 to 8199 is free.")


def submit_all(consumer: Consumer, receiver: Receiver) -> list[Job]:
    """A mix of real work: texts of this repository, one that fails, one to cancel, one that streams."""
    jobs = [(Job(name, "succeeded"), "text-analyze", {"text": _text(name), "keywords": 8}) for name in TEXTS]
    jobs += [
        (
            Job("a streamed echo", "succeeded"),
            "echo",
            {"seconds": 3, "steps": 12, "text": "So long as both halves match. " * 4, "usage": {"output_tokens": 120}},
        ),
        (Job("an echo that fails", "failed"), "echo", {"seconds": 1, "steps": 4, "fail": "capability_error"}),
        (Job("a long echo, canceled", "canceled"), "echo", {"seconds": 120, "steps": 600}),
    ]
    for number, (job, model, input_) in enumerate(jobs):
        body = {"model": model, "input": input_, "callback": {"url": receiver.url}}
        job.task = consumer.post("/v1/tasks", body | {"client_reference": f"demo-{number}"})
    return [job for job, *_ in jobs]


def _text(name: str) -> str:
    return (ROOT / name).read_text()


def watch(consumer: Consumer, jobs: list[Job]) -> Iterator[list[Job]]:
    """Poll until every task is final, and cancel the one that is to be canceled while it runs."""
    until = time.monotonic() + WORK_SECONDS
    while unfinished := [job for job in jobs if job.status not in FINAL]:
        interruptions.check()
        if time.monotonic() > until:
            raise DemoError(f"{unfinished[0].title} is still {unfinished[0].status} after {WORK_SECONDS} s.")
        for job in unfinished:
            job.task = consumer.get(job.task["links"]["self"])
            if job.expected == "canceled" and job.status == "running" and job.percent >= 1:
                job.task = consumer.post(job.task["links"]["cancel"], {"reason": "seen enough"})
        yield jobs
        time.sleep(0.15)


def await_callbacks(consumer: Consumer, receiver: Receiver, jobs: list[Job]) -> None:
    """Wait until the API says that each callback was delivered, and the receiver has it."""
    until = time.monotonic() + WORK_SECONDS
    while True:
        for job in jobs:
            job.task = consumer.get(job.task["links"]["self"])
        if all(job.task["callback"]["status"] == "delivered" and receiver.of(job.id) for job in jobs):
            return
        if time.monotonic() > until:
            raise DemoError("A callback was not delivered in time.")
        time.sleep(0.2)


def verdicts(jobs: list[Job], receiver: Receiver, before: dict[str, Any], after: dict[str, Any]) -> dict[str, bool]:
    """Everything that has to be true, by what it says."""
    texts = [job for job in jobs if job.expected == "succeeded"]
    moved = {bucket: Decimal(after["totals"][bucket]) - Decimal(before["totals"][bucket]) for bucket in after["totals"]}
    lines = {job.id: sum(Decimal(line["billed_amount_credits"]) for line in job.task["usage"]["lines"]) for job in jobs}
    failed, canceled = _one(jobs, "failed"), _one(jobs, "canceled")
    return {
        "every task ended as expected": all(job.status == job.expected for job in jobs),
        "every success was charged, within its quote": all(
            0 < job.amount("charged_credits") <= job.amount("quoted_credits") for job in texts
        ),
        "the billed lines add up to each charge": all(lines[job.id] == job.amount("charged_credits") for job in jobs),
        "the failed task was free": failed.amount("charged_credits") == 0,
        "the canceled task had started and stayed within its quote": canceled.task["started_at"] is not None
        and canceled.amount("charged_credits") <= canceled.amount("quoted_credits"),
        "one charge was refunded in part": [
            0 < job.amount("refunded_credits") < job.amount("charged_credits") for job in jobs
        ].count(True)
        == 1,
        "every callback came with a valid signature": all(
            receiver.of(job.id) and all(delivery.verified for delivery in receiver.of(job.id)) for job in jobs
        ),
        "every callback told the end of its task": all(
            delivery.type == f"task.{job.status}" and delivery.task["status"] == job.status
            for job in jobs
            for delivery in receiver.of(job.id)
        ),
        "the tasks' charges are what the ledger moved": moved["charged"]
        == sum((job.amount("net_charged_credits") for job in jobs), Decimal(0)),
        "granted = available + held + charged": moved["granted"]
        == moved["available"] + moved["held"] + moved["charged"],
        "the audit holds": bool(after["holds"]),
    }


def _one(jobs: list[Job], expected: str) -> Job:
    return next(job for job in jobs if job.expected == expected)
