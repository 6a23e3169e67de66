"""What a Celery worker of ours does besides: with `--all-queues` it serves the queues of all deployments.

    celery -A config worker --all-queues

Deployments are rows and may be added at any time, so the worker looks for new queues every few seconds.
"""

import logging
import warnings
from typing import Any

from celery import Celery, bootsteps
from celery.signals import worker_process_init, worker_ready
from click import Option
from django.db import DatabaseError, connection
from setproctitle import setproctitle

from config.processes import report_ready

LOOK_SECONDS = 3.0

logger = logging.getLogger(__name__)


def extend(app: Celery) -> None:
    """Give the application's workers the option, and the step that heeds it."""
    app.user_options["worker"].add(Option(["--all-queues"], is_flag=True, help="Serve the queues of all deployments."))
    app.steps["consumer"].add(FollowDeployments)
    # Messages are JSON and carry a queue's name: a container's root is no danger here, and ten lines each start are.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")


class FollowDeployments(bootsteps.StartStopStep):
    """Consume from each queue that may have work."""

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def __init__(self, parent: Any, *, all_queues: bool = False, **options: Any) -> None:
        self.enabled = all_queues
        self.timer: Any = None
        super().__init__(parent, **options)

    def include_if(self, parent: Any) -> bool:
        return self.enabled

    def start(self, parent: Any) -> None:
        self.look(parent)
        self.timer = parent.timer.call_repeatedly(LOOK_SECONDS, self.look, (parent,))

    def stop(self, parent: Any) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def look(self, parent: Any) -> None:
        for queue in self._queues():
            parent.add_task_queue(queue)

    def _queues(self) -> list[str]:
        from tasks import queues

        try:
            return queues.in_use()
        except DatabaseError as error:
            logger.warning("could not look for new queues", extra={"error": str(error)})
            return []
        finally:
            connection.close()  # a process that is forked meanwhile must not inherit it


@worker_ready.connect
def _is_ready(sender: Any, **_: Any) -> None:
    setproctitle(f"counterfoil: {sender.hostname.partition('@')[0]}")
    report_ready()


@worker_process_init.connect
def _name_the_process(sender: str, **_: Any) -> None:
    setproctitle(f"counterfoil: {sender.partition('@')[0]} process")
