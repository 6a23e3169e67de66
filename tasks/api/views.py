"""`/v1/tasks`: each method parses, calls one verb and answers with the task's own JSON."""

import json
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from billing.statements import one
from tasks import callbacks, events, lifecycle, submission
from tasks.api.authentication import BearerAuthentication, HasScope, digest_of
from tasks.api.errors import AccountDisabled, InsufficientScope, InvalidApiKey
from tasks.api.filters import TaskFilter
from tasks.api.idempotency import idempotency
from tasks.api.pagination import page_of
from tasks.api.parsers import StrictJSONParser
from tasks.api.schema import EventSerializer, TaskSerializer
from tasks.api.serializers import CancelTask, CreateTask, Nothing
from tasks.exceptions import Invalid, TaskNotFound
from tasks.identifiers import parse_id, public_id
from tasks.models import Task
from tasks.sql import load

EXPANDABLE = ("input", "output", "usage", "billing", "callback")
MOST_EVENTS = 100
CREATE, CANCEL, NOTHING = CreateTask(), CancelTask(), Nothing()


class TaskViewSet(ViewSet):
    """Tasks of the caller's account. Another account's task does not exist."""

    authentication_classes = [BearerAuthentication]
    permission_classes = [HasScope]
    parser_classes = [StrictJSONParser]
    lookup_field = "task_id"
    lookup_value_regex = "[^/]+"

    def get_authenticators(self) -> list[Any]:
        """Reading one task authenticates in the statement that reads it."""
        return [] if self._reads_one() else super().get_authenticators()

    def get_permissions(self) -> list[Any]:
        return [] if self._reads_one() else super().get_permissions()

    def _reads_one(self) -> bool:
        method = self.request.method if self.request else None
        return getattr(self, "action_map", {}).get("get") == "retrieve" and method in ("GET", "HEAD")

    @extend_schema(request=CreateTask, responses={202: TaskSerializer, 200: TaskSerializer})
    def create(self, request: Request) -> HttpResponse:
        """Submit a task: 202 with the whole object; 200 for a repeated Idempotency-Key."""
        body = _object(request)
        key = idempotency(request, route="create", body=body)
        wanted = CREATE.run_validation(body)
        callback = wanted.pop("callback")
        submitted = lifecycle.submit(
            submission.Request(
                account_id=request.user.account_id,
                api_key_id=request.user.api_key_id,
                actor=request.user.actor,
                callback_url=callback["url"] if callback else None,
                **wanted,
                **key,
            )
        )
        return _submitted(submitted)

    @extend_schema(responses=TaskSerializer(many=True))
    def list(self, request: Request) -> HttpResponse:
        """Summaries, newest first, a page at a time; a page of large tasks ends early."""
        page, parts = page_of(request), _parts(request)
        tasks = TaskFilter.apply(request.query_params, Task.objects.filter(account_id=request.user.account_id))
        shown, more = page.read(tasks, parts)
        cursor = page.cursor(shown[-1][0]) if more else None
        return _json(
            f'{{"object":"list","data":[{",".join(text for _, text in shown if text)}],'
            f'"next_cursor":{json.dumps(cursor)},"has_more":{json.dumps(more)}}}'
        )

    @extend_schema(responses=TaskSerializer)
    def retrieve(self, request: Request, task_id: str) -> HttpResponse:
        """The whole object, with its `seq` as ETag; 304 when the client has seen that."""
        wanted = {"digest": digest_of(request), "id": parse_id(task_id), "seen": _seen(request)}
        row = one(load("read"), wanted)
        if row is None:
            raise InvalidApiKey
        is_active, scopes, seq, final, text = row
        if not is_active:
            raise AccountDisabled
        if "tasks:read" not in scopes:
            raise InsufficientScope("This API key lacks the scope tasks:read.")
        if seq is None:
            raise TaskNotFound
        response = _json(text) if text else HttpResponse(status=304)
        response["ETag"] = f'"{seq}"'
        if not final:
            response["Retry-After"] = "1"
        return response

    @extend_schema(request=CancelTask, responses=TaskSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, task_id: str) -> HttpResponse:
        """End a task now. One that has ended is answered as it is."""
        reason = CANCEL.run_validation(_object(request))["reason"]
        task = _own(request, task_id)
        lifecycle.cancel(task, by=request.user.actor, reason=reason)
        return _read(task)

    @extend_schema(request=None, responses={202: TaskSerializer, 200: TaskSerializer})
    @action(detail=True, methods=["post"])
    def rerun(self, request: Request, task_id: str) -> HttpResponse:
        """Submit a final task again: 202 with a new task."""
        NOTHING.run_validation(_object(request))
        user = request.user
        task = _own(request, task_id)
        key = idempotency(request, route=f"rerun:{task}", body=request.data)
        return _submitted(
            lifecycle.rerun(task, account_id=user.account_id, api_key_id=user.api_key_id, actor=user.actor, **key)
        )

    @extend_schema(responses=EventSerializer(many=True))
    @action(detail=True, methods=["get"])
    def events(self, request: Request, task_id: str) -> Response:
        """The task's timeline after a `seq`, a page at a time."""
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise Invalid("after is the seq of an event.", param="/after")
        found = events.follow(_own(request, task_id), after=int(after), limit=MOST_EVENTS + 1)
        shown = [events.public(event) for event in found[:MOST_EVENTS]]
        return Response({"object": "list", "data": shown, "has_more": len(found) > MOST_EVENTS})

    @extend_schema(request=None, responses={202: TaskSerializer})
    @action(detail=True, methods=["post"], url_path="callback/redeliver")
    def redeliver(self, request: Request, task_id: str) -> HttpResponse:
        """Deliver the task's callback again: the same id and bytes, fresh tries."""
        NOTHING.run_validation(_object(request))
        task = _own(request, task_id)
        callbacks.redeliver(task, by=request.user.actor)
        return _json(_text(task), status=202)


def _object(request: Request) -> dict[str, Any]:
    """The body, which is an object. Raises Invalid."""
    if not isinstance(request.data, dict):
        raise Invalid("The body is a JSON object.", param="")
    return request.data


def _own(request: Request, task_id: str) -> UUID:
    """The id of the caller's task. Raises TaskNotFound for anything else."""
    parsed = parse_id(task_id)
    if parsed is None or not Task.objects.filter(pk=parsed, account_id=request.user.account_id).exists():
        raise TaskNotFound
    return parsed


def _seen(request: Request) -> int | None:
    """The seq in If-None-Match, if it is one of ours."""
    tag = request.headers.get("If-None-Match", "").removeprefix("W/").strip('"')
    return int(tag) if tag.isascii() and tag.isdigit() and len(tag) < 19 else None


def _parts(request: Request) -> list[str] | None:
    """What `expand` adds to a summary; None is everything. Raises Invalid."""
    wanted = [part for part in request.query_params.get("expand", "").split(",") if part]
    if wanted == ["all"]:
        return None
    if unknown := [part for part in wanted if part not in EXPANDABLE]:
        raise Invalid(f"expand is all or some of {', '.join(EXPANDABLE)}, not {unknown[0]!r}.", param="/expand")
    return wanted


def _text(task_id: UUID) -> str:
    row = one("SELECT task_json(%(id)s)", {"id": task_id})
    if row is None or row[0] is None:
        raise TaskNotFound
    return row[0]


def _read(task_id: UUID) -> HttpResponse:
    return _json(_text(task_id))


def _submitted(submitted: submission.Submitted) -> HttpResponse:
    response = _json(submitted.json, status=200 if submitted.replayed else 202)
    response["Location"] = f"/v1/tasks/{public_id(submitted.task_id)}"
    if submitted.replayed:
        response["Idempotent-Replayed"] = "true"
    return response


def _json(text: str, *, status: int = 200) -> HttpResponse:
    return HttpResponse(text, content_type="application/json", status=status)
