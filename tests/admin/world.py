"""One row of every model, with something in every text that a browser would run if it were not escaped."""

from types import SimpleNamespace

from django.contrib.auth.models import User
from django.utils import timezone

from billing.admin.reports import keep_report
from billing.models import AccountNote, ActReport, ApiKey, Charge, Price, RateCard, Transfer, UsageLine
from tasks import bulk, lifecycle
from tasks.models import (
    BulkAction,
    Callback,
    CallbackAttempt,
    Deployment,
    Receiver,
    Run,
    Task,
    TaskEvent,
    WebhookEndpoint,
)
from tasks.statuses import ErrorCode
from tests.builders import account, claim, deployment, key, submit

CANARY = '<script>alert("canary")</script>'
SECRET_INPUT, SECRET_OUTPUT, SECRET_TEXT = "what-they-asked", "what-they-got", "what-was-streamed"
OF_TASKS = (Task, Run, TaskEvent, Callback, CallbackAttempt, Receiver, WebhookEndpoint, Deployment)
EVERY = (*OF_TASKS, BulkAction, AccountNote, ApiKey, RateCard, Price, UsageLine, Transfer, Charge, ActReport)


def world() -> SimpleNamespace:
    """Two final tasks of one account, one of them with callbacks, tries, lines, a refund and a rerun."""
    owner = account("100", name=f"Acme {CANARY}", monthly_cap=50)
    issued, _ = key(owner, scopes=["tasks:read"])
    ApiKey.objects.filter(pk=issued.pk).update(name=f"key {CANARY}")
    to = deployment(prices=(("task", "1"), ("input_tokens", "2")), settings={"note": CANARY})
    _endpoint(owner)
    AccountNote.objects.create(account=owner, author=f"operator:{CANARY}", text=f"note {CANARY}")
    done = _succeeded(owner, to)
    failed = _failed(owner, to)
    lifecycle.refund(done.pk, 1, key="refund", reason=f"reason {CANARY}", by=f"operator:{CANARY}")
    lifecycle.rerun(done.pk, account_id=owner.pk, api_key_id=issued.pk, actor="operator:root")
    for task in (done, failed):
        task.refresh_from_db()
    _report(done)
    _bulk(done)
    return SimpleNamespace(account=owner, key=issued, deployment=to, done=done, failed=failed)


def _succeeded(owner, to) -> Task:
    task = submit(
        owner,
        to,
        input={"output": f"{SECRET_INPUT} {CANARY}", "bound": {"input_tokens": 10}},
        metadata={CANARY: CANARY},
        client_reference=f"ref {CANARY}",
        callback_url=f"https://example.com/{CANARY}",
    )
    claimed = claim(task, worker=f"worker {CANARY}")
    lifecycle.progress(claimed, percent=50, stage=f"stage {CANARY}", message=CANARY)
    lifecycle.publish(claimed, offset=0, text=f"{SECRET_TEXT} {CANARY}", usage={"input_tokens": 1})
    warning = {"code": "w", "message": CANARY, "field": None}
    output = {"got": f"{SECRET_OUTPUT} {CANARY}"}
    lifecycle.succeed(claimed, output=output, usage={"input_tokens": 3}, warnings=[warning])
    callback = task.callbacks.get(endpoint=None)
    Callback.objects.filter(pk=callback.pk).update(last_error=CANARY, attempt_count=1)
    CallbackAttempt.objects.create(
        callback=callback,
        number=1,
        started_at=timezone.now(),
        duration_ms=12,
        status_code=500,
        response=f"answer {SECRET_OUTPUT} {CANARY}",
        error=f"error {CANARY}",
    )
    Receiver.objects.create(
        account=owner,
        url=callback.url,
        failures=12,
        last_error=CANARY,
        last_failure_at=timezone.now(),
        paused_at=timezone.now(),
        next_probe_at=timezone.now(),
    )
    return task


def _report(task) -> None:
    """What became of a task that was acted on with others."""
    said = (str(task.pk), CANARY, "refused", CANARY)
    keep_report(CANARY, screen="tasks_task", actor=f"operator:{CANARY}", reason=CANARY, rows=[said])


def _bulk(task) -> None:
    """A refund of all that matched, of which one is told what it said."""
    who, _ = User.objects.get_or_create(
        username=f"who {CANARY}"[:150], defaults={"is_superuser": True, "is_staff": True}
    )
    chosen = Task.objects.filter(pk=task.pk)
    action = bulk.freeze(chosen, act="refund", data={}, operator=who, filters={"q": CANARY}, words=CANARY)
    BulkAction.objects.filter(pk=action.pk).update(
        status="stopped", reason=CANARY, started_at=timezone.now(), ended_at=timezone.now(), ended_by=CANARY
    )
    action.rows.update(outcome="refused", told=CANARY, acted_at=timezone.now())


def _endpoint(owner) -> None:
    """An endpoint that is told of refunds."""
    url, note = f"https://example.com/{CANARY}", f"note {CANARY}"
    WebhookEndpoint.objects.create(account=owner, url=url, events=["task.refunded"], description=note)


def _failed(owner, to) -> Task:
    task = submit(owner, to, input={"bound": {"input_tokens": 1}})
    lifecycle.fail(claim(task), code=ErrorCode.CAPABILITY_ERROR, message=f"failed {CANARY}")
    return task


def crowd(size: int) -> None:
    """Many more rows of every model, each with parents of its own, so that a query per row shows."""
    for number in range(size):
        owner = account("100", name=f"Account {number}")
        key(owner)
        to = deployment(queue="crowd")
        task = submit(owner, to, callback_url="https://example.com/")
        lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])
        CallbackAttempt.objects.create(
            callback=task.callbacks.get(), number=1, started_at=timezone.now(), duration_ms=1, status_code=200
        )
        Receiver.objects.create(account=owner, url="https://example.com/", last_failure_at=timezone.now())
        _report(task)
        _bulk(task)
        _endpoint(owner)
        AccountNote.objects.create(account=owner, author="operator:root", text="Pays late.")
