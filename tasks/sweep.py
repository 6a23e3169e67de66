"""What time and crashes leave behind. Any number may run: every duty locks the row it acts on and looks again.

It needs PostgreSQL alone; a dead broker costs it a warning.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterable
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from psycopg.errors import LockNotAvailable

from billing import twins
from billing.statements import rows
from tasks import artifacts, last_uses, lifecycle, queues
from tasks.exceptions import TaskNotFound
from tasks.models.bulk import BULK_QUEUE
from tasks.models.deployment import CALLBACKS_QUEUE
from tasks.sql import load

logger = logging.getLogger(__name__)

BATCH = 500
# How many tasks end in one transaction: their accounts are held as long.
TOGETHER = 100
# What a duty may take of a tick; what is left is for the next, which then comes at once.
TURN_SECONDS = 0.5
# How long a task that cannot be ended is left alone, so that it holds no other up: twice as long each time, or, where
# only its account is held, a while that its deadline's ten seconds allow.
APART_SECONDS, MOST_APART_SECONDS = 4.0, 600.0
MINUTE = 60

# While the database was away nobody could renew a lease: after its own restart every lease gets its full time again.
LOST_LEASES = """
SELECT t.id, t.account_id FROM tasks_task t JOIN (
    SELECT task_id FROM tasks_run WHERE status = 'running' AND lease_expires_at <= now()
        AND now() - pg_postmaster_start_time() > make_interval(secs => %(lease)s)
        AND task_id <> ALL (%(apart)s::uuid[])
    ORDER BY lease_expires_at LIMIT %(batch)s) lost ON lost.task_id = t.id
ORDER BY t.account_id, t.id
"""
OVERDUE = """
SELECT id, account_id FROM (
    (SELECT id, account_id FROM tasks_task WHERE status IN ('queued', 'running') AND deadline <= now()
        AND id <> ALL (%(apart)s::uuid[]) ORDER BY deadline LIMIT %(batch)s)
    UNION
    (SELECT id, account_id FROM tasks_task WHERE status = 'queued' AND started_at IS NULL AND expires_at <= now()
        AND id <> ALL (%(apart)s::uuid[]) ORDER BY expires_at LIMIT %(batch)s)) late
ORDER BY account_id, id
"""
DUE_CALLBACKS = """
SELECT EXISTS (SELECT FROM tasks_callback
    WHERE status = 'pending' AND waits_for_id IS NULL AND next_attempt_at <= now()
        AND (lease_expires_at IS NULL OR lease_expires_at <= now()))
    OR EXISTS (SELECT FROM tasks_receiver
    WHERE next_probe_at <= now() AND (probing_until IS NULL OR probing_until <= now()))
"""
BULK_IS_DUE = """
SELECT EXISTS (SELECT FROM tasks_bulkaction
    WHERE (status = 'running' OR lease_token IS NOT NULL) AND (lease_expires_at IS NULL OR lease_expires_at <= now()))
"""
# What was frozen and never started: its rows first, as far as the duty's turn goes.
UNSTARTED_ROWS = """
DELETE FROM tasks_bulkactionrow WHERE id = ANY (ARRAY(
    SELECT r.id FROM tasks_bulkaction a JOIN tasks_bulkactionrow r ON r.action_id = a.id
    WHERE a.status = 'ready' AND a.created_at < now() - interval '1 day' LIMIT %(batch)s))
RETURNING id
"""
UNSTARTED = """
DELETE FROM tasks_bulkaction a WHERE status = 'ready' AND created_at < now() - interval '1 day'
    AND NOT EXISTS (SELECT FROM tasks_bulkactionrow r WHERE r.action_id = a.id)
    AND NOT EXISTS (SELECT FROM tasks_bulkaction again WHERE again.retry_of_id = a.id)
RETURNING id
"""
# What began to wait in the moment in which its receiver was found idle, or working, is not forgotten there.
OVERLOOKED = """
UPDATE tasks_receiver SET next_probe_at = now()
WHERE id IN (SELECT waited_receivers()) AND next_probe_at IS NULL RETURNING id
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

OLD_SESSIONS = """
DELETE FROM django_session WHERE session_key = ANY (ARRAY(
    SELECT session_key FROM django_session WHERE expire_date < now() ORDER BY expire_date LIMIT %(batch)s))
RETURNING session_key
"""
# By their ids, which grow with time: the list has no index by time.
OLD_LOGINS = """
DELETE FROM axes_accesslog WHERE attempt_time < now() - make_interval(days => %(days)s)
    AND id = ANY (ARRAY(SELECT id FROM axes_accesslog ORDER BY id LIMIT %(batch)s))
RETURNING id
"""


# When this process last heard the database, and since when it has had no long silence before; by its own clock.
_heard_at = _back_at = -math.inf


def end_lost_leases() -> int:
    """Take running tasks from workers that are gone; not before a lease's time after the database was away from us."""
    if time.monotonic() - _back_at < settings.LEASE_SECONDS:
        return 0
    return _all(LOST_LEASES, lifecycle.give_up_many, lifecycle.give_up, lease=settings.LEASE_SECONDS)


def expire_overdue() -> int:
    """End tasks whose deadline passed, or that waited too long for a first start."""
    return _all(OVERDUE, lifecycle.expire_many, lifecycle.expire)


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


def wake_bulk() -> int:
    """Wake whoever acts on many tasks where a worker has left some, or its wake-up was lost."""
    if rows(BULK_IS_DUE, {})[0][0]:
        queues.fill(BULK_QUEUE, 1)
    return 0


def forget_unstarted() -> int:
    """Delete what was frozen for a bulk action that nobody started for a day."""
    if _a_minute_has_passed("unstarted"):
        _batches(UNSTARTED_ROWS)
        rows(UNSTARTED, {})
    return 0


def find_overlooked() -> int:
    """Look again at receivers that callbacks wait for and whose time was not set."""
    if _a_minute_has_passed("receivers"):
        rows(OVERLOOKED, {})
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


def forget_logins() -> int:
    """Delete sessions that have expired, and logins of long ago."""
    if _a_minute_has_passed("logins"):
        _batches(OLD_SESSIONS)
        if settings.LOGIN_DAYS:
            _batches(OLD_LOGINS, days=settings.LOGIN_DAYS)
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
    find_overlooked,
    wake_callbacks,
    wake_bulk,
    end_waits,
    forget_attempts,
    forget_unstarted,
    forget_logins,
    fill_test_accounts,
    keep_last_uses,
)


def once() -> int:
    """Do every duty once; one that fails does not keep the others from their work. Returns how many tasks moved."""
    moved = 0
    for duty in (_be_impatient, *DUTIES):
        try:
            moved += duty()
            if connection.connection is not None:  # a duty that had nothing to ask is no news after one that failed
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
    """The database has just answered. After half a lease without it we cannot tell who else was cut off: as after its
    own restart, whoever is alive gets the time of a lease to say so. A fail-over or a broken network shows in nothing
    else."""
    global _heard_at, _back_at
    now = time.monotonic()
    if now - _heard_at > settings.LEASE_SECONDS / 2:
        _back_at = now
    _heard_at = now


def _begin() -> None:
    """Nobody can tell what was before the first look: it follows a silence too."""
    global _heard_at, _back_at
    _heard_at = _back_at = time.monotonic()


def _answers() -> bool:
    """Whether the database answers, before anything is decided on what it says."""
    try:
        _be_impatient()
    except (DatabaseError, InterfaceError) as error:
        logger.warning("the database is away", extra={"error": repr(error)})
        connection.close()
        return False
    _hear()
    return True


def for_ever(stopped: Callable[[float], bool]) -> None:
    """Sweep every tick until `stopped(seconds)`, which waits, says so."""
    beside = threading.Thread(target=_delete_files, args=(stopped,), daemon=True)
    beside.start()
    _begin()
    while True:
        started = time.monotonic()
        moved = once() if _answers() else 0
        rest = 0 if moved >= TOGETHER else settings.SWEEP_SECONDS - (time.monotonic() - started)
        if stopped(max(0.05, rest)):
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
    """Repeat the statement while its batches come full and the duty has its turn."""
    until = time.monotonic() + TURN_SECONDS
    while len(rows(statement, params | {"batch": BATCH})) == BATCH and time.monotonic() < until:
        pass


Together = Callable[..., int]
Alone = Callable[[UUID], bool]


def _all(statement: str, together: Together, alone: Alone, **params: object) -> int:
    """End what the statement finds, account by account, while anything moves and the duty has its turn."""
    moved, until = 0, time.monotonic() + TURN_SECONDS
    while True:
        found = rows(statement, params | {"batch": BATCH, "apart": _apart()})
        done = 0
        parts = range(0, len(found), TOGETHER)
        for first in random.sample(parts, len(parts)):  # whoever sweeps beside us is elsewhere
            done += _some(together, alone, found[first : first + TOGETHER])
            if time.monotonic() > until:
                return moved + done
        moved += done
        if len(found) < BATCH or not (done or set(_apart()).intersection(task for task, _ in found)):
            return moved


def _some(together: Together, alone: Alone, found: list[tuple[UUID, UUID]]) -> int:
    """End these together, or, where one of them cannot be, one by one; an account that is held makes its tasks wait."""
    accounts = list(dict.fromkeys(account for _, account in found))
    try:
        ended = together([task for task, _ in found], of=accounts)
        _hear()
        return ended
    except (OperationalError, InterfaceError) as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        logger.warning("an account is held", extra={"account": str(accounts[0])})
        _set_apart((task for task, account in found if account == accounts[0]), wait=APART_SECONDS)
        return 0
    except Exception as error:
        logger.warning("%s failed, one by one then", together.__name__, extra={"error": repr(error)})
        return sum(_one(alone, task) for task, _ in found)


def _one(alone: Alone, task_id: UUID) -> bool:
    """End a task; whatever is wrong with that one keeps no other from its turn."""
    try:
        ended = alone(task_id)
        _hear()
        return ended
    except TaskNotFound:
        return False
    except Exception:
        logger.exception("%s failed for %s", alone.__name__, task_id)
        _, before = _left_alone.get(task_id, (0, APART_SECONDS / 2))
        _set_apart([task_id], wait=min(before * 2, MOST_APART_SECONDS))
        return False


# Tasks that this process left alone: until when, by its own clock, and how long that was.
_left_alone: dict[UUID, tuple[float, float]] = {}


def _set_apart(task_ids: Iterable[UUID], *, wait: float) -> None:
    _left_alone.update(dict.fromkeys(task_ids, (time.monotonic() + wait, wait)))


def _apart() -> list[UUID]:
    """The tasks that are left alone now; those whose time was over long ago are forgotten."""
    now = time.monotonic()
    for task_id in [task_id for task_id, (until, _) in _left_alone.items() if until < now - MOST_APART_SECONDS]:
        del _left_alone[task_id]
    return [task_id for task_id, (until, _) in _left_alone.items() if until > now]
