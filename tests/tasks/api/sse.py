"""Server-Sent Events as their clients read them."""

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    id: int | None
    type: str
    data: Any


def parse(chunk: bytes) -> list[Event]:
    """The events of whole blocks; comments and hints are left out."""
    return [event for block in chunk.decode().split("\n\n") if (event := _event(block))]


def rows(events: list[Event]) -> list[tuple[int, str]]:
    """Those that have an id, but for progress: what stands in rows."""
    return [(event.id, event.type) for event in events if event.id and event.type != "task.progress"]


def text_of(events: list[Event]) -> str:
    """The text as a client has it: `output.text` replaces, `output.delta` goes on where it ends."""
    text = ""
    for event in events:
        if event.type == "output.text":
            text = event.data["text"]
        if event.type == "output.delta":
            assert event.data["offset"] == len(text)
            text += event.data["text"]
    return text


def _event(block: str) -> Event | None:
    fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
    if "event" not in fields:
        return None
    seq = fields.get("id")
    return Event(int(seq) if seq else None, fields["event"], json.loads(fields["data"]))


class Listener:
    """An open stream over HTTP; `over` says that it ended as HTTP says an answer ends."""

    def __init__(self, port: int, secret: str, path: str, *, timeout: float = 10, **headers: str) -> None:
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        sent = {"Authorization": f"Bearer {secret}", "Accept": "text/event-stream"}
        self.http.request("GET", path, headers=sent | {name.replace("_", "-"): text for name, text in headers.items()})
        self.answer = self.http.getresponse()
        self.status, self.over, self.comments = self.answer.status, False, 0
        self.hints: list[str] = []

    def __iter__(self) -> Iterator[Event]:
        block = b""
        while line := self.answer.readline():
            block += line
            if line != b"\n":
                continue
            self.comments += block.startswith(b":")
            if block.startswith(b"retry"):
                self.hints.append(block.decode().strip())
            yield from parse(block)
            block = b""
        self.over = self.answer.isclosed()

    def next(self, kind: str) -> Event:
        """The next event of this type."""
        return next(event for event in self if event.type == kind)

    def rest(self) -> list[Event]:
        """All events until the server ends the stream."""
        return list(self)

    def hang_up(self) -> None:
        """Be gone, as a client that crashed."""
        self.http.sock and self.http.sock.shutdown(socket.SHUT_RDWR)
        self.answer.close()
        self.http.close()
