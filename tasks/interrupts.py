"""How running work is stopped: one signal, raised in the main thread of a prefork worker process.

The asking thread sends SIGUSR2; the handler raises `Interrupted` in the work, whatever it waits for. It subclasses
KeyboardInterrupt, so `except Exception` does not swallow it and psycopg cancels its query on the server. Work that does
not yield within the grace is given up and ended with its process; the row's lease makes that safe.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.conf import settings
from django.db import connection


class Interrupted(KeyboardInterrupt):
    """Raised in the work: `why` is `lost`, `timeout`, `deadline` or `shutdown`."""

    @property
    def why(self) -> str:
        return str(self.args[0])


# Work that is to end with its worker has this long to clean up, whatever its grace is otherwise.
SHUTDOWN_GRACE_SECONDS = 2.0
# How soon the thread beside the work notices what it was not woken for.
TICK_SECONDS = 0.25

# The run whose work may be interrupted. Only the main thread writes it.
_armed: "Watch | None" = None
_installed = _leaving = False


def install() -> None:
    """Install the handlers; once in every worker process, in its main thread."""
    global _installed
    signal.signal(signal.SIGUSR2, _on_signal)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.unraisablehook = _unraisable(sys.unraisablehook)
    _installed = True


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """From before the claim until the run is resolved: a stop that comes in between is heeded by the work, then here.

    The handler is set anew each time: the pool sets its own after we are installed. The process ends when the pool has
    heard of its job, and by SIGKILL: that its pool notices at once, and an exit after seconds.
    """
    if not _installed:
        yield
        return
    ending = signal.signal(signal.SIGTERM, _on_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, ending)
        if _leaving:
            threading.Timer(TICK_SECONDS, os.kill, (os.getpid(), signal.SIGKILL)).start()


def leaving() -> bool:
    """Whether this process is to end, and claims nothing more."""
    return _leaving


def _on_signal(*_: object) -> None:
    if _armed is not None and _armed.pending:
        why, _armed.pending = _armed.pending, None
        raise Interrupted(why)


def _on_stop(*_: object) -> None:
    """The worker is to end: its work is asked to stop, now or as soon as it begins."""
    global _leaving
    _leaving = True
    if _armed is not None and _armed.asked is None:
        _armed.pending = _armed.asked = "shutdown"
        _on_signal()


def _unraisable(otherwise: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An interruption that came where Python drops exceptions, as in `__del__`, is still owed."""

    def hook(lost: Any) -> None:
        if isinstance(lost.exc_value, Interrupted) and _armed is not None:
            _armed.pending = lost.exc_value.why
        else:
            otherwise(lost)

    return hook


def _end_process_after(seconds: float) -> None:
    """The last resort: the kernel ends the process, even one in a C call that lets no other thread run. 0 is never."""
    if _installed:
        signal.setitimer(signal.ITIMER_REAL, seconds)


class Watch:
    """Runs work with a heartbeat beside it.

    `renew` answers with the seconds that are left to the deadline, or None when the lease was refused; errors of it
    (the database is away) are not an answer, and the work goes on. After `timeout` seconds, or `left` without a later
    answer, the work is asked to stop as well. `abandon(why)` is told of work that does not.
    """

    def __init__(
        self,
        renew: Callable[[], float | None],
        *,
        timeout: float,
        left: float,
        abandon: Callable[[str], Any],
    ) -> None:
        self.renew, self.timeout, self.left, self.abandon = renew, timeout, left, abandon
        self.pending: str | None = None
        self.asked: str | None = None
        self.done = threading.Event()

    def __call__(self, work: Callable[..., Any], *args: Any) -> Any:
        """The work's result, or Interrupted if it was asked to stop, whatever it made of that."""
        global _armed
        before = set(threading.enumerate())
        self.begun = time.monotonic()
        beat = threading.Thread(target=self._beat, daemon=True)
        beat.start()
        self._last_resort()
        try:
            try:
                _armed = self
                self._heed_the_past()
                return work(*args)
            finally:
                _armed = None
        except BaseException as error:
            if self.asked and not isinstance(error, Interrupted):
                raise Interrupted(self.asked) from error
            raise
        finally:
            self.done.set()
            beat.join()
            _end_process_after(0)
            if self.asked and set(threading.enumerate()) - before:
                _leave()

    def _heed_the_past(self) -> None:
        """Who asked before we were armed was not heard."""
        if _leaving and self.asked is None:
            self.pending = self.asked = "shutdown"
        _on_signal()

    def _beat(self) -> None:
        due = self.begun + settings.HEARTBEAT_SECONDS
        try:
            while not self.done.wait(self._pause(due)):
                if self.asked or self._over() or time.monotonic() >= due:
                    due = time.monotonic() + settings.HEARTBEAT_SECONDS
                    if why := self.asked or self._reason():
                        self._ask(why)
                        return
        finally:
            connection.close()

    def _pause(self, due: float) -> float:
        return max(0.0, min(TICK_SECONDS, due - time.monotonic(), self._until() - time.monotonic()))

    def _last_resort(self) -> None:
        """Let the kernel end the process that is still at it long after its time."""
        late = settings.INTERRUPT_GRACE_SECONDS + settings.LAST_RESORT_SECONDS
        _end_process_after(max(0.0, self._until() - time.monotonic()) + late)

    def _until(self) -> float:
        return self.begun + min(self.timeout, self.left)

    def _over(self) -> bool:
        return time.monotonic() >= self._until()

    def _reason(self) -> str | None:
        """Why the work is to stop, if it is. The deadline may have been moved since it was last heard of."""
        if time.monotonic() - self.begun >= self.timeout:
            return "timeout"
        try:
            left = self.renew()
        except Exception:
            connection.close()
        else:
            if left is None:
                return "lost"
            self.left = time.monotonic() - self.begun + left
            self._last_resort()
        return "deadline" if self._over() else None

    def _ask(self, why: str) -> None:
        """Ask, again if the interruption was dropped, and end the process if the work is there after the grace."""
        if self.done.is_set():
            return
        if self.asked is None:
            self.pending = self.asked = why
        grace = settings.INTERRUPT_GRACE_SECONDS
        until = time.monotonic() + (min(grace, SHUTDOWN_GRACE_SECONDS) if why == "shutdown" else grace)
        while time.monotonic() < until:
            if self.pending:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
            if self.done.wait(min(TICK_SECONDS, grace)):
                return
        with contextlib.suppress(Exception):
            self.abandon(why)
        os.kill(os.getpid(), signal.SIGKILL)


def _leave() -> None:
    """A thread that interrupted work has left behind cannot be stopped: its process ends after the run."""
    global _leaving
    _leaving = True
