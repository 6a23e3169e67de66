"""What endpoints read of a request: its body, the task it names, what the client has seen."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request

from tasks.exceptions import Invalid, TaskNotFound
from tasks.identifiers import parse_id
from tasks.models import Task


def body_of(request: Request) -> dict[str, Any]:
    """The body, which is an object. Raises Invalid."""
    if not isinstance(request.data, dict):
        raise Invalid("The body is a JSON object.", param="")
    return request.data


def own_task(request: Request, task_id: str) -> UUID:
    """The id of the caller's task. Raises TaskNotFound for anything else."""
    parsed = parse_id(task_id)
    if parsed is None or not Task.objects.filter(pk=parsed, account_id=request.user.account_id).exists():
        raise TaskNotFound
    return parsed


def seen_by(request: Request) -> int | None:
    """The seq in If-None-Match, if it is one of ours."""
    tag = request.headers.get("If-None-Match", "").removeprefix("W/").strip('"')
    return int(tag) if tag.isascii() and tag.isdigit() and len(tag) < 19 else None
