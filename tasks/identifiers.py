"""How ids are written: `task_` and 26 characters (TypeID) in our own API, UUIDs inside."""

from uuid import UUID

import uuid_utils
from typeid import TypeID
from typeid.errors import TypeIDException

PREFIX = "task"


def public_id(task_id: UUID) -> str:
    """The id as clients see it."""
    return str(TypeID.from_uuid(uuid_utils.UUID(bytes=task_id.bytes), prefix=PREFIX))


def parse_id(text: str) -> UUID | None:
    """The UUID behind a public id, or None when it is malformed."""
    try:
        parsed = TypeID.from_string(text)
        return UUID(bytes=parsed.uuid.bytes) if parsed.prefix == PREFIX else None
    except (TypeIDException, ValueError):
        return None
