"""The home over many rows: what it counts is what there is, and it looks at nothing else."""

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import Sum

from billing.models import Transfer
from billing.statements import rows
from tasks import needs, overview
from tasks.models import Callback, Task

pytestmark = [pytest.mark.scale, pytest.mark.django_db(transaction=True), pytest.mark.timeout(580)]
# A row of these is read by its index or not at all. Accounts are few.
TABLES = ("tasks_task", "tasks_callback", "tasks_run", "billing_transfer")


@pytest.fixture
def _many_rows():
    call_command("seed_tasks", 20_000, days=7, anyway=True, verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


@pytest.mark.usefixtures("_many_rows")
def test_many_rows_are_counted_from_indexes_alone_and_to_the_row(monkeypatch):
    plans = []

    def explained(statement, params):
        plans.append("\n".join(line for (line,) in rows(f"EXPLAIN {statement}", params)))
        return rows(statement, params)

    for module in (overview, needs):
        monkeypatch.setattr(module, "rows", explained)
    figures = overview.count(overview.WINDOWS["week"])
    needs.needs()
    needs.of_queues()

    assert len(plans) == 5
    for plan in plans:
        assert not [table for table in TABLES if f"Seq Scan on {table}" in plan], plan
    for index in ("task_ended", "tasks_task_pkey", "transfer_time", "callback_delivered", "callback_failed"):
        assert any(f"Index Only Scan using {index} " in plan for plan in plans[:3]), index
    assert_true_of_rows(figures)


def assert_true_of_rows(figures):
    first, last = overview.moment(figures["first"]), overview.moment(figures["last"])
    ended = Task.objects.filter(completed_at__gte=first, completed_at__lt=last)
    moved = Transfer.objects.filter(created_at__gte=first, created_at__lt=last, account__twin_of=None)
    told = Callback.objects.filter(delivered_at__gte=first, delivered_at__lt=last)
    total = figures["total"]

    assert total["submitted"] == Task.objects.filter(created_at__gte=first, created_at__lt=last).count() > 10_000
    for end in ("succeeded", "failed", "canceled"):
        assert total[end] == sum(figures["work"][end]) == ended.filter(status=end).count() > 0
    for name, kind in (("charged", "capture"), ("refunded", "refund")):
        assert figures["money"]["total"][name] == moved.filter(kind=kind).aggregate(all=Sum("amount"))["all"]
        assert sum(figures["money"][name]) == figures["money"]["total"][name]
    assert figures["callbacks"]["total"]["delivered"] == told.count() > 0
    assert figures["work"]["open"][-1] == Task.objects.filter(status__in=("queued", "running")).count()
