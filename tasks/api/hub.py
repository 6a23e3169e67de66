"""Who waits in this web process, and the one thread that hears for all of them.

It listens to the wire, and looks at the rows of all watched tasks in one statement a second: a wake-up that was lost
costs that second. It begins with the first who waits, so that a worker process has its own, and ends after the last.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any
from uuid import UUID

import redis
from django.conf import settings
from django.db import connection

from billing.statements import rows
from tasks import wire
from tasks.api.places import places
from tasks.sql import load
from tasks.wire import Delta

logger = logging.getLogger(__name__)

TICK = 1.0
DEAF_TICK = 0.5  # while nothing is heard
ALONE_SECONDS = 10.0  # that the thread stays when nobody waits
DELTAS = 8  # that are kept for one who is slow; he reads the rest from the row


class Watch:
    """One who waits for a task: told to look at its row, or handed the text that follows.

    `seen` is how far he is: the seq, and for who tells text, its attempt and size as well.
    """

    def __init__(self, hub: "Hub", task_id: UUID, key_id: UUID, *, hears_text: bool) -> None:
        self.hub, self.task_id, self.key_id, self.hears_text = hub, task_id, key_id, hears_text
        self.seen: tuple[int, ...] = ()
        self._told = threading.Condition()
        self._look = False
        self._deltas: deque[Delta] = deque(maxlen=DELTAS)

    def wait(self, seconds: float) -> tuple[bool, list[Delta]]:
        """Wait until there is something to look at or to hand on, or the web drains, or the time is over."""
        with self._told:
            self._told.wait_for(lambda: self._look or self._deltas or self.hub.draining, seconds)
            look, deltas = self._look, list(self._deltas)
            self._look = False
            self._deltas.clear()
        return look, deltas

    def tell(self, delta: Delta | None = None) -> None:
        """Hand on the text, or have him look."""
        with self._told:
            if delta is None:
                self._look = True
            elif self.hears_text:
                self._deltas.append(delta)
            self._told.notify_all()

    def compare(self, found: tuple[int, ...]) -> None:
        """Have him look if he is elsewhere."""
        if found[: len(self.seen)] != self.seen or not found:
            self.tell()


class Hub:
    """Everybody who waits in this process."""

    def __init__(self) -> None:
        self.draining = False
        self._lock = threading.Lock()
        self._watches: dict[str, set[Watch]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def watch(self, task_id: UUID, key_id: UUID, *, hears_text: bool = False) -> Iterator[Watch]:
        """Hear of the task from now on."""
        watch = Watch(self, task_id, key_id, hears_text=hears_text)
        with self._lock:
            self._watches.setdefault(task_id.hex, set()).add(watch)
            self._begin()
        try:
            yield watch
        finally:
            with self._lock:
                self._watches[task_id.hex].discard(watch)
                if not self._watches[task_id.hex]:
                    del self._watches[task_id.hex]

    def drain(self) -> None:
        """End every wait now, and every later one at once."""
        self.draining = True
        for watch in self._all():
            watch.tell()

    def _begin(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="hub", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        ears, watched_at = Ears(), time.monotonic()
        with closing(ears):
            while time.monotonic() - watched_at < ALONE_SECONDS or not self._may_end():
                for about, delta in ears.hear():
                    self._tell(about, delta)
                if self._watches:
                    watched_at = time.monotonic()
                    self._compare()
                    places.renew()

    def _may_end(self) -> bool:
        """Whether nobody waits; who comes next begins another thread."""
        with self._lock:
            if not self._watches:
                self._thread = None
            return not self._watches

    def _tell(self, about: str, delta: Delta | None) -> None:
        for watch in self._of(about):
            watch.tell(delta)

    def _of(self, about: str) -> list[Watch]:
        if about not in self._watches:
            return []
        with self._lock:
            return list(self._watches.get(about, ()))

    def _all(self) -> list[Watch]:
        with self._lock:
            return [watch for watches in self._watches.values() for watch in watches]

    def _compare(self) -> None:
        """Have everybody look who is behind the rows, or whose key was taken away."""
        watches = self._all()
        pairs = list({(watch.task_id, watch.key_id) for watch in watches})
        asked = {"tasks": [task_id for task_id, _ in pairs], "keys": [key_id for _, key_id in pairs]}
        try:
            found = {(task_id, key_id): tuple(far) for task_id, key_id, *far in rows(load("watched"), asked)}
        except Exception:
            logger.warning("watched tasks were not looked at", exc_info=True)
            return
        finally:
            connection.close()
        for watch in watches:
            watch.compare(found.get((watch.task_id, watch.key_id), ()))


class Ears:
    """A subscription to the wire that outlives the broker."""

    def __init__(self) -> None:
        self._wire: Any = None
        self._deaf = False

    def hear(self) -> Iterator[tuple[str, Delta | None]]:
        """What is said until the next tick, which comes sooner while nothing can be heard."""
        ends = time.monotonic() + TICK
        try:
            self._wire = self._wire or self._listen()
            self._deaf = False
            while (left := ends - time.monotonic()) > 0:
                message = self._wire.get_message(ignore_subscribe_messages=True, timeout=left)
                if message:
                    yield wire.heard(message["data"])
        except Exception as error:
            if not self._deaf:
                logger.warning("nothing is heard; watched tasks are looked at", extra={"error": repr(error)})
            self._deaf = True
            self.close()
            time.sleep(max(0.0, min(DEAF_TICK, ends - time.monotonic())))

    def close(self) -> None:
        if self._wire:
            with suppress(Exception):
                self._wire.close()
            self._wire = None

    def _listen(self) -> Any:
        client = redis.from_url(settings.REDIS_URL, socket_timeout=0.3, socket_connect_timeout=0.3, retry=None)
        listening = client.pubsub()  # type: ignore[no-untyped-call]
        listening.subscribe(wire.CHANNEL)
        return listening


hub = Hub()
