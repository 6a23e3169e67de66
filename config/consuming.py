"""A worker that lives takes messages: one that does not is woken, gives way to another, or is replaced.

It serves the queues it was told to serve, whatever it was told later (`cancel_consumer`). When a message waits, a
process of it is idle, and it has begun nothing for WATCHDOG_SECONDS, it takes a new connection; when that changes
nothing in the same time again, it ends with exit code 1 as soon as its running tasks have. Its supervisor hears a beat
every second, unless the event loop has not turned for WATCHDOG_SECONDS: then, or when the whole process is stopped, it
is killed and started again after so many seconds more (`config/processes.py`).

A worker that is busy, idle, or without a broker is left alone: the first has no idle process, for the second no message
waits, and the third has no loop that could stand still.
"""

import contextlib
import logging
import os
import threading
import time
from typing import Any, BinaryIO

import redis
from celery import bootsteps
from celery.worker import state
from django.conf import settings

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
BEAT_SECONDS = 1.0
GIVES_WAY = 1

# When the event loop turned last; None while there is none, because the broker is away.
_turned_at: float | None = None


class KeepConsuming(bootsteps.StartStopStep):
    """Looks every few seconds whether the worker takes what waits for it."""

    requires = {"celery.worker.consumer.tasks:Tasks"}
    # They outlive a connection: a worker that has been woken is not the same as one that never stood still.
    woken = False

    def __init__(self, parent: Any, **options: Any) -> None:
        self.queues: set[str] = set()
        self.begun, self.moved_at = 0, time.monotonic()
        self.timers: list[Any] = []
        super().__init__(parent, **options)

    def start(self, parent: Any) -> None:
        self.moved_at = time.monotonic()
        every = min(LOOK_SECONDS, settings.WATCHDOG_SECONDS / 4)
        self.timers = [
            parent.timer.call_repeatedly(every, self.look, (parent,)),
            parent.timer.call_repeatedly(BEAT_SECONDS / 2, _turn),
        ]
        _turn()

    def stop(self, parent: Any) -> None:
        global _turned_at
        _turned_at = None
        while self.timers:
            self.timers.pop().cancel()

    def look(self, parent: Any) -> None:
        self.queues |= set(parent.app.amqp.queues.consume_from)
        for queue in self.queues:
            parent.add_task_queue(queue)
        if self._moves(parent):
            self.moved_at = time.monotonic()
        elif time.monotonic() - self.moved_at > settings.WATCHDOG_SECONDS:
            self._wake_or_give_way()

    def _moves(self, parent: Any) -> bool:
        """Whether it has begun something since the last look, or has nothing to begin, or nobody to do it."""
        begun, self.begun = self.begun, state.all_total_count[0]
        if begun != self.begun:
            self.woken = False
            return True
        idle = len(state.active_requests) < parent.pool.num_processes
        return not (idle and (len(state.reserved_requests) > len(state.active_requests) or self._waiting()))

    def _waiting(self) -> bool:
        from tasks import queues

        try:
            return any(queues.depth(queue) for queue in self.queues)
        except redis.RedisError:
            return False

    def _wake_or_give_way(self) -> None:
        if self.woken:
            logger.error("messages wait, and a new connection brought none: the worker gives way to another")
            state.should_stop = GIVES_WAY
            return
        self.woken, self.moved_at = True, time.monotonic()
        logger.warning("messages wait, and none was taken: the worker takes a new connection")
        raise ConnectionResetError("it brings no messages")


def _turn() -> None:
    global _turned_at
    _turned_at = time.monotonic()


def beat(pipe: BinaryIO) -> None:
    """Tell whoever started this worker, every second, that it is well. Ends when nobody listens."""
    threading.Thread(target=_beat, args=(pipe, os.getpid()), daemon=True).start()


def _beat(pipe: BinaryIO, pid: int) -> None:
    with contextlib.suppress(OSError), pipe:
        while os.getpid() == pid:
            if _well():
                pipe.write(b".")
            time.sleep(BEAT_SECONDS)


def _well() -> bool:
    """Whether the loop turns, or need not."""
    if state.should_stop == GIVES_WAY:
        return bool(state.active_requests)
    return _turned_at is None or time.monotonic() - _turned_at < settings.WATCHDOG_SECONDS
