"""The engines run and the test workload is installed before Django's settings are read."""

import os

from config import embedded

os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
os.environ.setdefault("EXTRA_APPS", "tests.workload")
os.environ.setdefault("CALLBACK_ALLOWED_NETWORKS", "127.0.0.0/8")
embedded.ensure()
# A broker and cache of their own, one for each process of tests: nobody takes another's messages.
os.environ.setdefault("REDIS_URL", embedded.redis_url(embedded.layout()).replace("db=0", "db=9"))
place = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
os.environ["REDIS_URL"] = os.environ["REDIS_URL"].replace("db=9", f"db={9 + place}")

import django  # noqa: E402
import pgtrigger  # noqa: E402
import pytest  # noqa: E402
from django.core.signals import setting_changed  # noqa: E402
from django.db.backends.postgresql.operations import DatabaseOperations  # noqa: E402

django.setup()
# A process of tests that this one starts reads the settings when its own broker is named, not before.
del os.environ["DJANGO_SETTINGS_MODULE"]

from tasks import last_uses, queues  # noqa: E402
from tasks.api import rates  # noqa: E402


def forget_the_broker(*, setting, **_):
    """Who is told of another broker does not ask the last one."""
    if setting in ("REDIS_URL", "CELERY_BROKER_URL"):
        for kept in (queues._client, queues._connection, rates._script, last_uses._script):
            kept.cache_clear()
        queues._left_alone_until = rates._left_alone_until = 0


setting_changed.connect(forget_the_broker)


def _guards(action: str) -> list[str]:
    return [
        f'ALTER TABLE "{model._meta.db_table}" {action} TRIGGER {trigger.get_pgid(model)}'
        for model, trigger in pgtrigger.registered()
        if trigger.operation == pgtrigger.Truncate
    ]


@pytest.fixture(autouse=True, scope="session")
def _flush_past_the_guards():
    """Let the flush between `transaction=True` tests truncate; the guards are on again when it commits."""
    plain = DatabaseOperations.execute_sql_flush

    def flush(self, sql_list):
        return plain(self, [*_guards("DISABLE"), *sql_list, *_guards("ENABLE")])

    DatabaseOperations.execute_sql_flush = flush
    yield
    DatabaseOperations.execute_sql_flush = plain
