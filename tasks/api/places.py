"""How many may wait at once: in this process, where each keeps a thread, and for one key, over all processes.

The places of a key are counted at the broker, each with a time at which it falls free unless it is renewed, so that a
process that is killed takes none with it. While the broker is away this process counts alone.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings

from tasks import queues
from tasks.api.errors import Unavailable

LEASE_SECONDS = 30
RENEW_SECONDS = 10
TAKE = """
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""
RENEW = """
local ends = tonumber(redis.call('TIME')[1]) + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], ends, ARGV[i]) end
redis.call('EXPIRE', KEYS[1], ARGV[1])
"""


class Places:
    """The places taken in this process, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[str, UUID] = {}
        self._of_key: Counter[UUID] = Counter()
        self._renewed_at = 0.0

    @contextmanager
    def taken(self, key_id: UUID) -> Iterator[None]:
        """A place for as long as this lasts. Raises Unavailable when none is free."""
        place = self._take(key_id)
        try:
            if not _taken_everywhere(key_id, place):
                raise _too_many_of_key()
            yield
        finally:
            self._leave(key_id, place)

    def renew(self) -> None:
        """Keep the places that are taken, now and then: they would fall free."""
        if time.monotonic() - self._renewed_at < RENEW_SECONDS:
            return
        self._renewed_at = time.monotonic()
        with self._lock:
            taken = list(self._taken.items())
        for key_id in {key_id for _, key_id in taken}:
            with queues.broker("places") as broker:
                if broker:
                    self._renew(broker, key_id, [place for place, of in taken if of == key_id])

    def _renew(self, broker: Any, key_id: UUID, kept: list[str]) -> None:
        """Keep these places of a key, but none that was left meanwhile: that would be taken by nobody."""
        broker.eval(RENEW, 1, _name(key_id), LEASE_SECONDS, *kept)
        with self._lock:
            left = [place for place in kept if place not in self._taken]
        if left:
            broker.zrem(_name(key_id), *left)

    def _take(self, key_id: UUID) -> str:
        place = uuid4().hex
        with self._lock:
            if len(self._taken) >= settings.WEB_STREAMS:
                raise Unavailable("As many streams and waits are open as this server carries. Poll, or try again.")
            if self._of_key[key_id] >= settings.KEY_STREAMS:
                raise _too_many_of_key()
            self._taken[place] = key_id
            self._of_key[key_id] += 1
        return place

    def _leave(self, key_id: UUID, place: str) -> None:
        with self._lock:
            del self._taken[place]
            self._of_key[key_id] -= 1
            if not self._of_key[key_id]:
                del self._of_key[key_id]
        with queues.broker("places") as broker:
            if broker:
                broker.zrem(_name(key_id), place)


def _taken_everywhere(key_id: UUID, place: str) -> bool:
    """Whether all processes together leave the key a place; yes, as long as nobody can tell."""
    free = True
    with queues.broker("places") as broker:
        if broker:
            free = bool(broker.eval(TAKE, 1, _name(key_id), place, LEASE_SECONDS, settings.KEY_STREAMS))
    return free


def _too_many_of_key() -> Unavailable:
    return Unavailable(f"This key has {settings.KEY_STREAMS} streams and waits open. Poll, or try again.")


def _name(key_id: UUID) -> str:
    return f"counterfoil:places:{key_id.hex}"


places = Places()
