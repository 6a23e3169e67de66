"""When keys were last used: noted in Valkey by the script that counts a request, kept by the sweeper once a minute.

A request writes no row for it, and many of a key are one write. What Valkey loses is precision.
"""

import json
import logging
from functools import cache
from typing import Any

import redis
from django.conf import settings

from billing.statements import rows

logger = logging.getLogger(__name__)

# A hash of key ids and seconds, which `tasks.api.rates` fills.
NOTED = "keys:used"
PATIENCE_SECONDS = 0.25
TAKE = """
local noted = redis.call('HGETALL', KEYS[1])
redis.call('UNLINK', KEYS[1])
return noted
"""
# A key that is busy just now goes without, this once: a sweeper holds several as well, and one of the two would wait
# for the other.
KEEP = """
WITH free AS MATERIALIZED (
    SELECT id FROM billing_apikey WHERE id IN (SELECT key::uuid FROM jsonb_object_keys(%(uses)s::jsonb) key)
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE billing_apikey k SET last_used_at = to_timestamp(u.value::float8)
FROM jsonb_each_text(%(uses)s::jsonb) u JOIN free ON free.id = u.key::uuid
WHERE k.id = free.id AND (k.last_used_at IS NULL OR k.last_used_at < to_timestamp(u.value::float8)) RETURNING k.id
"""


def keep() -> int:
    """Take what is noted and write it down; returns how many keys it was of. Nothing while Valkey is away."""
    try:
        noted = _script()(keys=[NOTED])
    except (OSError, redis.RedisError) as error:
        logger.warning("last uses are not kept", extra={"error": repr(error)})
        return 0
    uses = dict(zip(noted[::2], noted[1::2], strict=True))
    return len(rows(KEEP, {"uses": json.dumps(uses)})) if uses else 0


@cache
def _script() -> Any:
    patience = {"socket_timeout": PATIENCE_SECONDS, "socket_connect_timeout": PATIENCE_SECONDS, "retry": None}
    return redis.from_url(settings.REDIS_URL, decode_responses=True, **patience).register_script(TAKE)
