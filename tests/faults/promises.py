"""What DESIGN.md promises, checked over HTTP and in the rows, whatever has died meanwhile."""

import http.client
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

from django.forms.models import model_to_dict

from billing import audit
from billing.models import Account, Charge, Transfer
from tasks.callbacks import message_id
from tasks.identifiers import parse_id
from tasks.models import Callback, Task
from tests.builders import account, assert_sound, key
from tests.faults.processes import ended, until
from tests.receiver import Receiver

GRACE = timedelta(seconds=10)
# What may move when a task has ended: how far its timeline is.
MOVES_ON = {"seq"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any
    body: Any


class Client:
    """An account's key and the web's address. `call` raises ConnectionError when the web dies before it answers."""

    def __init__(self, port: int, of: Account) -> None:
        self.port, self.account = port, of
        _, self.secret = key(of)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        sent = {"authorization": f"Bearer {self.secret}", "content-type": "application/json", **headers}
        return request(self.port, method, path, b"" if body is None else json.dumps(body).encode(), sent)

    def insist(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Call until the web answers."""

        def answer() -> Answer | None:
            try:
                return self.call(method, path, body, **headers)
            except (OSError, http.client.HTTPException):
                return None

        return until(answer)


def request(port: int, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    web = http.client.HTTPConnection("127.0.0.1", port, timeout=15)
    try:
        web.request(method, path, body, headers)
        answer = web.getresponse()
        read = answer.read()
        as_json = answer.headers.get_content_type() == "application/json"
        return Answer(answer.status, answer.headers, json.loads(read) if as_json else read)
    finally:
        web.close()


@dataclass
class Order:
    """A task as its client knows it: what was sent under which key, and how it ought to end."""

    client: Client
    body: dict[str, Any]
    ends: str = "succeeded"
    charged: Decimal = Decimal(1)
    key: dict[str, str] = field(default_factory=lambda: {"idempotency-key": str(uuid4())})

    def send(self) -> Answer:
        return self.client.call("POST", "/v1/tasks", self.body, **self.key)

    def again(self) -> Answer:
        return self.client.insist("POST", "/v1/tasks", self.body, **self.key)

    @property
    def task(self) -> Task:
        """The only task of this order, as soon as there is one."""
        return until(lambda: Task.objects.filter(client_reference=self.body["client_reference"]).first())


def promises_hold(orders: Iterable[Order], *, receiver: Receiver, within: float = 20) -> None:
    """Wait for the end of these orders, and check each of the seven promises."""
    orders = list(orders)
    ends = {order.task.pk: _final_in_time(order, within=within) for order in orders}
    for order in orders:
        _called_back(order.task, receiver)
        _seen_by_its_owner_alone(order)
        _the_same_when_asked_again(order)
        _charged_once_and_within_its_quote(order)
        assert_sound(order.client.account)
    assert audit.run().broken == []
    time.sleep(0.3)
    assert {pk: _row(Task.objects.get(pk=pk)) for pk in ends} == ends


def _final_in_time(order: Order, *, within: float) -> dict[str, Any]:
    task = ended(order.task, within=within)
    assert task.status == order.ends
    assert task.completed_at <= task.deadline + GRACE
    return _row(task)


def _row(task: Task) -> dict[str, Any]:
    fields = model_to_dict(task) | {name: getattr(task, name) for name in ("created_at", "started_at", "completed_at")}
    return {name: value for name, value in fields.items() if name not in MOVES_ON}


def _charged_once_and_within_its_quote(order: Order) -> None:
    charge = Charge.objects.get(task_id=order.task.pk)
    kinds = list(Transfer.objects.filter(task_id=order.task.pk).values_list("kind", flat=True))
    assert charge.charged == order.charged <= Decimal(order.task.quote["ceiling_credits"])
    assert kinds.count("hold") == 1
    assert kinds.count("capture") == (1 if order.charged else 0)
    assert charge.held == 0


def _called_back(task: Task, receiver: Receiver) -> None:
    callback = until(lambda: Callback.objects.filter(task=task, status="delivered").first())
    wanted = message_id(callback.pk)
    bodies = [got.body for got in list(receiver.requests) if got.headers["webhook-id"] == wanted]
    assert bodies
    assert set(bodies) == {callback.body.encode()}
    assert Callback.objects.filter(task=task).count() == 1


def _seen_by_its_owner_alone(order: Order) -> None:
    path = order.again().body["links"]["self"]
    stranger = Client(order.client.port, account("1"))
    assert order.client.insist("GET", path).body["status"] == order.ends
    assert stranger.insist("GET", path).status == 404
    assert stranger.insist("POST", f"{path}/cancel").status == 404


def _the_same_when_asked_again(order: Order) -> None:
    again = order.again()
    assert (again.status, parse_id(again.body["task_id"])) == (200, order.task.pk)
    assert again.headers["idempotent-replayed"] == "true"
    assert Task.objects.filter(client_reference=order.body["client_reference"]).count() == 1
