"""Seeded rows are true, and lie still: nothing is claimed or sent, and only what is stuck is swept away."""

from dataclasses import replace

import pytest
from django.core.management import CommandError, call_command
from django.utils.timezone import now

from billing import audit
from billing.models import Account, ApiKey, Charge, Transfer
from billing.statements import rows
from tasks import lifecycle, seeding, sweep
from tasks.models import Artifact, Callback, CallbackAttempt, Deployment, Receiver, Run, Task, TaskEvent
from tasks.statuses import UNFINISHED, Status
from tests.builders import refused, submit


def stuck():
    return Task.objects.filter(status__in=UNFINISHED, deadline__lt=now())


@pytest.mark.django_db(transaction=True)
def test_seeded_rows_pass_the_audit_and_lie_still(capsys):
    call_command("seed_tasks", 1500, seed=7)

    assert "1500 tasks of 20 accounts" in capsys.readouterr().out
    assert audit.run().holds
    assert_there_is_something_of_everything()
    assert lifecycle.claim(seeding.QUEUE, worker="test") is None
    assert rows(sweep.DUE_CALLBACKS, {}) == [(False,)]
    assert sweep.end_lost_leases() == 0
    late = stuck().count()
    assert 2 <= late <= 5
    assert sweep.expire_overdue() == late
    assert audit.run().holds
    assert_the_guards_are_on()


def assert_there_is_something_of_everything():
    tasks = Task.objects.all()
    assert {*tasks.values_list("status", flat=True)} == set(Status)
    assert 0.85 < tasks.filter(status="succeeded").count() / 1500 < 0.93
    assert len({*tasks.filter(status="failed").values_list("error__code", flat=True)}) >= 6
    assert {*Callback.objects.values_list("status", flat=True)} == {*Callback.Status.values}
    assert {*Transfer.objects.values_list("kind", flat=True)} == {*Transfer.Kind.values}
    assert Receiver.objects.filter(paused_at__isnull=False).exists()
    assert Receiver.objects.filter(paused_at__isnull=True).exists()
    assert Account.objects.filter(low_since__isnull=False).exists()
    assert ApiKey.objects.filter(month_spent__gt=0).exists()
    assert Charge.objects.filter(refunded__gt=0).exists()
    assert Run.objects.filter(number__gt=1).exists()
    assert tasks.filter(rerun_of__isnull=False).exists()
    assert tasks.filter(paused_at__isnull=False).exists()
    assert TaskEvent.objects.filter(type="task.priority_changed").exists()
    assert CallbackAttempt.objects.filter(status_code=503).exists()
    assert Artifact.objects.exists()
    assert not Callback.objects.exclude(host__endswith=".example").exists()


def assert_the_guards_are_on():
    """In the session that seeded, too."""
    with refused("CF001", by="no_update"):
        Transfer.objects.update(amount=1)


@pytest.mark.django_db
def test_nothing_is_seeded_beside_real_tasks():
    submit()

    with pytest.raises(CommandError, match="real tasks"):
        call_command("seed_tasks", 10)


@pytest.mark.django_db
def test_nothing_is_seeded_in_production(settings):
    settings.EMBEDDED = replace(settings.EMBEDDED, embeds_postgres=False)

    with pytest.raises(CommandError, match="production"):
        call_command("seed_tasks", 10)


@pytest.mark.django_db(transaction=True)
def test_a_role_that_may_not_write_history_is_told_so(settings):
    settings.EMBEDDED = replace(settings.EMBEDDED, embeds_postgres=False)

    with pytest.raises(CommandError, match="may not write history"):
        call_command("seed_tasks", 10, anyway=True)

    assert not Deployment.objects.filter(queue=seeding.QUEUE).exists()


@pytest.mark.parametrize("asked", [{"tasks": 0}, {"tasks": 10, "days": 0}, {"tasks": 10, "accounts": 0}])
def test_absurd_numbers_are_refused(asked):
    with pytest.raises(CommandError, match="Seed"):
        call_command("seed_tasks", asked.pop("tasks"), **asked)
