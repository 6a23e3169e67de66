"""A command that stays: it ends by signals, in order, and is a user of its data folder while it lives.

Users hold a shared lock on `users.lock`. The last one to leave stops the engines that users have started, which that
file names; those that other commands have started stay. A demo holds `demo.lock` too and wants to be alone: another's
workers would take its callbacks, and may not deliver to loopback.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from config import embedded, interruptions
from config.embedded import EngineError, Layout
from config.engines_process import Engine, running

OF_DEMO = "COUNTERFOIL_OF_DEMO"  # set for the `up` that a demo starts


def stay(command: str, work: Callable[[], None]) -> None:
    """Have the engines, do the work, and leave as we came, whatever ends it. Raises EngineError, KeyboardInterrupt."""
    interruptions.heed(interruptions.interrupt)
    place = embedded.layout()
    embedded.refuse_platform(place)
    if command == "demo" and not place.embeds_postgres:
        raise EngineError("The demo switches test capabilities on, so it runs on its own database: unset DATABASE_URL.")
    with _used(place, by=command):
        embedded.ensure(note)
        interruptions.check()
        work()


def note(engine: Engine) -> None:
    """Write down that a user has started this engine. Whoever calls holds the folder's lock."""
    file = embedded.layout().data / "users.lock"
    file.write_text(json.dumps(_begun(file) | {engine.name: running(engine)}))


def _begun(file: Path) -> dict[str, int]:
    """The pids of the engines that users have started, by engine."""
    try:
        found: dict[str, int] = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found


@contextlib.contextmanager
def _used(place: Layout, *, by: str) -> Iterator[None]:
    if not (place.embeds_postgres or place.embeds_valkey):
        yield
        return
    with contextlib.ExitStack() as closed:
        with embedded.arranging(place):
            users, demo = (_open(place.data / name) for name in ("users.lock", "demo.lock"))
            closed.callback(os.close, users)
            closed.callback(os.close, demo)
        if by == "demo":
            _join_alone(place, users, demo)
        else:
            _join(place, users, demo)
        try:
            yield
        finally:
            _leave(users)


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def _join(place: Layout, users: int, demo: int) -> None:
    """Become a user, as soon as nobody stops the engines any more."""
    import fcntl

    fcntl.flock(users, fcntl.LOCK_SH)
    if os.environ.get(OF_DEMO):
        return
    if not _acquires(demo, fcntl.LOCK_SH):
        raise EngineError(f"A demo is running on {place.data}: stop it first, or use --data DIR.")
    fcntl.flock(demo, fcntl.LOCK_UN)


def _join_alone(place: Layout, users: int, demo: int) -> None:
    import fcntl

    if not (_acquires(demo, fcntl.LOCK_EX) and _acquires(users, fcntl.LOCK_EX)):
        raise EngineError(f"`up` or another demo is running on {place.data}: stop it first, or use --data DIR.")
    fcntl.flock(users, fcntl.LOCK_SH)


def _acquires(handle: int, lock: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leave(users: int) -> None:
    """Stop what users have started if no user is left; nothing cuts that short."""
    import fcntl

    interruptions.heed(lambda *_: None)
    if not _acquires(users, fcntl.LOCK_EX):
        return
    place = embedded.layout()
    begun = _begun(place.data / "users.lock")
    postgres, valkey = (begun.get(engine.name, 0) == running(engine) for engine in embedded.engines(place))
    if not place.data.exists():
        embedded.stop(place)
    elif postgres or valkey:
        embedded.stop(place, embedded.Started(postgres=postgres, valkey=valkey))
    os.ftruncate(users, 0)
