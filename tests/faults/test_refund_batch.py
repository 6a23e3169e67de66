"""A batch of refunds that is killed in the middle, and begun again."""

from decimal import Decimal
from uuid import uuid4

import pytest

from billing import audit
from billing.models import Transfer
from tasks import lifecycle
from tests.builders import account, assert_sound, buckets, claim, deployment, submit
from tests.faults.processes import kill_group, until

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_batch_that_is_killed_and_begun_again_refunds_each_task_once(crew):
    of, to = account("1000"), deployment(prices=[("characters", "1")])
    tasks = [submit(of, to, input={"bound": {"characters": 3}}) for _ in range(40)]
    for task in tasks:
        lifecycle.succeed(claim(task), output=None, usage={"characters": Decimal(3)}, warnings=[])
    filters = ("--filter", f"model={to.name}", "--percent", "50", "--reason", "outage", "--by", "ann")
    words = ("refund", *filters, "--key", str(uuid4()), "--yes")
    given = Transfer.objects.filter(kind="refund")

    first = crew.command(*words)
    until(lambda: given.count() > 4, within=20)
    kill_group(first)
    cut_at = given.count()
    second = crew.command(*words)

    assert second.wait(60) == 0, crew.said()
    assert 4 < cut_at < len(tasks)
    assert first.returncode == -9
    assert sorted(given.values_list("task_id", flat=True)) == sorted(task.pk for task in tasks)
    assert set(given.values_list("amount", flat=True)) == {Decimal("1.5")}
    assert f"{cut_at} already" in crew.said()
    assert buckets(of) == {"available": 940, "held": 0, "charged": 60}
    assert_sound(of)
    assert audit.run().broken == []
