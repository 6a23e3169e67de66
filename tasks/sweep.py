"""What time and crashes leave behind. Any number may run: every duty locks the row it acts on and looks again.

It needs PostgreSQL alone; a dead broker costs it a warning.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection

from billing import twins
from billing.failpoints import here
from billing.statements import rows
from tasks import artifacts, last_uses, lifecycle, queues
from tasks.exceptions import TaskNotFound
from tasks.models.deployment import CALLBACKS_QUEUE
from tasks.sql import load

logger = logging.getLogger(__name__)

BATCH = 500
MINUTE = 60

# While the database was away nobody could renew a lease: after its own restart every lease gets its full time again.
LOST_LEASES = """
SELECT task_id FROM tasks_run
WHERE status = 'running' AND lease_expires_at <= now()
  AND now() - pg_postmaster_start_time() > make_interval(secs => %(lease)s)
ORDER BY lease_expires_at LIMIT %(batch)s
"""
OVERDUE = """
(SELECT id FROM tasks_task WHERE status IN ('queued', 'running') AND deadline <= now()
 ORDER BY deadline LIMIT %(batch)s)
UNION
(SELECT id FROM tasks_task WHERE status = 'queued' AND started_at IS NULL AND expires_at <= now()
 ORDER BY expires_at LIMIT %(batch)s)
"""
DUE_CALLBACKS = """
SELECT EXISTS (SELECT FROM tasks_callback
    WHERE status = 'pending' AND waits_for_id IS NULL AND next_attempt_at <= now()
        AND (lease_expires_at IS NULL OR lease_expires_at <= now()))
    OR EXISTS (SELECT FROM waited_receivers() w JOIN tasks_receiver r ON r.id = w
    WHERE r.paused_at IS NULL OR r.next_probe_at <= now() AND (r.probing_until IS NULL OR r.probing_until <= now()))
"""
# Attempts of callbacks that may still be tried stay, however old.
OLD_ATTEMPTS = """
DELETE FROM tasks_callbackattempt WHERE id = ANY (ARRAY(
    SELECT a.id FROM tasks_callbackattempt a JOIN tasks_callback c ON c.id = a.callback_id
    WHERE a.started_at < now() - make_interval(days => %(days)s) AND c.status <> 'pending'
    ORDER BY a.started_at LIMIT %(batch)s))
RETURNING id
"""
OLD_RECEIVERS = """
DELETE FROM tasks_receiver WHERE id = ANY (ARRAY(
    SELECT r.id FROM tasks_receiver r
    WHERE r.last_failure_at < now() - make_interval(days => %(days)s)
        AND NOT EXISTS (SELECT FROM tasks_callback c WHERE c.waits_for_id = r.id)
    ORDER BY r.last_failure_at LIMIT %(batch)s FOR UPDATE SKIP LOCKED))
RETURNING id
"""


# When this process last heard the database, and since when it has had no long silence before; by its own clock.
_heard_at = _back_at = -math.inf


def end_lost_leases() -> int:
    """Take running tasks from workers that are gone; not before a lease's time after the database was away from us."""
    if time.monotonic() - _back_at < settings.LEASE_SECONDS:
        return 0
    return _all(LOST_LEASES, lifecycle.give_up, lease=settings.LEASE_SECONDS)


def expire_overdue() -> int:
    """End tasks whose deadline passed, or that waited too long for a first start."""
    return _all(OVERDUE, lifecycle.expire)


def top_up_queues() -> int:
    """Make messages wait for tasks that could be claimed now and whose wake-up was lost."""
    found = rows(load("eligible"), {"queues": queues.in_use(), "most": queues.WAITING})
    for queue, eligible in found:
        if eligible:
            queues.fill(queue, eligible)
    return 0


def wake_callbacks() -> int:
    """Wake the deliverer when a callback is due."""
    if rows(DUE_CALLBACKS, {})[0][0]:
        queues.fill(CALLBACKS_QUEUE, 1)
    return 0


def end_waits() -> int:
    """End callbacks that waited too long for a paused receiver, as failed."""
    _batches(load("end_waits"), days=settings.CALLBACK_PAUSE_DAYS)
    return 0


def forget_attempts() -> int:
    """Delete old attempts of callbacks that ended, and receivers that have not failed since."""
    if settings.CALLBACK_ATTEMPT_DAYS:
        for statement in (OLD_ATTEMPTS, OLD_RECEIVERS):
            _batches(statement, days=settings.CALLBACK_ATTEMPT_DAYS)
    return 0


def fill_test_accounts() -> int:
    """Give test accounts the credits of a new day."""
    if _a_minute_has_passed("twins"):
        twins.fill()
    return 0


def keep_last_uses() -> int:
    """Write down when keys were last used."""
    if _a_minute_has_passed("uses"):
        last_uses.keep()
    return 0


# When this process last did what is done once a minute, by its own clock.
_done_at: dict[str, float] = {}


def _a_minute_has_passed(since: str) -> bool:
    if time.monotonic() - _done_at.get(since, -math.inf) < MINUTE:
        return False
    _done_at[since] = time.monotonic()
    return True


DUTIES: tuple[Callable[[], int], ...] = (
    end_lost_leases,
    expire_overdue,
    top_up_queues,
    wake_callbacks,
    end_waits,
    forget_attempts,
    fill_test_accounts,
    keep_last_uses,
)


def once() -> int:
    """Do every duty once; one that fails does not keep the others from their work. Returns how many tasks moved."""
    moved = 0
    for duty in (_be_impatient, *DUTIES):
        try:
            moved += duty()
            _hear()
        except Exception:
            logger.exception("%s failed", duty.__name__)
            connection.close()
    return moved


def _be_impatient() -> int:
    """Wait for nobody's lock for long: a row that is held is looked at again in the next tick."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '1s'")
    return 0


def _hear() -> None:
    global _heard_at
    _heard_at = time.monotonic()


def _begin() -> None:
    """Nobody can tell what was before the first look: it follows a silence too."""
    global _back_at
    _back_at = time.monotonic()
    _hear()


def _mind_the_silence() -> None:
    """After half a lease without the database we cannot tell who else was cut off: as after its own restart, whoever
    is alive gets the time of a lease to say so. A fail-over or a broken network shows in nothing else."""
    global _back_at
    try:
        _be_impatient()
    except (DatabaseError, InterfaceError):
        connection.close()
        return
    if time.monotonic() - _heard_at > settings.LEASE_SECONDS / 2:
        _back_at = time.monotonic()
    _hear()


def for_ever(stopped: Callable[[float], bool]) -> None:
    """Sweep every tick until `stopped(seconds)`, which waits, says so."""
    beside = threading.Thread(target=_delete_files, args=(stopped,), daemon=True)
    beside.start()
    _begin()
    while True:
        started = time.monotonic()
        _mind_the_silence()
        once()
        if stopped(max(0.05, settings.SWEEP_SECONDS - (time.monotonic() - started))):
            break
    beside.join(1)


def _delete_files(stopped: Callable[[float], bool]) -> None:
    """Delete files that are not needed any more, beside the duties: a storage may hang, a task's end may not."""
    while True:
        for duty in (artifacts.delete_expired, artifacts.delete_abandoned):
            try:
                duty(BATCH)
            except Exception:
                logger.exception("%s failed", duty.__name__)
        connection.close()
        if stopped(settings.SWEEP_SECONDS):
            return


def _batches(statement: str, **params: object) -> None:
    """Repeat the statement while its batches come full."""
    while len(rows(statement, params | {"batch": BATCH})) == BATCH:
        pass


def _all(statement: str, verb: Callable[[UUID], bool], **params: object) -> int:
    """Do the verb for every task that the statement finds, batch by batch while they come full; count those moved."""
    moved = 0
    while True:
        found = rows(statement, params | {"batch": BATCH})
        moved_now = sum(_one(verb, task_id) for (task_id,) in found)
        moved += moved_now
        if len(found) < BATCH or not moved_now:
            return moved


def _one(verb: Callable[[UUID], bool], task_id: UUID) -> bool:
    """Do the verb for a task; whatever is wrong with that one keeps no other from its turn."""
    here("sweep.mid_batch")
    _hear()
    try:
        return verb(task_id)
    except TaskNotFound:
        return False
    except Exception:
        logger.exception("%s failed for %s", verb.__name__, task_id)
        return False
