"""How ids are written: `task_` and 26 characters (TypeID) in our own API, UUIDs inside."""

import secrets
from datetime import UTC, datetime, timedelta
from uuid import UUID

import uuid_utils
from typeid import TypeID
from typeid.errors import TypeIDException

PREFIX = "task"
ENDPOINT = "endpoint"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def public_id(id_: UUID, *, prefix: str = PREFIX) -> str:
    """The id as clients see it."""
    return str(TypeID.from_uuid(uuid_utils.UUID(bytes=id_.bytes), prefix=prefix))


def new_id(at: datetime) -> UUID:
    """A UUIDv7 of that moment, to the microsecond, so that ids of one clock sort by age whichever host made them."""
    microseconds = (at - EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(microseconds, 1000)
    fraction = rest * 4096 // 1000
    return UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | secrets.randbits(62))


def first_id(at: datetime) -> UUID:
    """What no id of that moment or a later one is less than."""
    return UUID(int=(at - EPOCH) // timedelta(milliseconds=1) << 80)


def made_at(id_: UUID) -> datetime:
    """The moment of an id, to the millisecond."""
    return EPOCH + timedelta(milliseconds=id_.int >> 80)


def parse_id(text: str, *, prefix: str = PREFIX) -> UUID | None:
    """The UUID behind a public id, or None when it is malformed."""
    try:
        parsed = TypeID.from_string(text)
        return UUID(bytes=parsed.uuid.bytes) if parsed.prefix == prefix else None
    except (TypeIDException, ValueError):
        return None
