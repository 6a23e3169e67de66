"""What tests begin with: an account with credits, a deployment with prices, a task."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib.postgres.functions import TransactionNow
from django.db import DatabaseError, transaction

from billing import ledger
from billing.credentials import issue_key, open_account
from billing.models import Account, Charge, Price, RateCard, Transfer
from billing.pricing import FLAT, UNITS
from tasks import lifecycle
from tasks.models import Deployment, Task, TaskEvent
from tasks.statuses import FINAL, UNFINISHED, ErrorCode, Status
from tasks.submission import Request

_numbers = itertools.count(1)


def account(available="10", *, name="Acme", **fields) -> Account:
    """An account with credits to spend."""
    made, _ = open_account(name)
    if fields:
        Account.objects.filter(pk=made.pk).update(**fields)
    if Decimal(available):
        ledger.grant(made.pk, Decimal(available), key=str(uuid4()), reason="opening balance", actor="test")
    made.refresh_from_db()
    return made


def key(of: Account, **fields):
    """A key of the account, and its secret."""
    return issue_key(of, name="test", **fields)


def deployment(name=None, *, capability="test.work", prices=(("task", "1"),), **fields) -> Deployment:
    """A deployment with these prices: (meter, credits) or (meter, credits, unit_size)."""
    name = name or f"work-{next(_numbers)}"
    card = RateCard.objects.create(name=name)
    for meter, credits_, *size in prices:
        unit = UNITS.get(meter, FLAT)
        Price.objects.create(
            rate_card=card,
            meter=meter,
            unit=unit,
            unit_size=size[0] if size else 1,
            credits=Decimal(credits_),
            effective_from=TransactionNow(),  # the statement's time is too late for a test in one transaction
        )
    return Deployment.objects.create(
        name=name, capability=capability, resolved_model=f"{name}-1", rate_card=card, **fields
    )


def request(of: Account, to: Deployment, **fields) -> Request:
    asked = {"api_key_id": None, "actor": "api_key:test", "model": to.name, "input": {}, **fields}
    return Request(account_id=of.pk, **asked)


def submit(of: Account | None = None, to: Deployment | None = None, **fields) -> Task:
    """A queued task."""
    submitted = lifecycle.submit(request(of or account(), to or deployment(), **fields))
    return Task.objects.get(pk=submitted.task_id)


def buckets(of: Account) -> dict[str, Decimal]:
    """The account's balances, read anew."""
    of = Account.objects.get(pk=of.pk)
    return {"available": of.available, "held": of.held, "charged": of.charged}


def claim(task: Task, worker="test") -> lifecycle.Claim:
    """The task's run, as its worker holds it; no other task of the queue goes before it."""
    claimed = lifecycle.claim(task.queue, worker=worker)
    assert claimed is not None
    assert claimed.task_id == task.pk
    return claimed


def task_that_is(status: Status, **fields) -> Task:
    """A task of this status, with the last claim of it as `claimed`."""
    task = submit(**fields)
    claimed = None if status in (Status.QUEUED, Status.CANCELED) else claim(task)
    if status == Status.SUCCEEDED:
        lifecycle.succeed(claimed, output="done", usage={}, warnings=[])
    if status == Status.FAILED:
        lifecycle.fail(claimed, code=ErrorCode.CAPABILITY_ERROR, message="No.")
    if status == Status.CANCELED:
        lifecycle.cancel(task.pk, by="test")
    task.refresh_from_db()
    task.claimed = claimed
    return task


def assert_sound(of: Account) -> None:
    """Counters equal the rows, the buckets add up, and each final task ended once and holds nothing."""
    of = Account.objects.get(pk=of.pk)
    tasks = list(of.tasks.all())
    final = {task.pk for task in tasks if task.status in FINAL}
    ends = TaskEvent.objects.filter(task__account=of, type__in=[f"task.{status}" for status in FINAL])
    charges = Charge.objects.filter(account=of)
    assert of.running == sum(task.status == Status.RUNNING for task in tasks)
    assert of.pending == sum(task.status in UNFINISHED for task in tasks)
    assert sorted(ends.values_list("task_id", flat=True)) == sorted(final)
    assert not charges.filter(task_id__in=final).exclude(held=0).exists()
    assert of.granted == of.available + of.held + of.charged
    assert of.held == sum(charge.held for charge in charges)
    assert of.charged == sum(charge.charged - charge.refunded for charge in charges)
    assert of.account_seq == Transfer.objects.filter(account=of).count()


@contextmanager
def refused(code: str, by: str) -> Iterator[None]:
    """The database refuses with this error code, by the constraint or guard of this name; nothing is written."""
    with pytest.raises(DatabaseError) as caught, transaction.atomic():
        yield
    diag = caught.value.__cause__.diag
    assert (diag.sqlstate, diag.constraint_name) == (code, by)
