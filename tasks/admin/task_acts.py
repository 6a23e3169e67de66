"""What is done to a task: each act calls one verb, which owns its transaction."""

from contextlib import nullcontext
from decimal import Decimal
from typing import Any

from django import forms
from django.db.models import Sum
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelectWidget

from billing.admin.account_acts import SMALLEST, CreditsField
from billing.admin.acts import Act, Declined, Done, ReasonForm
from billing.admin.once import keyed
from billing.admin.screens import Table, amount, table
from billing.models import Account, Charge, UsageLine
from tasks import callbacks, lifecycle
from tasks.exceptions import IllegalMove
from tasks.identifiers import public_id
from tasks.models import Task
from tasks.statuses import FINAL, Status
from tasks.submission import stored_key

NOT_CHARGED = Charge(held=Decimal(0), charged=Decimal(0), refunded=Decimal(0))


class TaskAct(Act):
    within = staticmethod(nullcontext)
    refusals = (*Act.refusals, IllegalMove)

    def facts(self, rows: list[Task]) -> Table:
        seen = [(name.capitalize(), name) for name in ("status", "model", "account")]
        return table("", rows, ("Task", str), *seen, ("Created", "created_at"))


class Cancel(TaskAct):
    name, title, permission, icon = "cancel", "Cancel task", "tasks.cancel_task", "cancel"
    variant = ActionVariant.DANGER
    note = "The task ends at once and its hold is released; only streamed output may be charged, where its "
    note += "deployment says so. The customer sees the reason."

    def suits(self, row: Task) -> bool:
        return row.status not in FINAL

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.cancel(row.pk, by=by, reason=data["reason"]):
            row.refresh_from_db(fields=["status"])
            raise Declined(f"it had already ended: {row.status}. Nothing changed.")
        return Done("Canceled.")


class Pause(TaskAct):
    name, title, permission, icon = "pause", "Pause task", "tasks.pause_task", "pause"
    note = "The task is not started until it is resumed. Its deadline stays."

    def suits(self, row: Task) -> bool:
        return row.status == Status.QUEUED and not row.paused_at

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.pause(row.pk, by=by, reason=data["reason"]):
            raise Declined("it is paused already.")
        return Done("Paused.")


class Resume(TaskAct):
    name, title, permission, icon = "resume", "Resume task", "tasks.pause_task", "play_arrow"
    note = "The task may be started again, in its order."

    def suits(self, row: Task) -> bool:
        return bool(row.paused_at)

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.resume(row.pk, by=by, reason=data["reason"]):
            raise Declined("it is not paused.")
        return Done("Resumed.")


class Rerun(TaskAct):
    name, title, permission, icon = "rerun", "Rerun task", "tasks.rerun_task", "replay"
    note = "Submits the task again as a new one, at today's prices: the account's credits are held and charged anew."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        key = stored_key("admin", "rerun", str(row.account_id), str(row.pk), str(data["key"]))
        again = lifecycle.rerun(
            row.pk, account_id=row.account_id, api_key_id=None, actor=by, idempotency_key=key, fingerprint=key
        )
        return Done(f"Submitted again as {public_id(again.task_id)}.")


class RerunFree(TaskAct):
    name, title, permission, icon = "rerun_free", "Rerun free of charge", "tasks.rerun_task", "redeem"
    note = "Submits the task again as a new one at our expense: nothing is held or charged, whatever it uses. "
    note += "A rerun of the new task is charged again."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        key = stored_key("admin", "rerun_free", str(row.account_id), str(row.pk), str(data["key"]))
        again = lifecycle.rerun_free(row.pk, by=by, reason=data["reason"], idempotency_key=key, fingerprint=key)
        return Done(f"Submitted again, free of charge, as {public_id(again.task_id)}.")


class RefundForm(ReasonForm):
    """All that is left, an amount, one line, or an amount of one line; several tasks only whole."""

    amount = CreditsField(required=False, min_value=SMALLEST, help_text="Empty: all that is left.")
    line = forms.ModelChoiceField(
        UsageLine.objects.none(),
        required=False,
        empty_label="The whole charge",
        widget=UnfoldAdminSelectWidget,
        help_text="A line gives back at most what it billed.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.rows) > 1:
            del self.fields["amount"], self.fields["line"]
            return
        self.fields["line"].queryset = UsageLine.objects.filter(task_id=self.rows[0].pk).order_by("position")
        self.fields["line"].label_from_instance = lambda line: f"{line}: {line.billed_amount:f} billed"


class Refund(TaskAct):
    name, title, permission, icon = "refund", "Refund", "billing.refund_charge", "undo"
    form = RefundForm
    note = "Gives credits back to the account. A refund never exceeds what was charged and not yet refunded."

    def suits(self, row: Any) -> bool:
        return row.charge is not None and row.charge.charged > row.charge.refunded

    def facts(self, rows: list[Task]) -> Table:
        """The balance after is that of all the rows above it refunded, too."""
        charges = Charge.objects.in_bulk([task.pk for task in rows])
        balances = {a.pk: a.available for a in Account.objects.filter(pk__in={task.account_id for task in rows})}
        shown = []
        for task in rows:
            charge = charges.get(task.pk, NOT_CHARGED)
            left, before = charge.charged - charge.refunded, balances[task.account_id]
            balances[task.account_id] += left
            numbers = [charge.charged, charge.refunded, left, before, before + left]
            shown.append([str(task), str(task.account), *map(amount, numbers)])
        headers = ["Task", "Account", "Charged", "Refunded", "Left", "Available now", "After all is refunded"]
        return Table("", headers, shown)

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        key = keyed("refund", data["key"], row.pk)
        line, wanted = data.get("line"), data.get("amount")
        if line and wanted is None:
            wanted = _left_of(line)
        given = lifecycle.refund(row.pk, wanted, line=line, key=key, reason=data["reason"], by=by)
        return Done(f"Refunded {given.amount:f}; {given.available_after:f} credits are available now.")


def _left_of(line: UsageLine) -> Decimal:
    refunded = line.refunds.aggregate(total=Sum("amount"))["total"] or Decimal(0)
    if line.billed_amount <= refunded:
        raise Declined(f"nothing is left of {line}.")
    return line.billed_amount - refunded


class Redeliver(TaskAct):
    name, title, permission, icon = "redeliver", "Redeliver callback", "tasks.redeliver_callback", "outgoing_mail"
    note = "Sends the callback again: the same bytes under the same id, with fresh tries."

    def suits(self, row: Task) -> bool:
        return row.status in FINAL and row.callback_url is not None

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        callbacks.redeliver(row.pk, by=by)
        return Done("Its callback is due again.")
