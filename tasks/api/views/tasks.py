"""`/v1/tasks`: each method parses, calls one verb and answers with the task's own JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.http import HttpResponse, HttpResponseBase
from rest_framework.decorators import action
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from tasks import callbacks, events, lifecycle
from tasks.api import parameters, preference, rates, streaming
from tasks.api.answers import as_json, the_task
from tasks.api.endpoint import STREAM, Resource
from tasks.api.filters import TaskFilter
from tasks.api.idempotency import idempotency
from tasks.api.pagination import page_of
from tasks.api.reading import Reading
from tasks.api.requests import body_of, own_task, seen_by, told_to, wanted_of
from tasks.api.serializers import Nothing, ReasonedRequest
from tasks.exceptions import Invalid
from tasks.models import Task

EXPANDABLE = ("input", "output", "usage", "billing", "callback")
MOST_EVENTS = 100
REASONED, NOTHING = ReasonedRequest(), Nothing()


class TaskViewSet(Resource):
    """Tasks of the caller's account. Another account's task does not exist."""

    queried = ("list", "retrieve", "events")
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
        submitted = lifecycle.submit(replace(wanted_of(request, body), **key))
        return preference.the_new_task(request, submitted)

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
        """The whole object, with its `seq` as ETag; 304 when the client has seen that.

        With `Prefer: wait=N` as soon as it is final, or is not what the client has seen, or after N seconds.
        """
        seen, patience = seen_by(request), preference.preferred(request)
        reading = Reading.of(request, task_id, seen=seen)
        self.meet(rates.look if reading.unchanged else rates.count, reading.api_key_id, reading.requests_per_minute)
        reading.check(self.reading)
        parameters.read(request.query_params, ())
        if patience and not reading.final and seen in (None, reading.seq):
            preference.until_final(reading.task_id, reading.api_key_id, seconds=patience, seen=seen)
            waited, reading = reading, Reading.of(request, task_id, seen=seen)
            reading.check(self.reading)
            if waited.unchanged and not reading.unchanged:  # it counts after all, and is not refused for that
                self.rate = rates.count(reading.api_key_id, reading.requests_per_minute)
        return preference.applied(reading.response(), patience)

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, task_id: str) -> HttpResponse:
        """End a task now. One that has ended is answered as it is."""
        return _told(request, task_id, lifecycle.cancel)

    @action(detail=True, methods=["post"])
    def pause(self, request: Request, task_id: str) -> HttpResponse:
        """Keep a queued task from starting; its deadline stays. One that is paused already is answered as it is."""
        return _told(request, task_id, lifecycle.pause)

    @action(detail=True, methods=["post"])
    def resume(self, request: Request, task_id: str) -> HttpResponse:
        """Let a paused task start again. One that is queued and not paused is answered as it is."""
        return _told(request, task_id, lifecycle.resume)

    @action(detail=True, methods=["post"])
    def rerun(self, request: Request, task_id: str) -> HttpResponse:
        """Submit a final task again: 202 with a new task."""
        NOTHING.run_validation(body_of(request))
        user = request.user
        task = own_task(request, task_id)
        key = idempotency(request, route=f"rerun:{task}", body=request.data)
        submitted = lifecycle.rerun(
            task, account_id=user.account_id, api_key_id=user.api_key_id, actor=user.actor, **key
        )
        return preference.the_new_task(request, submitted)

    @action(detail=True, methods=["get"], renderer_classes=[JSONRenderer, streaming.EventStreamRenderer])
    def events(self, request: Request, task_id: str) -> HttpResponseBase:
        """The task's timeline after a `seq`: a page at a time, or as a stream that goes on until the task is final."""
        task, after = own_task(request, task_id), told_to(request)
        if request.accepted_renderer.media_type == STREAM:
            return streaming.follow(request, task, after=after)
        found = events.follow(task, after=after, limit=MOST_EVENTS + 1)
        shown = [events.public(event) for event in found[:MOST_EVENTS]]
        return Response({"object": "list", "data": shown, "has_more": len(found) > MOST_EVENTS})

    @action(detail=True, methods=["delete"])
    def content(self, request: Request, task_id: str) -> HttpResponse:
        """Delete what a final task was sent, made and told; again without effect."""
        NOTHING.run_validation(body_of(request))
        task = own_task(request, task_id)
        lifecycle.delete_content(task, by=request.user.actor)
        return the_task(task)

    @action(detail=True, methods=["post"], url_path="callback/redeliver")
    def redeliver(self, request: Request, task_id: str) -> HttpResponse:
        """Deliver the task's callback again: the same id and bytes, fresh tries."""
        NOTHING.run_validation(body_of(request))
        task = own_task(request, task_id)
        callbacks.redeliver(task, by=request.user.actor)
        return the_task(task, status=202)


def _told(request: Request, task_id: str, verb: Callable[..., Any]) -> HttpResponse:
    """The caller's task, once the verb has been done to it for the reason that the body gives."""
    reason = REASONED.run_validation(body_of(request))["reason"]
    task = own_task(request, task_id)
    verb(task, by=request.user.actor, reason=reason)
    return the_task(task)


def _parts(request: Request) -> list[str] | None:
    """What `expand` adds to a summary; None is everything. Raises Invalid."""
    wanted = [part for part in ",".join(request.query_params.getlist("expand")).split(",") if part]
    if wanted == ["all"]:
        return None
    if unknown := [part for part in wanted if part not in EXPANDABLE]:
        raise Invalid(f"expand is all or some of {', '.join(EXPANDABLE)}, not {unknown[0]!r}.", param="/expand")
    return wanted
