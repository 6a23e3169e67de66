"""A process dies between two lines, wherever the code names a place for it; afterwards every promise holds."""

import ast
import http.client
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore

from billing.models import Charge
from tasks import bulk
from tasks.models import BulkAction, Task
from tasks.models.bulk import BULK_QUEUE
from tests.admin.people import act_url
from tests.builders import account, deployment
from tests.config.running import free_port
from tests.faults.processes import Crew, alive, kill_group, until
from tests.faults.promises import Client, Order, promises_hold, request
from tests.receiver import Receiver

pytestmark = pytest.mark.django_db(transaction=True)

QUEUE, UNSERVED = "crash", "unserved"
TIMES = {
    "LEASE_SECONDS": "1",
    "CALLBACK_TIMEOUT_SECONDS": "1",
    "CALLBACK_SCHEDULE": "0,0.2,0.2,0.2",
    "WEB_STREAMS": "8",
}


def places() -> list[str]:
    """The name of every place in the code where a process can be made to die."""
    files = [path for folder in ("billing", "tasks", "config") for path in (settings.BASE_DIR / folder).rglob("*.py")]
    calls = [node for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return sorted(
        call.args[0].value
        for call in calls
        if getattr(call.func, "id", getattr(call.func, "attr", "")) in ("here", "once_committed")
        and isinstance(call.args[0], ast.Constant)
    )


class Scene:
    """A web, a worker and a sweeper that pass the places, a receiver, and a client with credits."""

    def __init__(self, crew: Crew, port: int, receiver: Receiver, places: Path) -> None:
        self.crew, self.port, self.receiver, self.places = crew, port, receiver, places
        self.client = Client(port, account("100"))

    def dies_at(self, place: str, *, passing: int = 1) -> None:
        """Whoever passes this place for the n-th time from now on dies."""
        (self.places / place).write_text(str(passing))

    def web_dies_at(self, place: str, call: Callable[[], Any]) -> None:
        """The call gets no answer, because the web dies at this place; another web takes its port."""
        self.dies_at(place)
        with pytest.raises((OSError, http.client.HTTPException)):
            call()
        self.dead_of(place)
        kill_group(self.crew.of("config.server"))
        self.crew.web(self.port)

    def dead_of(self, place: str) -> int:
        """The pid of the process that died there."""
        pid = int(until(lambda: list(self.places.glob(f"{place}.*")))[0].name.rpartition(".")[2])
        until(lambda: not alive(pid))
        return pid

    def order(self, *, queue: str = QUEUE, policy: dict | None = None, **body) -> Order:
        to = deployment(queue=queue, **policy or {})
        wanted = {"model": to.name, "input": {}, "callback": {"url": self.receiver.url}}
        return Order(self.client, wanted | {"client_reference": str(uuid4())} | body)

    def killed(self, pid: int) -> bool:
        """Whether a Celery parent says that its child of this pid was killed."""
        return re.search(rf"pid:{pid} exited with 'signal 9 \(SIGKILL\)'", self.crew.said()) is not None


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Where places are named; the processes that live through the module look there."""
    return tmp_path_factory.mktemp("places")


@pytest.fixture(scope="module")
def crew(django_db_setup, django_db_blocker, tmp_path_factory, stage):
    with django_db_blocker.unblock():
        hired = Crew(tmp_path_factory.mktemp("crew"), FAILPOINTS=str(stage), **TIMES)
    yield hired
    hired.dismiss()


@pytest.fixture(scope="module")
def port(crew):
    crew.worker(QUEUE, "callbacks", BULK_QUEUE, children=2)
    port = free_port()
    crew.web(port)
    return port


@pytest.fixture
def scene(crew, port, stage):
    with Receiver() as receiver:
        yield Scene(crew, port, receiver, stage)
        while sweeper := crew.of("sweep"):
            kill_group(sweeper)
    for left in stage.iterdir():
        left.unlink()


def by_working(scene, place, **input):
    order = scene.order(input=input)
    scene.dies_at(place)
    assert order.again().status == 202
    assert until(lambda: scene.killed(scene.dead_of(place)))
    return [order]


def by_retrying(scene, place):
    return by_working(scene, place, how="later", attempts=1)


def by_submitting(scene, place):
    order = scene.order()
    until(lambda: scene.client.insist("GET", "/v1/tasks").status == 200)
    scene.web_dies_at(place, order.send)
    return [order]


def by_canceling(scene, place):
    order = scene.order(queue=UNSERVED)
    order.ends, order.charged = "canceled", Decimal(0)
    path = order.again().body["links"]["cancel"]
    scene.web_dies_at(place, partial(scene.client.call, "POST", path))
    assert scene.client.insist("POST", path).body["status"] == "canceled"
    return [order]


def by_refunding(scene, place):
    order = scene.order()
    order.again()
    task = until(lambda: order.task.status == "succeeded" and order.task)
    form = {"reason": "broken", "key": str(uuid4()), "ids": str(task.pk)}
    scene.web_dies_at(place, partial(act, scene, task, "refund", form))
    assert until(lambda: answered(act, scene, task, "refund", form)).status == 302
    assert Charge.objects.get(task_id=task.pk).refunded == 1
    return [order]


def by_acting_on_many(scene, place):
    """The worker dies between a row's refund and what is written of it; another takes the row up."""
    orders = [scene.order() for _ in range(3)]
    for order in orders:
        order.again()
    tasks = [until(lambda order=order: order.task.status == "succeeded" and order.task) for order in orders]
    boss, _ = User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)
    chosen = Task.objects.filter(pk__in=[task.pk for task in tasks])
    action = bulk.freeze(chosen, act="refund", data={}, operator=boss, filters={}, words="these")
    scene.dies_at(place, passing=2)
    bulk.start(action.pk, operator=boss, reason="broken", number=3, seen=action.digest)
    assert until(lambda: scene.killed(scene.dead_of(place)))
    scene.crew.sweeper()
    until(lambda: BulkAction.objects.get(pk=action.pk).status == "done")
    assert list(action.rows.values_list("outcome", flat=True)) == ["done"] * 3
    assert [Charge.objects.get(task_id=task.pk).refunded for task in tasks] == [1, 1, 1]
    assert LogEntry.objects.filter(object_id__in=[str(task.pk) for task in tasks]).count() == 3
    return orders


def by_redelivering(scene, place):
    order = scene.order()
    path = order.again().body["links"]["self"] + "/callback/redeliver"
    until(lambda: order.task.callbacks.filter(status="delivered"))
    scene.web_dies_at(place, partial(scene.client.call, "POST", path))
    scene.crew.sweeper()
    until(lambda: len(scene.receiver.requests) > 1)
    return [order]


def by_sweeping(scene, place):
    orders = [scene.order(queue=UNSERVED, policy={"ttl": 1}) for _ in range(3)]
    for order in orders:
        order.ends, order.charged = "failed", Decimal(0)
        order.again()
    scene.dies_at(place)
    assert scene.crew.sweeper().wait(15) == -9
    scene.dead_of(place)
    assert {order.task.status for order in orders} == {"queued"}
    return orders


DIES = {
    "act.before_history": by_refunding,
    "bulk.before_record": by_acting_on_many,
    "cancel.after": by_canceling,
    "claim.after": by_working,
    "deliver.after_claim": by_working,
    "deliver.after_post": by_working,
    "deliver.after_record": by_working,
    "deliver.before_record": by_working,
    "redeliver.after": by_redelivering,
    "refund.after": by_refunding,
    "requeue.after": by_retrying,
    "resolve.after": by_working,
    "settle.mid": by_working,
    "submit.after_commit": by_submitting,
    "sweep.mid_batch": by_sweeping,
    "wake.before": by_submitting,
    "work.before_resolve": by_working,
}


@pytest.mark.parametrize("place", places())
def test_a_process_that_dies_here_breaks_no_promise(place, scene):
    orders = DIES[place](scene, place)

    scene.crew.sweeper()

    promises_hold(orders, receiver=scene.receiver)


def test_every_death_has_its_place_and_every_place_its_name():
    assert places() == sorted(DIES)


def act(scene, task, name, form):
    """Submit the page of an act, as an operator who is logged in."""
    root, _ = User.objects.get_or_create(username="root", is_staff=True, is_superuser=True)
    session = SessionStore()
    session.update({"_auth_user_id": str(root.pk), "_auth_user_backend": "django.contrib.auth.backends.ModelBackend"})
    session["_auth_user_hash"] = root.get_session_auth_hash()
    session.save()
    token = "c" * 32
    headers = {
        "cookie": f"{settings.SESSION_COOKIE_NAME}={session.session_key}; {settings.CSRF_COOKIE_NAME}={token}",
        "content-type": "application/x-www-form-urlencoded",
        "host": f"127.0.0.1:{scene.port}",
    }
    return request(
        scene.port, "POST", act_url(task, name), urlencode(form | {"csrfmiddlewaretoken": token}).encode(), headers
    )


def answered(call, *args):
    try:
        return call(*args)
    except (OSError, http.client.HTTPException):
        return None
