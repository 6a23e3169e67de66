"""Celery's doors. Messages name a queue; the rows say what there is to do."""

from typing import Any

from celery import shared_task
from celery.signals import worker_process_init

from tasks import bulk, delivery, interrupts, runner


@worker_process_init.connect
def prepare(**_: Any) -> None:
    interrupts.install()


@shared_task(name="tasks.jobs.run_next", ignore_result=True)
def run_next(queue: str) -> None:
    """Run one task of the queue, if there is one."""
    runner.run_next(queue)


@shared_task(name="tasks.jobs.deliver_due", ignore_result=True)
def deliver_due() -> None:
    """Deliver the callbacks that are due."""
    delivery.deliver_due()


@shared_task(name="tasks.jobs.act_on_many", ignore_result=True)
def act_on_many() -> None:
    """Go on with what operators do to many tasks."""
    bulk.act_on_many()
