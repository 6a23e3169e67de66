"""How often a key may ask: so many requests in a minute that begins with the first of them, counted in Valkey.

One script counts and refuses, so that no two requests take the same place. Without Valkey everything passes.
"""

import logging
import time
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Any
from uuid import UUID

import redis
from django.conf import settings

from tasks.last_uses import NOTED

logger = logging.getLogger(__name__)

WINDOW = 60
# A Valkey that is down or frozen costs one request this long, and is then left alone for a while.
PATIENCE_SECONDS = 0.25
LEFT_ALONE_SECONDS = 5.0
_left_alone_until = 0.0

TAKE = """
local used, limit, ask = tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1]), tonumber(ARGV[2])
local passed = used + ask <= limit
if passed and ask > 0 then used = redis.call('INCRBY', KEYS[1], ask) end
local left = redis.call('PTTL', KEYS[1])
if left == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
if left < 0 then left = tonumber(ARGV[3]) end
redis.call('HSET', KEYS[2], ARGV[4], redis.call('TIME')[1])
return {passed and 1 or 0, used, left}
"""


@dataclass(frozen=True)
class Rate:
    """Where a key stands: what it may still ask in this window, and when, in seconds, the next one begins."""

    limit: int
    remaining: int
    reset: int
    passed: bool

    @property
    def headers(self) -> dict[str, str]:
        """The three fields of draft-ietf-httpapi-ratelimit-headers up to -06: those that clients understand."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset),
        }


def count(api_key_id: UUID, limit: int) -> Rate | None:
    """Count a request of the key, if it may still make one. None says that nobody counts now."""
    return _take(api_key_id, limit, 1)


def look(api_key_id: UUID, limit: int) -> Rate | None:
    """Where the key stands, without counting; this always passes."""
    return _take(api_key_id, limit, 0)


def _take(api_key_id: UUID, limit: int, requests: int) -> Rate | None:
    global _left_alone_until
    if time.monotonic() < _left_alone_until:
        return None
    try:
        passed, used, left = _script()(
            keys=[f"rate:{api_key_id}", NOTED], args=[limit, requests, WINDOW * 1000, str(api_key_id)]
        )
    except (OSError, redis.RedisError) as error:
        _left_alone_until = time.monotonic() + LEFT_ALONE_SECONDS
        logger.warning("requests are not counted", extra={"error": repr(error)})
        return None
    return Rate(limit, max(0, limit - used), max(1, ceil(left / 1000)), bool(passed) or not requests)


@cache
def _script() -> Any:
    patience = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS, "retry": None}
    return redis.from_url(settings.REDIS_URL, **patience).register_script(TAKE)
