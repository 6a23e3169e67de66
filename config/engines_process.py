"""A server process of ours: found by its pid file, started under a lock, stopped by a signal."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from config.engines_layout import EngineError
from config.interruptions import held_back

PATIENCE = 120.0


@dataclass(frozen=True)
class Engine:
    """What the two engines have in common: enough to find, start and stop one.

    `told` is a path on the server's command line that no other server has.
    """

    name: str
    program: str
    embedded: bool
    socket: Path
    folder: Path
    told: Path
    pid_file: Path
    log: Path
    answers: Callable[[], bool]
    launch: Callable[[IO[bytes]], None]
    version: Callable[[], str]


def start(engine: Engine, began: Callable[[Engine], None] = lambda _: None) -> bool:
    """Whether the engine had to be started, which `began` is told; when this returns an embedded one answers."""
    if not engine.embedded or engine.answers() or _recovers(engine):
        return False
    stop(engine)  # alive, but its socket or folder was removed: nobody can reach it, and it would remove ours
    with held_back(), _open(engine.log) as log:
        engine.launch(log)
        began(engine)
    if not wait(PATIENCE, lambda: engine.answers() or running(engine) is None) or not engine.answers():
        raise EngineError(failure(engine))
    return True


def _recovers(engine: Engine) -> bool:
    """Wait for a live server that is starting, replaying or stopping, and tell whether it came to answer."""
    if not wait(PATIENCE, lambda: engine.answers() or running(engine) is None or not engine.socket.exists()):
        raise EngineError(f"{engine.name} (pid {running(engine)}) runs but does not answer; see {engine.log}.")
    return engine.answers()


def stop(engine: Engine) -> None:
    """End the server in good order and wait until it is gone; so too one of a folder that was removed."""
    known = running(engine)
    for pid in {*_strays(engine), *([known] if known else [])}:
        _end(pid, engine)


def _end(pid: int, engine: Engine) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
    if not wait(PATIENCE, lambda: not serves(pid, engine)):
        raise EngineError(f"{engine.name} (pid {pid}) does not stop; see {engine.log}.")


def wait(seconds: float, done: Callable[[], bool]) -> bool:
    """Whether it is done within so many seconds."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _open(log: Path) -> IO[bytes]:
    """The server's log, for its owner's eyes; a long one is put aside first."""
    if log.exists() and log.stat().st_size > 10_000_000:
        log.replace(log.with_suffix(".log.old"))
    return open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def failure(engine: Engine) -> str:
    """The sentence for a server that did not start: the last thing it said, or what it called fatal."""
    end = engine.log.read_text(errors="replace").strip().splitlines()[-8:] if engine.log.exists() else []
    fatal = [line for line in end if "FATAL" in line]
    return f"{engine.name} did not start; {engine.log} says: {(fatal or end or ['nothing'])[-1]}"


def running(engine: Engine) -> int | None:
    """The pid of the live server of this folder, whatever its pid file says."""
    pid = recorded(engine.pid_file)
    return pid if pid and serves(pid, engine) else None


def recorded(pid_file: Path) -> int | None:
    """The pid a server has written; its process may be long gone."""
    try:
        return int(pid_file.read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def serves(pid: int, engine: Engine) -> bool:
    """Whether a process is this server, by its command line: after a reboot its pid may be anybody's.

    Everybody may read command lines; what `/proc` tells in `exe` and `cwd` is hidden from root in most containers.
    """
    ours = rf"{engine.program}(?= ).*[ :]{re.escape(str(engine.told))}(?: |$)"
    return re.search(ours, _command_line(pid)) is not None


def _strays(engine: Engine) -> list[int]:
    """Servers of this folder that no pid file names any more."""
    if sys.platform == "linux":
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    else:
        listed = subprocess.run(["ps", "-axo", "pid="], capture_output=True, text=True, check=False)
        pids = [int(word) for word in listed.stdout.split()]
    return [pid for pid in pids if _is_program(pid, engine.program) and serves(pid, engine)]


def _is_program(pid: int, program: str) -> bool:
    return _command_line(pid).partition(" ")[0].endswith(f"/{program}")


def _command_line(pid: int) -> str:
    if sys.platform != "linux":
        command = ["ps", "-ww", "-p", str(pid), "-o", "args="]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")).rstrip()
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process of this pid exists, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
