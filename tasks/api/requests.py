"""What endpoints read of a request: its body, the task it names, what the client has seen."""

from typing import Any
from uuid import UUID

from rest_framework.request import Request

from tasks import submission
from tasks.api import parameters
from tasks.api.errors import InvalidHeader
from tasks.api.serializers import CreateTask
from tasks.exceptions import Invalid, TaskNotFound
from tasks.identifiers import parse_id
from tasks.models import Task

CREATE = CreateTask()


def body_of(request: Request) -> dict[str, Any]:
    """The body, which is an object. Raises Invalid."""
    if not isinstance(request.data, dict):
        raise Invalid("The body is a JSON object.", param="")
    return request.data


def wanted_of(request: Request, body: dict[str, Any]) -> submission.Request:
    """What the body of a creation asks for. Raises ValidationError."""
    wanted = CREATE.run_validation(body)
    callback = wanted.pop("callback")
    return submission.Request(
        account_id=request.user.account_id,
        api_key_id=request.user.api_key_id,
        actor=request.user.actor,
        callback_url=callback["url"] if callback else None,
        **wanted,
    )


def own_task(request: Request, task_id: str) -> UUID:
    """The id of the caller's task. Raises TaskNotFound for anything else."""
    parsed = parse_id(task_id)
    if parsed is None or not Task.objects.filter(pk=parsed, account_id=request.user.account_id).exists():
        raise TaskNotFound
    return parsed


def seen_by(request: Request) -> int | None:
    """The seq in If-None-Match, if it is one of ours."""
    return _seq(request.headers.get("If-None-Match", "").removeprefix("W/").strip('"'))


def told_to(request: Request) -> int:
    """The seq up to which the client knows the events: Last-Event-ID, or `after`. Raises InvalidHeader or Invalid."""
    after = _seq(parameters.read(request.query_params, {"after"}).get("after", "0"))
    if after is None:
        raise Invalid("after is the seq of an event.", param="/after")
    if (last := request.headers.get("Last-Event-ID")) is not None:
        if (seq := _seq(last)) is None:
            raise InvalidHeader("Last-Event-ID is the seq of an event.")
        return seq
    return after


def _seq(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
