"""A task's events as they come, as Server-Sent Events.

A stream tells what its client has missed, then what happens: event rows by their `seq`, progress by the task's, text by
its offset. All of it stands in rows; what is said on the wire only spares a look.
"""

import json
import logging
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request

from billing.statements import one
from tasks.api.endpoint import STREAM
from tasks.api.errors import Unavailable
from tasks.api.hub import hub
from tasks.api.places import places
from tasks.api.preference import let_go
from tasks.exceptions import TaskNotFound
from tasks.sql import load
from tasks.statuses import FINAL
from tasks.wire import Delta

logger = logging.getLogger(__name__)

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
MOST_EVENTS = 100
ENDS = {f"task.{status}" for status in FINAL}
HEARTBEAT = b": still here\n\n"
AGAIN_MILLISECONDS = (500, 3000)  # not all at once, when a server stops


@dataclass(frozen=True)
class News:
    """What `follow.sql` finds: events are triples of seq, type and JSON."""

    seq: int
    final: bool
    attempt: int
    text: str
    size: int
    progress: str
    events: list[list[str]]


class EventStreamRenderer(JSONRenderer):  # type: ignore[misc]
    """Lets a client ask for the stream; what it renders itself are refusals, which are JSON."""

    media_type = STREAM
    format = "event-stream"


class Stream:
    """What one client is told of a task, from a seq on. Whoever has it closes it, also when it never began.

    Raises Unavailable when there is no place for it, TaskNotFound when the key may not read the task any more.
    """

    def __init__(self, task_id: UUID, key_id: UUID, *, after: int) -> None:
        self.task_id, self.key_id, self.after = task_id, key_id, after
        self.attempt, self.offset, self.size = 0, 0, 0
        self.over = self._began = False
        self._held = ExitStack()
        self._held.enter_context(places.taken(key_id))
        self._watch = self._held.enter_context(hub.watch(task_id, key_id, hears_text=True))
        self._spoke_at = time.monotonic()
        try:
            self.first = self._look()
            if self.over and not self._began:
                raise TaskNotFound
        except BaseException:
            self._held.close()
            raise
        self._said = self._tell()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._said)

    def close(self) -> None:
        """Give the place back."""
        self._held.close()

    def _tell(self) -> Iterator[bytes]:
        try:
            yield self.first
            ends = time.monotonic() + settings.STREAM_SECONDS
            while not (self.over or hub.draining) and time.monotonic() < ends:
                if said := self._hear(until=ends):
                    self._spoke_at = time.monotonic()
                    yield said
            if not self.over:
                yield b"retry: %d\n\n" % random.randint(*AGAIN_MILLISECONDS)  # noqa: S311 - jitter
        finally:
            self.close()

    def _hear(self, *, until: float) -> bytes:
        """What is to be said next: news, or that we are still here; nothing when that is not due."""
        beat = self._spoke_at + settings.STREAM_HEARTBEAT_SECONDS
        look, deltas = self._watch.wait(max(0.0, min(beat, until) - time.monotonic()))
        said = b""
        try:
            said += self._look() if look else b""
            for delta in deltas:
                said += self._hand_on(delta)
        except (OperationalError, InterfaceError):
            logger.warning("the database is away; a stream goes on when it is back")
        return said or (HEARTBEAT if time.monotonic() >= beat else b"")

    def _hand_on(self, delta: Delta) -> bytes:
        """Text that was just said: what of it is new, or all that the row has if there is a gap."""
        if self.over:
            return b""
        if delta.attempt != self.attempt or delta.offset > self.offset:
            return self._look()
        return self._text("output.delta", delta.text[self.offset - delta.offset :])

    def _look(self) -> bytes:
        """All that the rows have beyond what was told."""
        told = {"after": self.after, "attempt": self.attempt, "offset": self.offset, "size": self.size}
        try:
            row = one(load("follow"), {"id": self.task_id, "key": self.key_id, "most": MOST_EVENTS, **told})
        finally:
            let_go()
        if row is None:
            self.over = True
            return b""
        return b"".join(self._told(News(*row)))

    def _told(self, news: News) -> Iterator[bytes]:
        """The events, but an end after the text that it ends; then the present state, unless an event tells it.

        No text follows an end. A full page may not be all, and waits with the text for the end or for the last page.
        """
        events, more = news.events, len(news.events) == MOST_EVENTS
        end = next((place for place, (_, kind, _) in enumerate(events) if kind in ENDS), len(events))
        yield from map(_event, events[:end])
        if end < len(events) or not (more or news.final):
            yield self._text_of(news)
        yield from map(_event, events[end:])
        if more:
            self.after = int(events[-1][0])
            self._watch.tell()
            return
        told = max([self.after, *(int(number) for number, _, _ in events)])
        if not news.final and (news.seq > told or not self._began):
            yield _event([str(news.seq), "task.progress", news.progress])
        self.after, self.size, self.over, self._began = news.seq, news.size, news.final, True
        self._watch.seen = (news.seq, news.attempt, news.size)

    def _text_of(self, news: News) -> bytes:
        """The text that the row has beyond ours: all of it on a new attempt."""
        if news.attempt == self.attempt:
            return self._text("output.delta", news.text)
        self.attempt, self.offset, self.size = news.attempt, 0, 0
        return self._text("output.text", news.text)

    def _text(self, kind: str, text: str) -> bytes:
        if not text:
            return b""
        data = {"attempt": self.attempt, "offset": self.offset, "text": text}
        self.offset += len(text)
        self.size += len(text.encode())
        self._watch.seen = (self.after, self.attempt, self.size)
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _event(event: list[str]) -> bytes:
    seq, kind, data = event
    return f"id: {seq}\nevent: {kind}\ndata: {data}\n\n".encode()


def follow(request: Request, task_id: UUID, *, after: int) -> HttpResponseBase:
    """The stream; 204, which ends a client's reconnecting, when the task is final and there is nothing more to tell."""
    if hub.draining:
        raise Unavailable("This server is stopping.")
    if request.method == "HEAD":
        return HttpResponse(content_type=STREAM, headers=HEADERS)
    stream = Stream(task_id, request.user.api_key_id, after=after)
    if not stream.first:
        stream.close()
        return HttpResponse(status=204, headers=HEADERS)
    return StreamingHttpResponse(stream, content_type=STREAM, headers=HEADERS)
