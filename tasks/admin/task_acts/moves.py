"""What is done to a task: each act calls one verb, which owns its transaction, and shows before what that will do."""

from contextlib import nullcontext
from decimal import Decimal
from typing import Any
from uuid import UUID

from django import forms
from django.db.models import QuerySet
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldBooleanWidget

from billing.admin.acts import Act, Declined, Done, ReasonForm, agreed
from billing.admin.screens import Table, amount, table, when
from billing.exceptions import Refusal
from billing.models import Account, Charge
from tasks import bills, callbacks, lifecycle, submission
from tasks.exceptions import IllegalMove, TaskNotFinal
from tasks.identifiers import public_id
from tasks.models import Artifact, Callback, Run, Task
from tasks.statuses import FINAL, Status
from tasks.submission import stored_key

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
        if not lifecycle.cancel(row.pk, by=by, reason=data["reason"]):
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
        if not lifecycle.pause(row.pk, by=by, reason=data["reason"]):
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
        if not lifecycle.resume(row.pk, by=by, reason=data["reason"]):
            raise Declined("it is not paused.")
        return Done("Resumed.")


class Rerun(TaskAct):
    name, title, permission, icon = "rerun", "Rerun task", "tasks.rerun_task", "replay"
    note = "Submits the task again as a new one, at today's prices: the account's credits are held and charged anew."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL

    def facts(self, rows: list[Task]) -> Table:
        """The balance after is that after the holds of all the rows above it, too."""
        quotes, accounts, shown = submission.requoted(rows), balances_of(rows), []
        left = {pk: account.available for pk, account in accounts.items()}
        for task in rows:
            quoted, before = quotes[task.pk], left[task.account_id]
            no = _why_not(quoted, before, accounts[task.account_id])
            after = before if no else before - quoted
            left[task.account_id] = after
            price = None if isinstance(quoted, Refusal) else quoted
            then = f"Refused: {no}" if no else f"A new task is queued and holds {amount(quoted)}."
            numbers = [task.quoted, price, before, after]
            shown.append([str(task), str(task.account), *map(amount, numbers), then])
        headers = ["Task", "Account", "Quoted then", "Quote today", "Available now", "Available after the hold", "Then"]
        return Table("", headers, shown)

    def seen(self, rows: list[Task]) -> dict[str, str]:
        quotes = submission.requoted(rows)
        return {str(pk): f"{quoted:f}" for pk, quoted in quotes.items() if isinstance(quoted, Decimal)}

    def hindrance(self, row: Task) -> str:
        account = Account.objects.get(pk=row.account_id)
        return _why_not(submission.requoted([row])[row.pk], account.available, account)

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        key = stored_key("admin", "rerun", str(row.account_id), str(row.pk), str(data["key"]))
        again = lifecycle.rerun(
            row.pk,
            account_id=row.account_id,
            api_key_id=None,
            actor=by,
            because=data["reason"],
            agreed=agreed(data["seen"]),
            idempotency_key=key,
            fingerprint=key,
        )
        return Done(f"Submitted again as {public_id(again.task_id)}.")


def _why_not(quoted: Decimal | Refusal, available: Decimal, account: Account) -> str:
    if isinstance(quoted, Refusal):
        return quoted.message
    short = available - quoted < -account.credit_limit
    return f"the available credits, {amount(available)}, do not cover the quote, {amount(quoted)}." if short else ""


class RerunFree(TaskAct):
    name, title, permission, icon = "rerun_free", "Rerun free of charge", "tasks.rerun_task", "redeem"
    note = "Submits the task again as a new one at our expense: nothing is held or charged, whatever it uses. "
    note += "A rerun of the new task is charged again."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL

    def facts(self, rows: list[Task]) -> Table:
        quotes = submission.requoted(rows)
        shown = [[str(task), str(task.account), *_at_our_expense(quotes[task.pk])] for task in rows]
        return Table("", ["Task", "Account", "Quote today", "Held and charged", "Then"], shown)

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        key = stored_key("admin", "rerun_free", str(row.account_id), str(row.pk), str(data["key"]))
        again = lifecycle.rerun_free(row.pk, by=by, reason=data["reason"], idempotency_key=key, fingerprint=key)
        return Done(f"Submitted again, free of charge, as {public_id(again.task_id)}.")


def _at_our_expense(quoted: Decimal | Refusal) -> list[str]:
    if isinstance(quoted, Refusal):
        return [amount(None), amount(None), f"Refused: {quoted.message}"]
    return [amount(quoted), amount(Decimal("0.0000")), "A new task is queued and costs the account nothing."]


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
        callbacks.redeliver(row.pk, by=by, reason=data["reason"])
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
        if not lifecycle.delete_content(row.pk, by=by, reason=data["reason"]):
            raise Declined("it was deleted before.")
        return Done("Deleted its content.")


def _files_of(rows: list[Task]) -> list[UUID]:
    return list(Artifact.objects.filter(task__in=rows, deleted_at=None).values_list("task_id", flat=True))


def _pending_of(rows: list[Task]) -> list[UUID]:
    owed = Callback.objects.filter(task__in=rows, status=Callback.Status.PENDING)
    return list(owed.values_list("task_id", flat=True))
