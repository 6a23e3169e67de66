"""The Idempotency-Key header: bound to the task it made, for as long as the task is kept."""

from typing import Any

from rest_framework.request import Request

from tasks.api.errors import InvalidHeader
from tasks.submission import fingerprint, stored_key

MAX_LENGTH = 255


def idempotency(request: Request, *, route: str, body: Any) -> dict[str, str]:
    """What a submission needs of the header: the stored key and the body's fingerprint, or nothing without one."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return {}
    if not 1 <= len(given) <= MAX_LENGTH or not given.isascii() or not given.isprintable():
        raise InvalidHeader(f"Idempotency-Key is 1 to {MAX_LENGTH} printable ASCII characters.")
    return {
        "idempotency_key": stored_key("native", route, str(request.user.account_id), given),
        "fingerprint": fingerprint(body),
    }
