"""Real workers and sweepers, in processes of their own on the test's database and broker."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import redis
from django.conf import settings
from django.db import connection

from tasks.models import Task

HASTE = {
    "LEASE_SECONDS": "2",
    "HEARTBEAT_SECONDS": "0.3",
    "SWEEP_SECONDS": "0.2",
    "RETRY_BACKOFF_SECONDS": "0.1",
    "INTERRUPT_GRACE_SECONDS": "1",
    "LAST_RESORT_SECONDS": "1",
}


def environment(**more: str) -> dict[str, str]:
    """What a process needs to work on the test's database and broker, with short times."""
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": database_url(),
        "SECRET_KEY": settings.SECRET_KEY,
        "ENCRYPTION_KEYS": ",".join(settings.ENCRYPTION_KEYS),
        **HASTE,
        **more,
    }


def database_url() -> str:
    at = connection.settings_dict
    user = quote(at["USER"]) + (f":{quote(at['PASSWORD'])}" if at["PASSWORD"] else "")
    where = {name: at[name.upper()] for name in ("host", "port") if at[name.upper()]}
    return f"postgres://{user}@/{at['NAME']}?{urlencode(where)}"


class Crew:
    """The processes of a test. Each leads a group of its own, so that it is ended with its children and nobody else."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder, self.environment = folder, environment(**more)
        self.processes: list[subprocess.Popen[bytes]] = []

    def worker(self, *queues: str, children: int = 1) -> subprocess.Popen[bytes]:
        """A Celery worker of these queues; it takes messages that were sent before it is ready."""
        options = [
            "-P",
            "prefork",
            "-c",
            str(children),
            "-Q",
            ",".join(queues),
            "-l",
            "WARNING",
            "-n",
            f"{queues[0]}-{os.getpid()}@%h",
        ]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self._start("-m", "celery", "-A", "config", "worker", *options, *quiet)

    def sweeper(self) -> subprocess.Popen[bytes]:
        return self._start("manage.py", "sweep")

    def command(self, *words: str) -> subprocess.Popen[bytes]:
        return self._start("manage.py", *words)

    def web(self, port: int) -> subprocess.Popen[bytes]:
        """The web on loopback; it may not be ready yet."""
        return self._start("-m", "config.server", "--port", str(port))

    def of(self, word: str) -> subprocess.Popen[bytes] | None:
        """The living process with this word in its command, the youngest of them."""
        return next((p for p in reversed(self.processes) if p.poll() is None and word in p.args), None)

    def dismiss(self) -> None:
        """End every process of ours, with its children, at once."""
        for process in self.processes:
            kill_group(process)

    def said(self) -> str:
        """What the processes wrote: for the reader of a failure."""
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in sorted(self.folder.glob("*.log")))

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        log = self.folder / f"{len(self.processes)}-{words[1].replace('celery', 'worker')}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=settings.BASE_DIR,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process


def deliverer(**more: str) -> subprocess.Popen[bytes]:
    """A process of its own that delivers what is due, and ends."""
    deliver = "import django; django.setup(); from tasks import jobs; jobs.deliver_due()"
    return subprocess.Popen(
        [sys.executable, "-c", deliver], cwd=settings.BASE_DIR, env=environment(**more), start_new_session=True
    )


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """kill -9 a process of ours with its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def ended(task: Task, *, within: float = 20) -> Task:
    """The task, as soon as it is final."""
    return until(lambda: Task.objects.filter(pk=task.pk, completed_at__isnull=False).first(), within=within)


def runs(task: Task) -> list[tuple[str, str]]:
    """How each run of the task ended, and why."""
    return list(task.runs.order_by("number").values_list("status", "reason_resolved"))


def alive(pid: int) -> bool:
    """Whether the process can do anything: one that is dead and not yet waited for cannot."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def until(look: Callable[[], Any], *, within: float = 15) -> Any:
    """What `look` sees as soon as it is true."""
    deadline = time.monotonic() + within
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {look}")
        time.sleep(0.03)
    return seen


BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()
"""


def settled() -> None:
    """Wait until nobody works on the database, and nothing waits that would begin."""
    quiet = 0
    while quiet < 4:
        with contextlib.suppress(redis.RedisError), redis.from_url(settings.REDIS_URL) as broker:
            broker.flushdb()
        with connection.cursor() as cursor:
            cursor.execute(BUSY)
            quiet = 0 if cursor.fetchone()[0] else quiet + 1
        time.sleep(0.02)
