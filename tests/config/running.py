"""`up` in a process of its own, with a data folder and a port that nobody else has."""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.settings import BASE_DIR

OURS = ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "ENCRYPTION_KEYS", "PUBLIC_URL")
OURS += ("COUNTERFOIL_PORT", "COUNTERFOIL_OF_DEMO")


def environment(data: Path, **more: str) -> dict[str, str]:
    """What a process needs to work in this data folder and nowhere else."""
    plain = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**plain, "COUNTERFOIL_DATA": str(data), "EXTRA_APPS": "tests.workload", **more}


def free_port() -> int:
    """A port below those that the system gives to clients, so that none takes it meanwhile."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Up:
    """A running `manage.py up`: what it says, and the processes it has."""

    def __init__(self, data: Path, *options: str, **more: str) -> None:
        self.data, self.port = data, free_port()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up", "--port", str(self.port), *options],
            cwd=BASE_DIR,
            env=environment(data, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def ready(self, *, within: float = 30) -> "Up":
        """Wait until it says so."""
        said = f"Counterfoil is ready at http://127.0.0.1:{self.port}"
        until(lambda: said in self.lines or self._ended(), within=within)
        return self

    def _ended(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"up ended with {self.process.returncode}:\n" + "\n".join(self.lines))
        return False

    def get(self, path: str) -> int:
        """The status that the web answers with."""
        web = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(web):
            web.request("GET", path)
            return web.getresponse().status

    def serves(self, path: str) -> bool:
        try:
            return self.get(path) == 200
        except (OSError, http.client.HTTPException):
            return False

    def family(self) -> dict[int, str]:
        """Its processes, and theirs, by pid and name; without itself."""
        found, young = {}, {self.process.pid}
        listed = processes()
        while young:
            young = {pid for pid, (parent, _) in listed.items() if parent in young}
            found |= {pid: listed[pid][1] for pid in young}
        return found

    def child(self, name: str) -> int:
        """The pid of the process of this name."""
        return until(lambda: next((pid for pid, title in self.family().items() if re.fullmatch(name, title)), None))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.listener.join(10)
        return code

    def finish(self) -> None:
        """Leave nothing, whatever the test has made of it."""
        family = self.family()
        for pid in (*family, self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
        self.listener.join(10)
        self.process.stdout.close()


def processes() -> dict[int, tuple[int, str]]:
    """Parent and name of each living process by its pid; the dead who wait for their parent do not count."""
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = [line.split(None, 3) for line in listed.stdout.splitlines()]
    return {int(row[0]): (int(row[1]), row[3].strip()) for row in rows if len(row) == 4 and row[2][0] != "Z"}


def living(pids: Any) -> set[int]:
    return set(pids) & set(processes())


def manage(data: Path, *words: str, within: float = 60, **more: str) -> subprocess.CompletedProcess[str]:
    """A command of manage.py in this data folder."""
    command = [sys.executable, "manage.py", *words]
    return subprocess.run(
        command, cwd=BASE_DIR, env=environment(data, **more), capture_output=True, text=True, timeout=within
    )


def remove(data: Path) -> None:
    """Stop the engines of this folder and remove all they have, root's PostgreSQL elsewhere too."""
    manage(data, "engines", "stop")
    if (data / "home").exists():
        shutil.rmtree((data / "home").read_text().strip())
    shutil.rmtree(data, ignore_errors=True)


def ask(data: Path, code: str) -> Any:
    """What the code leaves in `answer`, from a process of this data folder."""
    done = manage(data, "shell", "-v0", "-c", f"import json\n{code}\nprint(json.dumps(answer))")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def until(look: Callable[[], Any], *, within: float = 30) -> Any:
    """What `look` sees as soon as it is true."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {look}")
        time.sleep(0.1)
    return seen
