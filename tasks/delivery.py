"""The deliverer: leases due callbacks, posts them all at once, records what came of it, until nothing is due.

The database belongs to the calling thread, the network to a loop beside it: no transaction is open while a receiver
thinks, and one that hangs keeps nobody waiting. A deliverer that dies leaves leases that run out.
"""

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from uuid import UUID, uuid4

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, transaction

from billing.credentials import decrypt
from billing.failpoints import here
from billing.statements import rows
from tasks import net, queues
from tasks.callbacks import FORMATS
from tasks.models.callback import Callback
from tasks.models.deployment import CALLBACKS_QUEUE
from tasks.sql import load

logger = logging.getLogger(__name__)

PLACES = 200
PLACES_A_HOST = 10
# An account with thousands of receivers that hang leaves three quarters of a deliverer's places to others.
PLACES_AN_ACCOUNT = 50
# Due rows that a claim looks at; beyond, so many accounts share the look.
LOOK = 500
ACCOUNTS = 100
# Bodies above the small ones also take room, in bytes: what is in memory is bounded, and small ones wait for no large.
SMALL = 2**16
ROOM = 12 * 2**20
ROOM_A_HOST = 2**20
# Paused receivers of a host are probed beside the ten, so that neither takes the other's places.
PROBES_A_HOST = 3
# Probes of a turn: their bodies take room, too, and its end is seen afterwards only.
PROBES = 10
# So many failures in a row pause a receiver: a URL, without its query, of one account.
FAILURES = 10
# Rows that wait, or no longer wait, for a receiver move this many at a time.
BATCH = 2000
# What is due for paused receivers hides what is behind it; so many batches of it are cleared away before giving up.
PASSES = 10
SECONDS = 30
# While a receiver takes its time, new work is looked for this often.
LOOK_AGAIN_SECONDS = 0.1
# A try that could not be made is made a moment later.
POSTPONED_SECONDS = 5.0
MOST_PATIENCE = 86_400.0

UNSENT = "The callback could not be sent: an internal error."
INTERNAL = "What came of the try could not be recorded: an internal error."

DELIVERED, FAILED, PENDING = Callback.Status.DELIVERED, Callback.Status.FAILED, Callback.Status.PENDING


@dataclass(frozen=True)
class Owed:
    """A callback that is ours to deliver until its lease ends."""

    id: UUID
    token: UUID
    task_id: UUID | None
    account_id: UUID
    url: str
    format: str
    body: bytes
    tries_left: int
    secret: str
    secret_previous: str
    # The paused receiver that it probes.
    probes: int | None = None

    @property
    def room(self) -> int:
        """The bytes of room that it takes."""
        return len(self.body) if len(self.body) > SMALL else 0

    @property
    def secrets(self) -> list[str]:
        return [_decrypted(secret) for secret in (self.secret, self.secret_previous) if secret]


@dataclass(frozen=True)
class Try:
    """One try: the answer, or the error that came instead; neither when it could not be made."""

    owed: Owed
    started_at: datetime
    duration_ms: int
    answer: net.Answer | None = None
    error: str | None = None
    sent: net.Sent = field(default_factory=net.Sent)

    @property
    def made(self) -> bool:
        return self.answer is not None or self.error is not None


@dataclass(frozen=True)
class Verdict:
    """What a try makes of its callback; `delay` is seconds until the next one, `asked` those the receiver asked for."""

    status: str
    tries_left: int
    delay: float | None = None
    last_error: str | None = None
    asked: float = 0.0


def deliver_due() -> None:
    """Deliver what is due, until nothing is or half a minute has passed."""
    async_to_sync(_deliver)()


async def _deliver() -> None:
    async with net.Client() as client:
        under_way: dict[asyncio.Task[Try], Owed] = {}
        try:
            await _shift(client, under_way)
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)


async def _shift(client: net.Client, under_way: dict[asyncio.Task[Try], Owed]) -> None:
    """Turns of recording and leasing, while the tries under way go on. At its end another deliverer is called, since
    the last receivers may take their time."""
    ends = time.monotonic() + SECONDS
    tries: list[Try] = []
    while time.monotonic() < ends:
        room = ROOM - sum(owed.room for owed in under_way.values())
        due = await sync_to_async(_turn)(tries, PLACES - len(under_way), room)
        under_way |= {asyncio.create_task(_try(client, owed)): owed for owed in due}
        if not under_way:
            return
        tries = await _ended(under_way, LOOK_AGAIN_SECONDS)
    await sync_to_async(queues.wake)(CALLBACKS_QUEUE)
    while tries or under_way:
        await sync_to_async(_turn)(tries, 0, 0)
        tries = await _ended(under_way, None)


async def _ended(under_way: dict[asyncio.Task[Try], Owed], within: float | None) -> list[Try]:
    """The tries that ended, taken from those under way; none when nothing does in time."""
    done = {task for task in under_way if task.done()}
    if under_way and not done:
        done, _ = await asyncio.wait(under_way, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        del under_way[task]
    return [task.result() for task in done]


def _turn(tries: Sequence[Try], places: int, room: int) -> list[Owed]:
    """Record what came back, and lease as many as there are places and room for."""
    if tries:
        here("deliver.before_record")
        postpone([each.owed for each in tries if not each.made])
        if made := [each for each in tries if each.made]:
            record(made)
        here("deliver.after_record")
    due = claim(places, room=room) if places else []
    if due:
        here("deliver.after_claim")
    return due


def claim(places: int, *, room: int = ROOM) -> list[Owed]:
    """Lease due callbacks, at most ten a host and fifty an account, and probes of paused receivers; committed when this
    returns.

    Their bodies take up `room` bytes and one body more at the most, the small ones not counted.
    """
    leased: list[Owed] = []
    for _ in range(PASSES):
        with transaction.atomic(durable=True):
            rows(load("release_callbacks"), {"batch": BATCH})
            due, paused = _due(places - len(leased), room - sum(owed.room for owed in leased))
            leased += due
            if paused:
                rows(load("park_callbacks"), {"receivers": list(paused), "batch": BATCH})
        if not paused or len(leased) >= places:
            break
    places, room = places - len(leased), room - sum(owed.room for owed in leased)
    return leased + _probes(min(places, PROBES)) if places and room > 0 else leased


def _due(places: int, room: int) -> tuple[list[Owed], set[int]]:
    """What is leased, and the paused receivers that others of the due ones now wait for."""
    params = {
        "token": uuid4(),
        "lease": _lease(),
        "places": places,
        "a_host": PLACES_A_HOST,
        "an_account": PLACES_AN_ACCOUNT,
        "look": LOOK,
        "accounts": ACCOUNTS,
        "small": SMALL,
        "room": room,
        "room_a_host": ROOM_A_HOST,
    }
    found = rows(load("claim_callbacks"), params)
    return [Owed(*row[:-1]) for row in found if row[-1] is None], {row[-1] for row in found if row[-1] is not None}


def _probes(places: int) -> list[Owed]:
    """The probes that are leased: one for each paused receiver whose time has come. What else it is owed waits."""
    params = {
        "token": uuid4(),
        "lease": _lease(),
        "places": places,
        "a_host": PROBES_A_HOST,
        "an_account": PLACES_AN_ACCOUNT,
    }
    with transaction.atomic(durable=True):
        probes = [Owed(*row) for row in rows(load("claim_probes"), params)]
        if probes:
            rows(load("park_callbacks"), {"receivers": [probe.probes for probe in probes], "batch": BATCH})
    return probes


def _lease() -> float:
    """Seconds that a try may take, and recording it."""
    return settings.CALLBACK_TIMEOUT_SECONDS + settings.LEASE_SECONDS  # type: ignore[no-any-return]


async def _try(client: net.Client, owed: Owed) -> Try:
    """Sign and post. It raises nothing: whatever goes wrong is this callback's own affair."""
    started_at, started = datetime.now(UTC), time.monotonic()
    answer, error, sent = None, None, net.Sent()
    try:
        headers = FORMATS[owed.format].headers(owed.id, owed.body, owed.secrets, int(started_at.timestamp()))
        answer = await client.post(owed.url, body=owed.body, headers=headers, of=owed.account_id, sent=sent)
        here("deliver.after_post")
    except net.Busy:
        pass
    except (net.ForbiddenUrl, net.Unreachable) as reason:
        error = _storable(str(reason))
    except Exception:
        logger.exception("callback not sent", extra={"callback": str(owed.id)})
        error = UNSENT
    return Try(owed, started_at, round((time.monotonic() - started) * 1000), answer, error, sent)


def postpone(untried: Sequence[Owed]) -> None:
    """Let go of what there was no way to try: it is due again in a moment, and has used up nothing."""
    if untried:
        params = {
            "ids": [owed.id for owed in untried],
            "tokens": [owed.token for owed in untried],
            "probes": [owed.probes for owed in untried],
            "seconds": POSTPONED_SECONDS,
        }
        rows(load("postpone_callbacks"), params)


def record(tries: Sequence[Try]) -> int:
    """Write what came of the tries; returns how many were still ours to record.

    A try that the database will not take is set apart, so that it spoils none of the others.
    """
    try:
        return _write(tries, [_row(each) for each in tries])
    except (OperationalError, InterfaceError):
        raise
    except DatabaseError:
        if len(tries) > 1:
            return sum(record([each]) for each in tries)
        logger.exception("a try not recorded as it was", extra={"callback": str(tries[0].owed.id)})
        return _write(tries, [_bare_row(tries[0])])


def _write(tries: Sequence[Try], written: list[dict[str, Any]]) -> int:
    params = {
        "tasks": [each.owed.task_id for each in tries if each.owed.task_id],
        "tries": json.dumps(written),
        "failures": FAILURES,
        "pauses": settings.CALLBACK_PROBE_SECONDS,
    }
    return len(rows(load("record_callbacks"), params))


def _row(tried: Try) -> dict[str, Any]:
    answer = tried.answer
    return _bare_row(tried) | {
        "duration_ms": tried.duration_ms,
        "code": answer.status if answer else None,
        "response": _storable(answer.body.decode(errors="replace")) if answer else "",
        "response_headers": _storable(answer.headers) if answer else "",
        "request_headers": tried.sent.headers,
        "address": tried.sent.address,
        "error": tried.error,
        "tells": tried.error != UNSENT,
        **vars(_judged(tried)),
    }


def _bare_row(tried: Try) -> dict[str, Any]:
    """That a try was made, and used up: nothing in it comes from outside."""
    return {
        "id": str(tried.owed.id),
        "token": str(tried.owed.token),
        "probe": tried.owed.probes is not None,
        "tells": False,
        "started_at": tried.started_at.isoformat(),
        "duration_ms": 0,
        "code": None,
        "response": "",
        "response_headers": "",
        "request_headers": None,
        "address": "",
        "error": INTERNAL,
        **vars(_again(tried, INTERNAL)),
    }


def _storable(text: str) -> str:
    """The text without what PostgreSQL cannot hold: NUL and lone surrogates."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def _judged(tried: Try) -> Verdict:
    """The verdict. It raises nothing: one that crashes has used up the try."""
    try:
        return verdict(tried)
    except Exception:
        logger.exception("a try not judged", extra={"callback": str(tried.owed.id)})
        return _again(tried, INTERNAL)


def verdict(tried: Try) -> Verdict:
    """What the try makes of its callback: only 2xx delivers, 410 ends it, anything else is tried again."""
    left = _left(tried)
    status = tried.answer.status if tried.answer else None
    if status and 200 <= status < 300:
        return Verdict(DELIVERED, left)
    error = tried.error or _said(status)
    if status == HTTPStatus.GONE:
        return Verdict(FAILED, left, last_error=error)
    return _again(tried, error, asked=patience(tried.answer.retry_after) if tried.answer else 0.0)


def _left(tried: Try) -> int:
    """The tries left. A probe uses up none: it is made for all that wait, and how long they wait has an end."""
    return tried.owed.tries_left if tried.owed.probes else max(tried.owed.tries_left - 1, 0)


def _again(tried: Try, error: str, *, asked: float = 0.0) -> Verdict:
    """Another try, after the schedule's pause or a longer one that was asked for, while any is left."""
    left = _left(tried)
    if tried.owed.probes:
        return Verdict(PENDING, left, 0.0, error, asked)
    if not left:
        return Verdict(FAILED, left, last_error=error, asked=asked)
    return Verdict(PENDING, left, max(_pause(left), asked), error, asked)


def _said(status: int | None) -> str:
    if status and 300 <= status < 400:
        return f"The receiver answered {status}; redirects are not followed."
    return f"The receiver answered {status}."


def _pause(left: int) -> float:
    """Seconds until the next of `left` tries: the schedule, 10 % either way."""
    schedule = settings.CALLBACK_SCHEDULE
    place = min(max(len(schedule) - left, 0), len(schedule) - 1)
    pause: float = schedule[place].total_seconds()
    return pause * random.uniform(0.9, 1.1)  # noqa: S311 - jitter


def patience(retry_after: str | None) -> float:
    """Seconds that a Retry-After header asks for, at most a day; 0 when it makes no sense."""
    text = (retry_after or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return min(float(text), MOST_PATIENCE)
    try:
        until = parsedate_to_datetime(text)
        wanted = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    except Exception:  # the header is the receiver's; one that trips the parser is one that makes no sense
        return 0.0
    return min(max(wanted, 0.0), MOST_PATIENCE)


@lru_cache(maxsize=1024)
def _decrypted(secret: str) -> str:
    return decrypt(secret)
