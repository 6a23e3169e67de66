"""The Celery application. Its messages name queues; rows are the truth."""

import os
import sys

from celery import Celery
from celery.signals import setup_logging

from config import embedded, worker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
if embedded.needs_engines(sys.argv) or "worker" in sys.argv:
    embedded.ensure()

app = Celery("counterfoil")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="jobs")
app.set_default()
worker.extend(app)


@setup_logging.connect
def _keep_our_logging(**_: object) -> None:
    """Django has configured logging; Celery leaves it alone once somebody listens here."""
