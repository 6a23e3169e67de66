"""What is done to a task: each act calls one verb, which owns its transaction, and shows before what that will do."""

from contextlib import nullcontext
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.db.models import QuerySet
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldBooleanWidget

from billing.admin.acts import Act, Declined, Done, ReasonForm
from billing.admin.once import keyed
from billing.admin.screens import Table, amount, table, when
from billing.models import Account, Charge
from tasks import bills, callbacks, lifecycle
from tasks.exceptions import IllegalMove, TaskNotFinal
from tasks.models import Artifact, Callback, Run, Task
from tasks.statuses import FINAL, Status

NOT_CHARGED = Charge(held=Decimal(0), charged=Decimal(0), refunded=Decimal(0))
NOTHING = "Nothing: "


class TaskAct(Act):
    within = staticmethod(nullcontext)
    refusals = (*Act.refusals, IllegalMove)

    def facts(self, rows: list[Task]) -> Table:
        return table("", rows, ("Task", str), ("Account", "account"), ("Status now", "status"), ("Then", self.then))

    def then(self, row: Task) -> str:
        """What the act will make of this task, in a sentence."""
        raise NotImplementedError

    def said(self, row: Task, *, by: str, data: dict[str, Any]) -> dict[str, str]:
        """What every verb is told: who, why, and the form's key, so that the form sent again finds what it did."""
        return {"by": by, "reason": data["reason"], "key": keyed(self.name, data["key"], row.pk)}


def charges_of(rows: list[Task]) -> dict[UUID, Charge]:
    found = Charge.objects.in_bulk([task.pk for task in rows])
    return {task.pk: found.get(task.pk, NOT_CHARGED) for task in rows}


def balances_of(rows: list[Task]) -> dict[UUID, Account]:
    return Account.objects.in_bulk({task.account_id for task in rows})


class Cancel(TaskAct):
    name, title, permission, icon = "cancel", "Cancel task", "tasks.cancel_task", "cancel"
    variant = ActionVariant.DANGER
    note = "The task ends at once and its hold is released; only streamed output may be charged, where its "
    note += "deployment says so. The customer sees the reason."

    def suits(self, row: Task) -> bool:
        return row.status not in FINAL

    def facts(self, rows: list[Task]) -> Table:
        charges, usage = charges_of(rows), _usage_of(rows)
        shown = []
        for task in rows:
            held = charges[task.pk].held
            due = bills.partial(task.quote, usage.get(task.pk, {}), held=held, waived=task.waived).charged
            money = [held, held - due, due] if task.status not in FINAL else [None] * 3
            shown.append([str(task), str(task.account), task.status, *map(amount, money), self.then(task)])
        headers = ["Task", "Account", "Status now", "Held", "Released", "Charged for what it streamed so far", "Then"]
        return Table("", headers, shown)

    def then(self, row: Task) -> str:
        if row.status in FINAL:
            return f"{NOTHING}it has ended."
        return "Its worker is stopped, and it is canceled." if row.status == Status.RUNNING else "It is canceled."

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.cancel(row.pk, **self.said(row, by=by, data=data)):
            row.refresh_from_db(fields=["status"])
            raise Declined(f"it had already ended: {row.status}. Nothing changed.")
        return Done("Canceled.")


def _usage_of(rows: list[Task]) -> dict[UUID, dict[str, str]]:
    """What the present runs have used so far."""
    running = {task.pk: task.attempt for task in rows if task.status == Status.RUNNING}
    runs = Run.objects.filter(task__in=running).only("task_id", "number", "usage")
    return {run.task_id: run.usage for run in runs if run.number == running[run.task_id]}


class Pause(TaskAct):
    name, title, permission, icon = "pause", "Pause task", "tasks.pause_task", "pause"
    note = "The task is not started until it is resumed. Its deadline stays."

    def suits(self, row: Task) -> bool:
        return row.status == Status.QUEUED and not row.paused_at

    def then(self, row: Task) -> str:
        if row.status != Status.QUEUED:
            return f"{NOTHING}it is not queued."
        last = f"It waits until it is resumed, and ends at its deadline, {when(row.deadline)}, whatever happens."
        return f"{NOTHING}it is paused already." if row.paused_at else last

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.pause(row.pk, **self.said(row, by=by, data=data)):
            raise Declined("it is paused already.")
        return Done("Paused.")


class Resume(TaskAct):
    name, title, permission, icon = "resume", "Resume task", "tasks.pause_task", "play_arrow"
    note = "The task may be started again, in its order."

    def suits(self, row: Task) -> bool:
        return bool(row.paused_at)

    def then(self, row: Task) -> str:
        if row.status != Status.QUEUED:
            return f"{NOTHING}it is not queued."
        return "It may be started again." if row.paused_at else f"{NOTHING}it is not paused."

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.resume(row.pk, **self.said(row, by=by, data=data)):
            raise Declined("it is not paused.")
        return Done("Resumed.")


class Redeliver(TaskAct):
    name, title, permission, icon = "redeliver", "Redeliver callback", "tasks.redeliver_callback", "outgoing_mail"
    note = "Sends the callback again: the same bytes under the same id, with fresh tries."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL and row.callback_url is not None

    def facts(self, rows: list[Task]) -> Table:
        owed = _callbacks_of(rows)
        return table(
            "",
            rows,
            ("Task", str),
            ("Account", "account"),
            ("To", "callback_url"),
            ("Callback now", lambda task: owed[task.pk].status if task.pk in owed else None),
            ("Tries so far", lambda task: owed[task.pk].attempt_count if task.pk in owed else None),
            ("Last error", lambda task: owed[task.pk].last_error if task.pk in owed else None),
            ("Then", lambda task: _sent_again(task, owed.get(task.pk))),
        )

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        callbacks.redeliver(row.pk, **self.said(row, by=by, data=data))
        return Done("Its callback is due again.")


def _callbacks_of(rows: list[Task]) -> dict[UUID, Callback]:
    """The callback of each task that has one; its newest, with what there is to send."""
    own: QuerySet[Callback] = Callback.objects.filter(task__in=rows, endpoint=None).exclude(body="").defer("body")
    return {callback.task_id: callback for callback in own.order_by("pk")}


def _sent_again(task: Task, callback: Callback | None) -> str:
    if task.status not in FINAL:
        return f"Refused: {TaskNotFinal.message}"
    return f"It is sent again, {callbacks.TRIES} tries at most." if callback else "Refused: The task has no callback."


class DeleteForm(ReasonForm):
    sure = forms.BooleanField(label="I know that nobody can bring it back.", widget=UnfoldBooleanWidget)


class DeleteContent(TaskAct):
    name, title, permission = "delete_content", "Delete content", "tasks.delete_content"
    icon, variant, form = "delete_forever", ActionVariant.DANGER, DeleteForm
    note = "Deletes for ever what was sent and made: input, output, streamed text, files, and the bodies of callbacks. "
    note += "Money, times and usage stay. It cannot be undone, and the task cannot be rerun."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL and row.content_deleted_at is None

    def facts(self, rows: list[Task]) -> Table:
        files, pending = _files_of(rows), _pending_of(rows)
        return table(
            "",
            rows,
            ("Task", str),
            ("Account", "account"),
            ("Status now", "status"),
            ("Files", lambda task: files.count(task.pk)),
            ("Callbacks that are not sent any more", lambda task: pending.count(task.pk)),
            ("Then", self.then),
        )

    def then(self, row: Task) -> str:
        if row.status not in FINAL:
            return f"Refused: {TaskNotFinal.message}"
        return f"{NOTHING}it is deleted already." if row.content_deleted_at else "Its content is gone for ever."

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.delete_content(row.pk, **self.said(row, by=by, data=data)):
            raise Declined("it was deleted before.")
        return Done("Deleted its content.")


def _files_of(rows: list[Task]) -> list[UUID]:
    return list(Artifact.objects.filter(task__in=rows, deleted_at=None).values_list("task_id", flat=True))


def _pending_of(rows: list[Task]) -> list[UUID]:
    owed = Callback.objects.filter(task__in=rows, status=Callback.Status.PENDING)
    return list(owed.values_list("task_id", flat=True))
