"""The headers of requests, of answers and of callbacks, as the OpenAPI document tells them."""

from typing import Any

Shown = dict[str, Any]

REQUEST: dict[str, Shown] = {
    "RequestId": {
        "name": "X-Request-Id",
        "description": "A name of yours for this request; the answer and our logs carry it. One is made when absent.",
        "schema": {"type": "string", "maxLength": 128, "pattern": "^[ -~]*$"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "description": "Makes it safe to send this again: it is bound to the task for as long as the task is kept.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    },
    "IfNoneMatch": {
        "name": "If-None-Match",
        "description": "The `ETag` of the last answer: an unchanged task is a 304.",
        "schema": {"type": "string"},
    },
    "Prefer": {
        "name": "Prefer",
        "description": "`wait=N`: answer when the task is final, at the latest after N seconds, 60 at most.",
        "schema": {"type": "string"},
    },
    "LastEventId": {
        "name": "Last-Event-ID",
        "description": "The `seq` of the last event that you have, as EventSource sends it; it goes before `after`.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999_999},
    },
}
ANSWER: dict[str, Shown] = {
    "X-Request-Id": {"description": "The request's name: yours, or one of ours.", "schema": {"type": "string"}},
    "ETag": {"description": "The version of what was answered.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "Preference-Applied": {"description": "The wait that was granted, as `wait=N`.", "schema": {"type": "string"}},
    "Location": {"description": "Where it is.", "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "The answer is about what an earlier request with this key made.",
        "schema": {"type": "string", "const": "true"},
    },
    "RateLimit-Limit": {"description": "Requests a minute.", "schema": {"type": "integer", "minimum": 0}},
    "RateLimit-Remaining": {"description": "Requests left of them.", "schema": {"type": "integer", "minimum": 0}},
    "RateLimit-Reset": {"description": "Seconds to the next minute.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string", "const": "Bearer"}},
}
# On every answer to a key, as long as anybody counts.
RATE = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
WEBHOOK = {
    "webhook-id": "The id of the message, the same on every try: what you have taken already, you can skip.",
    "webhook-timestamp": "When this try was sent, in seconds since 1970; refuse one that is minutes old.",
    "webhook-signature": (
        "`v1,` and the base 64 of HMAC-SHA256 over `id.timestamp.body`, keyed with the bytes after `whsec_`. While the "
        "secret is being changed there are two, with a space between them: one has to match."
    ),
}
