"""The signals that ask a command to end, and the moments in which it cannot."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def heed(handler: Callable[[int, Any], Any]) -> None:
    """Let the handler have each of these signals; a hang-up that `nohup` has us ignore stays ignored."""
    for number in ENDING:
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


_came: list[int] = []


def interrupt(number: int, _frame: Any) -> None:
    """A handler that raises KeyboardInterrupt, and remembers it: while a library is imported it may get lost."""
    _came.append(number)
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if `interrupt` ever did."""
    if _came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep these signals from our handlers until the end of the block: what it begins, it also writes down.

    By handlers and not by a mask, which the servers that are started here would inherit.
    """
    came: list[int] = []
    kept = {number: signal.getsignal(number) for number in ENDING if callable(signal.getsignal(number))}
    if threading.current_thread() is not threading.main_thread():
        kept = {}
    for number in kept:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
