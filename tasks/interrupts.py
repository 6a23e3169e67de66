"""How running work is stopped: one signal, raised in the main thread of a prefork worker process.

The asking thread sends SIGUSR2 once; the handler raises `Interrupted` in the work, whatever it waits for. It subclasses
KeyboardInterrupt, so `except Exception` does not swallow it and psycopg cancels its query on the server. Work that does
not yield within the grace is ended with its process; the row's lease makes that safe.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection


class Interrupted(KeyboardInterrupt):
    """Raised in the work: `why` is `lost` or `timeout`."""

    @property
    def why(self) -> str:
        return str(self.args[0])


# The run whose work may be interrupted. Only the main thread writes it.
_armed: "Watch | None" = None
_installed = False


def _on_signal(*_: object) -> None:
    if _armed is not None and _armed.pending:
        why, _armed.pending = _armed.pending, None
        raise Interrupted(why)


def install() -> None:
    """Install the handler; once in every worker process, in its main thread."""
    global _installed
    signal.signal(signal.SIGUSR2, _on_signal)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _installed = True


def _end_process_after(seconds: float) -> None:
    """The last resort: the kernel ends the process, even one in a C call that lets no other thread run. 0 is never."""
    if _installed:
        signal.setitimer(signal.ITIMER_REAL, seconds)


class Watch:
    """Runs work with a heartbeat beside it.

    `renew` returns False when the lease was refused; errors of it (the database is away) are not an answer, and the
    work goes on. After `timeout` seconds the work is asked to stop as well.
    """

    def __init__(self, renew: Callable[[], bool], *, timeout: float) -> None:
        self.renew, self.timeout = renew, timeout
        self.pending: str | None = None
        self.asked: str | None = None
        self.done = threading.Event()

    def __call__(self, work: Callable[..., Any], *args: Any) -> Any:
        """The work's result, or Interrupted if it was asked to stop, whatever it made of that."""
        global _armed
        beat = threading.Thread(target=self._beat, daemon=True)
        beat.start()
        _end_process_after(self.timeout + settings.INTERRUPT_GRACE_SECONDS + settings.LAST_RESORT_SECONDS)
        try:
            try:
                _armed = self
                _on_signal()  # who asked before we were armed was not heard
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

    def _beat(self) -> None:
        started = time.monotonic()
        try:
            while not self.done.wait(self._pause(started)):
                if why := self._reason(started):
                    self._ask(why)
                    return
        finally:
            connection.close()

    def _pause(self, started: float) -> float:
        every: float = settings.HEARTBEAT_SECONDS
        return max(0.0, min(every, started + self.timeout - time.monotonic()))

    def _reason(self, started: float) -> str | None:
        if time.monotonic() - started >= self.timeout:
            return "timeout"
        try:
            return None if self.renew() else "lost"
        except Exception:
            connection.close()
            return None

    def _ask(self, why: str) -> None:
        """Ask once; end the process if the work is still there after the grace."""
        if self.done.is_set():
            return
        self.pending = self.asked = why
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
        if not self.done.wait(settings.INTERRUPT_GRACE_SECONDS):
            os.kill(os.getpid(), signal.SIGKILL)
