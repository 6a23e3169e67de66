"""`/v1/tasks`: each method parses, calls one verb and answers with the task's own JSON."""

import json
from typing import Any

from django.http import HttpResponse
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from billing.statements import one
from tasks import callbacks, events, lifecycle, submission
from tasks.api import rates
from tasks.api.answers import as_json, the_new_task, the_task
from tasks.api.authentication import check_scope, digest_of
from tasks.api.endpoint import Resource
from tasks.api.errors import AccountDisabled, InvalidApiKey
from tasks.api.filters import TaskFilter
from tasks.api.idempotency import idempotency
from tasks.api.pagination import page_of
from tasks.api.requests import body_of, own_task, seen_by
from tasks.api.serializers import CreateTask, Nothing, ReasonedRequest
from tasks.exceptions import Invalid, TaskNotFound
from tasks.identifiers import parse_id
from tasks.models import Task
from tasks.sql import load

EXPANDABLE = ("input", "output", "usage", "billing", "callback")
MOST_EVENTS = 100
CREATE, REASONED, NOTHING = CreateTask(), ReasonedRequest(), Nothing()


class TaskViewSet(Resource):
    """Tasks of the caller's account. Another account's task does not exist."""

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

    def create(self, request: Request) -> HttpResponse:
        """Submit a task: 202 with the whole object; 200 for a repeated Idempotency-Key."""
        body = body_of(request)
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
        return the_new_task(submitted)

    def list(self, request: Request) -> HttpResponse:
        """Summaries, newest first, a page at a time; a page of large tasks ends early."""
        page, parts = page_of(request), _parts(request)
        tasks = TaskFilter.apply(request.query_params, Task.objects.filter(account_id=request.user.account_id))
        shown, more = page.read(tasks, parts)
        cursor = page.cursor(shown[-1][0]) if more else None
        return as_json(
            f'{{"object":"list","data":[{",".join(text for _, text in shown if text)}],'
            f'"next_cursor":{json.dumps(cursor)},"has_more":{json.dumps(more)}}}'
        )

    def retrieve(self, request: Request, task_id: str) -> HttpResponse:
        """The whole object, with its `seq` as ETag; 304 when the client has seen that."""
        wanted = {"digest": digest_of(request), "id": parse_id(task_id), "seen": seen_by(request)}
        row = one(load("read"), wanted)
        if row is None:
            raise InvalidApiKey
        api_key_id, per_minute, is_active, scopes, seq, final, text = row
        if not is_active:
            raise AccountDisabled
        unchanged = seq is not None and seq == wanted["seen"]
        self.meet(rates.look if unchanged else rates.count, api_key_id, per_minute)
        check_scope(scopes, self.reading)
        if seq is None:
            raise TaskNotFound
        response = as_json(text) if text else HttpResponse(status=304)
        response["ETag"] = f'"{seq}"'
        if not final:
            response["Retry-After"] = "1"
        return response

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, task_id: str) -> HttpResponse:
        """End a task now. One that has ended is answered as it is."""
        reason = REASONED.run_validation(body_of(request))["reason"]
        task = own_task(request, task_id)
        lifecycle.cancel(task, by=request.user.actor, reason=reason)
        return the_task(task)

    @action(detail=True, methods=["post"])
    def pause(self, request: Request, task_id: str) -> HttpResponse:
        """Keep a queued task from starting; its deadline stays. One that is paused already is answered as it is."""
        reason = REASONED.run_validation(body_of(request))["reason"]
        task = own_task(request, task_id)
        lifecycle.pause(task, by=request.user.actor, reason=reason)
        return the_task(task)

    @action(detail=True, methods=["post"])
    def resume(self, request: Request, task_id: str) -> HttpResponse:
        """Let a paused task start again. One that is queued and not paused is answered as it is."""
        reason = REASONED.run_validation(body_of(request))["reason"]
        task = own_task(request, task_id)
        lifecycle.resume(task, by=request.user.actor, reason=reason)
        return the_task(task)

    @action(detail=True, methods=["post"])
    def rerun(self, request: Request, task_id: str) -> HttpResponse:
        """Submit a final task again: 202 with a new task."""
        NOTHING.run_validation(body_of(request))
        user = request.user
        task = own_task(request, task_id)
        key = idempotency(request, route=f"rerun:{task}", body=request.data)
        return the_new_task(
            lifecycle.rerun(task, account_id=user.account_id, api_key_id=user.api_key_id, actor=user.actor, **key)
        )

    @action(detail=True, methods=["get"])
    def events(self, request: Request, task_id: str) -> Response:
        """The task's timeline after a `seq`, a page at a time."""
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 19):
            raise Invalid("after is the seq of an event.", param="/after")
        found = events.follow(own_task(request, task_id), after=int(after), limit=MOST_EVENTS + 1)
        shown = [events.public(event) for event in found[:MOST_EVENTS]]
        return Response({"object": "list", "data": shown, "has_more": len(found) > MOST_EVENTS})

    @action(detail=True, methods=["post"], url_path="callback/redeliver")
    def redeliver(self, request: Request, task_id: str) -> HttpResponse:
        """Deliver the task's callback again: the same id and bytes, fresh tries."""
        NOTHING.run_validation(body_of(request))
        task = own_task(request, task_id)
        callbacks.redeliver(task, by=request.user.actor)
        return the_task(task, status=202)


def _parts(request: Request) -> list[str] | None:
    """What `expand` adds to a summary; None is everything. Raises Invalid."""
    wanted = [part for part in request.query_params.get("expand", "").split(",") if part]
    if wanted == ["all"]:
        return None
    if unknown := [part for part in wanted if part not in EXPANDABLE]:
        raise Invalid(f"expand is all or some of {', '.join(EXPANDABLE)}, not {unknown[0]!r}.", param="/expand")
    return wanted
