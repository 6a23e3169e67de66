"""What a Celery worker of ours does besides: with `--all-queues` it serves the queues of all deployments.

    celery -A config worker --all-queues

Deployments are rows and may be added at any time, so the worker looks for new queues every few seconds. Asked to stop,
it gives running work its time, and then ends it: Celery alone would wait for ever.
"""

import contextlib
import logging
import os
import signal
import threading
import time
import warnings
from typing import Any

from celery import Celery, bootsteps
from celery.signals import worker_process_init, worker_ready, worker_shutting_down
from click import Option
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from setproctitle import setproctitle

from config import consuming
from config.processes import reporter

LOOK_SECONDS = 3.0
# How soon a queue that was found is served, and how long a start waits for the first look.
FOLLOW_SECONDS, FIRST_LOOK_SECONDS = 0.5, 2.0
# After work was asked to end with its worker: to clean up, and for its task to be given back.
TO_GIVE_BACK = 4.0

logger = logging.getLogger(__name__)


def extend(app: Celery) -> None:
    """Give the application's workers the option, and the step that heeds it."""
    app.user_options["worker"].add(Option(["--all-queues"], is_flag=True, help="Serve the queues of all deployments."))
    app.steps["worker"].add(StopInTime)
    app.steps["consumer"].update([FollowDeployments, consuming.KeepConsuming])
    # Messages are JSON and carry a queue's name: a container's root is no danger here, and ten lines each start are.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")


class FollowDeployments(bootsteps.StartStopStep):
    """Consume from each queue that may have work.

    They are looked for in a thread: a database that keeps it waiting must not keep the event loop.
    """

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, parent: Any, *, all_queues: bool = False, **options: Any) -> None:
        self.enabled = all_queues
        self.timer: Any = None
        self.looking: threading.Thread | None = None
        self.looked = threading.Event()
        self.found: list[str] = []
        super().__init__(parent, **options)

    def include_if(self, parent: Any) -> bool:
        return self.enabled

    def start(self, parent: Any) -> None:
        if self.looking is None:  # it outlives a connection to the broker
            self.looking = threading.Thread(target=self.look, daemon=True)
            self.looking.start()
        self.looked.wait(FIRST_LOOK_SECONDS)
        self.follow(parent)
        self.timer = parent.timer.call_repeatedly(FOLLOW_SECONDS, self.follow, (parent,))

    def stop(self, parent: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def follow(self, parent: Any) -> None:
        for queue in self.found:
            parent.add_task_queue(queue)

    def look(self) -> None:
        """Look for queues until the process ends; one look waits for the one before."""
        while True:
            self.found = self._queues() or self.found
            self.looked.set()
            time.sleep(LOOK_SECONDS)

    def _queues(self) -> list[str]:
        from tasks import queues

        try:
            return queues.in_use()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("could not look for new queues", extra={"error": str(error)})
            return []
        finally:
            connection.close()  # a process that is forked meanwhile must not inherit it


class StopInTime(bootsteps.StartStopStep):
    """After SIGTERM work has STOP_SECONDS to end; then it is asked to, by a signal to each process, and then killed."""

    requires = {"celery.worker.components:Pool"}

    def start(self, worker: Any) -> None:
        self.worker, self.begun = worker, False
        worker_shutting_down.connect(self.begin, weak=False)

    def begin(self, how: str, **_: Any) -> None:
        if how == "Warm" and not self.begun:
            self.begun = True
            threading.Thread(target=self.press, daemon=True).start()

    def press(self) -> None:
        for seconds, number in ((settings.STOP_SECONDS, signal.SIGTERM), (TO_GIVE_BACK, signal.SIGKILL)):
            time.sleep(seconds)
            for process in list(getattr(self.worker.pool._pool, "_pool", ())):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)


@worker_ready.connect
def _is_ready(sender: Any, **_: Any) -> None:
    setproctitle(f"counterfoil: {sender.hostname.partition('@')[0]}")
    if pipe := reporter():
        pipe.write(b"ready\n")
        consuming.beat(pipe)


@worker_process_init.connect
def _name_the_process(sender: str, **_: Any) -> None:
    setproctitle(f"counterfoil: {sender.partition('@')[0]} process")
