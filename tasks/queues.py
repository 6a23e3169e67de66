"""The queues' wake-ups. A message names a queue, not a task; one too many finds nothing, one too few is made up for."""

import logging
from functools import cache, partial

import redis
from celery import current_app
from django.conf import settings
from django.db import transaction
from kombu import Connection
from kombu.pools import producers

from billing.statements import one
from tasks.models.deployment import CALLBACKS_QUEUE

logger = logging.getLogger(__name__)

# How many messages of a queue may wait: enough to keep workers busy, few enough to bound the broker.
WAITING = 64
WAITING_CALLBACKS = 4
# A broker that is down or frozen costs a submission half a second at most.
PATIENCE = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5, "max_retries": 0, "interval_start": 0}
DOORS = {CALLBACKS_QUEUE: "tasks.jobs.deliver_due"}


def wake(queue: str) -> None:
    """Tell a worker of this queue to look, unless enough messages wait. A dead broker is only logged."""
    top_up(queue, 1)


def wake_on_commit(queue: str) -> None:
    """Wake the queue when everybody can see what was written."""
    transaction.on_commit(partial(wake, queue), robust=True)


def top_up(queue: str, wanted: int) -> None:
    """Make `wanted` more messages wait, as far as the queue's limit allows."""
    try:
        room = _limit(queue) - depth(queue)
        for _ in range(min(wanted, room)):
            _send(queue)
    except (OSError, redis.RedisError, current_app.connection_for_write().connection_errors) as error:
        logger.warning("wake-up not sent", extra={"queue": queue, "error": repr(error)})


def fill(queue: str, eligible: int) -> None:
    """Make as many messages wait as there is eligible work, within the queue's limit."""
    top_up(queue, eligible - depth(queue))


def depth(queue: str) -> int:
    """How many messages wait at the broker."""
    return _client().llen(queue)


def _limit(queue: str) -> int:
    return WAITING_CALLBACKS if queue == CALLBACKS_QUEUE else WAITING


def _send(queue: str) -> None:
    door = DOORS.get(queue, "tasks.jobs.run_next")
    args = [] if queue in DOORS else [queue]
    options = {"queue": queue, "retry": False, "ignore_result": True, "time_limit": _time_limit(queue)}
    with producers[_connection()].acquire(block=True) as producer:
        current_app.send_task(door, args=args, producer=producer, **options)


def _time_limit(queue: str) -> int:
    """When Celery ends the process of a job, in seconds: the last resort behind timeouts and leases."""
    row = one("SELECT max(timeout) FROM tasks_deployment WHERE queue = %(queue)s", {"queue": queue})
    return (row[0] or 0) + 120 if row else 120


@cache
def _client() -> redis.Redis:
    return redis.from_url(settings.REDIS_URL, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None)


@cache
def _connection() -> Connection:
    return Connection(settings.CELERY_BROKER_URL, transport_options=PATIENCE)
