"""The queues' wake-ups. A message names a queue, not a task; one too many finds nothing, one too few is made up for."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial

import redis
from celery import current_app
from django.conf import settings
from django.db import transaction
from kombu import Connection
from kombu.exceptions import KombuError
from kombu.pools import producers

from billing.failpoints import once_committed
from billing.statements import rows
from tasks.models.bulk import BULK_QUEUE
from tasks.models.deployment import CALLBACKS_QUEUE
from tasks.sql import load

logger = logging.getLogger(__name__)

# How many messages of a queue may wait: enough to keep workers busy, few enough to bound the broker.
WAITING = 64
WAITING_OF = {CALLBACKS_QUEUE: 4, BULK_QUEUE: 1}
# A broker that is down or frozen costs a submission half a second at most.
PATIENCE = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5, "max_retries": 0, "interval_start": 0}
LEFT_ALONE_SECONDS = 1.0
_left_alone_until = 0.0
DOORS = {CALLBACKS_QUEUE: "tasks.jobs.deliver_due", BULK_QUEUE: "tasks.jobs.act_on_many"}


def wake(queue: str) -> None:
    """Tell a worker of this queue to look, unless enough messages wait."""
    with _whatever_the_broker_does(queue) as asked:
        if asked and depth(queue) < _limit(queue):
            _send(queue, 1)


def wake_on_commit(queue: str) -> None:
    """Wake the queue when everybody can see what was written."""
    once_committed("wake.before")
    transaction.on_commit(partial(wake, queue), robust=True)


def fill(queue: str, eligible: int) -> None:
    """Make as many messages wait as there is eligible work, within the queue's limit."""
    with _whatever_the_broker_does(queue) as asked:
        if asked:
            _send(queue, min(eligible, _limit(queue)) - depth(queue))


def in_use() -> list[str]:
    """The queues that may have work: those of deployments, and those that queued tasks still wait in."""
    return [queue for (queue,) in rows(load("queues"), {})]


def depth(queue: str) -> int:
    """How many messages wait at the broker."""
    return _client().llen(queue)


def served(within: float = 0.5) -> set[str] | None:
    """The queues that workers who answer in time take messages of; None when nobody can be asked."""
    with _whatever_the_broker_does("workers") as asked:
        if asked:
            answers = current_app.control.inspect(timeout=within, connection=_connection()).active_queues() or {}
            return {queue["name"] for answer in answers.values() for queue in answer}
    return None


def publish(channel: str, *messages: str) -> None:
    """Tell whoever listens just now, all at once."""
    with broker(channel) as client:
        if client:
            said = client.pipeline(transaction=False)
            for message in messages:
                said.publish(channel, message)
            said.execute()


@contextmanager
def broker(purpose: str) -> Iterator[redis.Redis | None]:
    """The broker itself, or None while it is left alone; what it fails at is only logged."""
    with _whatever_the_broker_does(purpose) as asked:
        yield _client() if asked else None


@contextmanager
def _whatever_the_broker_does(queue: str) -> Iterator[bool]:
    """A dead broker is only logged: the rows wait, and the sweeper fills the queue when it is back.

    After a failure it is left alone for a moment (False), so that a frozen one costs its patience once, not each time.
    """
    global _left_alone_until
    try:
        yield time.monotonic() >= _left_alone_until
    except (OSError, redis.RedisError, KombuError) as error:
        _left_alone_until = time.monotonic() + LEFT_ALONE_SECONDS
        logger.warning("wake-up not sent", extra={"queue": queue, "error": repr(error)})


def _limit(queue: str) -> int:
    return WAITING_OF.get(queue, WAITING)


def _send(queue: str, messages: int) -> None:
    if messages <= 0:
        return
    door = DOORS.get(queue, "tasks.jobs.run_next")
    args = [] if queue in DOORS else [queue]
    options = {"queue": queue, "retry": False, "ignore_result": True}
    with producers[_connection()].acquire(block=True) as producer:
        for _ in range(messages):
            current_app.send_task(door, args=args, producer=producer, **options)


@cache
def _client() -> redis.Redis:
    return redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None)


@cache
def _connection() -> Connection:
    return Connection(settings.CELERY_BROKER_URL, transport_options=PATIENCE)
