"""Programs that run together: one log of their lines, a dead one started again, all of them stopped in order.

Everything happens in one thread: programs are started, heard and buried between two looks at their pipes. Each leads a
process group of its own, so that Ctrl-C in a terminal reaches only us and its children end with it.
"""

import contextlib
import os
import select
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TextIO

from config import interruptions

BASE_DIR = Path(__file__).resolve().parent.parent
LEASH = (sys.executable, "-IS", str(BASE_DIR / "config" / "leash.py"))
READY_FD = "COUNTERFOIL_READY_FD"

DEATHS, WITHIN, PAUSE = 5, 60.0, 0.5
TICK, BREATH, TEND = 0.05, 0.03, 1.0
LONGEST = 65536
COLOURS = (36, 33, 35, 32, 34, 31)


class GivenUp(Exception):
    """A program does not stay alive; the message is one sentence that says which, and what it said last."""


@dataclass(frozen=True)
class Program:
    """What is run, and how it is asked to stop: signals with the seconds each is given, then SIGKILL.

    Programs of the lowest stage are stopped first. One that `reports` is ready when it says so, the others when they
    are started. One that has been silent for `silence` seconds since then is killed, and started again as if it had
    died; 0 lets it be silent. `orphaned` is the signal it gets when we are killed.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    farewell: Sequence[tuple[signal.Signals, float]] = ((signal.SIGTERM, 5.0),)
    orphaned: signal.Signals = signal.SIGTERM
    stage: int = 0
    reports: bool = True
    silence: float = 0.0


def reporter() -> BinaryIO | None:
    """Where to tell whoever started this process, if it asked to be told; it is given once."""
    number = os.environ.pop(READY_FD, "")
    return open(int(number), "wb", buffering=0) if number else None


def report_ready() -> None:
    """Tell whoever started this process, if it asked to be told, that its work has begun."""
    if pipe := reporter():
        with contextlib.suppress(OSError), pipe:
            pipe.write(b"ready\n")


class Lines:
    """What a process wrote, cut into lines that are handed out when it pauses for breath: tracebacks stay together."""

    def __init__(self) -> None:
        self.rest = b""
        self.whole: list[str] = []
        self.heard_at = 0.0

    def add(self, data: bytes) -> None:
        *whole, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > LONGEST:
            whole, self.rest = [*whole, self.rest], b""
        self.whole += [line.decode(errors="replace").rstrip() for line in whole if line.strip()]
        self.heard_at = time.monotonic()

    def take(self) -> list[str]:
        """The lines to show now; none while more may follow at once."""
        if time.monotonic() - self.heard_at < BREATH and len(self.whole) < 1000:
            return []
        taken, self.whole = self.whole, []
        return taken

    def take_all(self) -> list[str]:
        """Every line there is."""
        taken, self.whole = self.whole, []
        return taken

    def end(self) -> None:
        """Count as a line what was not ended."""
        self.add(b"\n")


class Child:
    """A program through all the processes that run it, one after another."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.lines = Lines()
        self.last_words = ""
        self.ready = False
        self.silent = 0.0
        self.deaths: list[float] = []
        self.restart_at = 0.0

    def start(self) -> tuple[int, int]:
        """Start a process; give the ends of the pipes of its lines and of its word that it is ready."""
        heard, lines = os.pipe()
        told, tell = os.pipe()
        leash = [*LEASH, str(os.getpid()), str(self.program.orphaned.value)]
        self.process = subprocess.Popen(
            [*leash, *self.program.command],
            cwd=BASE_DIR,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.program.environment, READY_FD: str(tell)},
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=lines,
            pass_fds=[tell],
            start_new_session=True,
        )
        os.close(lines)
        os.close(tell)
        self.ready, self.silent, self.last_words = not self.program.reports, 0.0, ""
        return heard, told

    @property
    def pause(self) -> float:
        """Seconds between a death and the next start: twice as long each time."""
        return PAUSE * 2.0 ** (len(self.deaths) - 1)

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself; it knows what to do with its children."""
        if self.process is not None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """End the whole group, also what is left of one whose leader is dead."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def bury(self) -> str:
        """Count a death, end what the process has left behind, and tell how it ended."""
        assert self.process is not None  # noqa: S101
        self.kill()
        code, self.process, self.ready = self.process.wait(), None, False
        now = time.monotonic()
        self.deaths = [*(at for at in self.deaths if now - at < WITHIN), now]
        self.restart_at = now + self.pause
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Supervisor:
    """Runs programs until it is asked to stop, or until one of them does not stay alive."""

    def __init__(self, programs: Sequence[Program], *, out: TextIO) -> None:
        self.children = [Child(program) for program in programs]
        self.out = out
        self.width = max(len(program.name) for program in programs)
        self.selector = selectors.DefaultSelector()
        self.asked = 0
        self.looked_at = time.monotonic()

    def run(self, *, ready: Callable[[], bool], tend: Callable[[], None] = lambda: None) -> None:
        """Run until SIGINT, SIGTERM or SIGHUP; then stop all of them. Raises GivenUp.

        `ready` is called once all have reported, again and again until it is true: it may announce that. `tend` is
        called every second, for what the programs need and we have not started; it may raise GivenUp too.
        """
        announced, tended = False, time.monotonic()
        with self._signals():
            try:
                for child in self.children:
                    self._start(child)
                while not self.asked:
                    self._listen(TICK)
                    self._look_after_each()
                    if time.monotonic() - tended >= TEND:
                        tend()
                        tended = time.monotonic()
                    announced = announced or (all(child.ready for child in self.children) and ready())
            finally:
                self._stop()

    def say(self, text: str) -> None:
        """A line of our own, after what has been heard until now."""
        for child in self.children:
            self._show(child, child.lines.take_all())
        self._write(f"{text}\n")

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Count the requests to stop. The handlers stay: what follows the stop must not be cut short either."""
        interruptions.heed(self._ask)
        try:
            yield
        finally:
            self.selector.close()

    def _ask(self, *_: object) -> None:
        self.asked += 1

    def _start(self, child: Child) -> None:
        heard, told = child.start()
        for pipe, react in ((heard, self._hear), (told, self._be_told)):
            os.set_blocking(pipe, False)
            self.selector.register(pipe, selectors.EVENT_READ, (react, child))

    def _listen(self, seconds: float) -> None:
        """Wait for a while, hear what there is, and show what is complete."""
        for key, _ in self.selector.select(seconds):
            react, child = key.data
            react(child, key.fd)
        for child in self.children:
            self._show(child, child.lines.take())

    def _hear(self, child: Child, pipe: int) -> None:
        if data := self._read(pipe):
            child.lines.add(data)
        else:
            child.lines.end()

    def _be_told(self, child: Child, pipe: int) -> None:
        if self._read(pipe):
            child.ready, child.silent = True, 0.0

    def _read(self, pipe: int) -> bytes:
        """What waits in the pipe; at its end nothing, and it is closed."""
        try:
            data = os.read(pipe, LONGEST)
        except BlockingIOError:
            return b""
        if not data:
            self.selector.unregister(pipe)
            os.close(pipe)
        return data

    def _look_after_each(self) -> None:
        # While we were stopped ourselves nobody could be heard: that is not their silence.
        passed, self.looked_at = min(time.monotonic() - self.looked_at, 1.0), time.monotonic()
        for child in self.children:
            child.silent += passed if child.ready else 0.0
            if 0 < child.program.silence < child.silent:
                self._show(child, [f"has been silent for {child.silent:.0f} s; it is killed"])
                child.kill()
                child.silent = 0.0
            if child.process is None:
                if time.monotonic() >= child.restart_at:
                    self._start(child)
            elif not child.alive:
                self._mourn(child)

    def _mourn(self, child: Child) -> None:
        how = child.bury()
        self._listen(TICK)
        self._show(child, child.lines.take_all())
        if len(child.deaths) >= DEATHS:
            said = f": {child.last_words}" if child.last_words else "."
            raise GivenUp(f"{child.program.name} ended {DEATHS} times within {WITHIN:.0f} s ({how}){said}")
        self._show(child, [f"ended ({how}); it is started again in {child.pause:.1f} s"])

    def _stop(self) -> None:
        """Stop the programs, stage by stage; a second request ends all at once."""
        for stage in sorted({child.program.stage for child in self.children}):
            self._stop_stage([child for child in self.children if child.program.stage == stage])
        until = time.monotonic() + 1
        while self.selector.get_map() and time.monotonic() < until:  # their last words
            self._listen(TICK)
        for child in self.children:
            self._show(child, child.lines.take_all())

    def _stop_stage(self, children: list[Child]) -> None:
        for step in range(max(len(child.program.farewell) for child in children)):
            seconds = 0.0
            for child in children:
                if child.alive and step < len(child.program.farewell):
                    number, patience = child.program.farewell[step]
                    child.send(number)
                    seconds = max(seconds, patience)
            self._wait(children, seconds)
        for child in children:
            child.kill()
        self._wait(children, 5)

    def _wait(self, children: list[Child], seconds: float) -> None:
        until = time.monotonic() + seconds
        while any(child.alive for child in children) and time.monotonic() < until:
            if self.asked > 1:
                for child in self.children:
                    child.kill()
            self._listen(TICK)

    def _show(self, child: Child, lines: list[str]) -> None:
        if lines:
            child.last_words = lines[-1].strip()
            prefix = self._prefix(child)
            self._write("".join(f"{prefix}{line}\n" for line in lines))

    def _prefix(self, child: Child) -> str:
        name = f"{child.program.name:<{self.width}} | "
        if not self.out.isatty() or os.environ.get("NO_COLOR"):
            return name
        return f"\x1b[{COLOURS[self.children.index(child) % len(COLOURS)]}m{name}\x1b[0m"

    def _write(self, text: str) -> None:
        """Show all of it, if anybody still looks: a closed terminal must not keep us from stopping in order.

        Not by Python's streams: unbuffered ones lose the rest of a write that a signal cuts short.
        """
        data = text.encode(self.out.encoding, "replace")
        with contextlib.suppress(OSError):
            while data:
                try:
                    data = data[os.write(self.out.fileno(), data) :]
                except BlockingIOError:
                    select.select([], [self.out], [], 1)
