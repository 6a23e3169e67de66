"""Refunds of one task or some: whole, an amount, a line; with the balance before and after for what is typed."""

from decimal import Decimal
from typing import Any

from django import forms
from django.db.models import Sum
from unfold.widgets import UnfoldAdminSelectWidget

from billing.admin.account_acts import SMALLEST, CreditsField
from billing.admin.acts import Declined, Done, ReasonForm, agreed
from billing.admin.once import keyed
from billing.admin.screens import Table, amount, table
from billing.models import Charge, Transfer, UsageLine
from tasks import lifecycle
from tasks.admin.task_acts.moves import TaskAct, balances_of, charges_of
from tasks.models import Task


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
        self.fields["line"].label_from_instance = lambda line: f"{line}: {amount(line.billed_amount)} billed"


class Refund(TaskAct):
    name, title, permission, icon = "refund", "Refund", "billing.refund_charge", "undo"
    form, live = RefundForm, ("amount", "line")
    note = "Gives credits back to the account. A refund never exceeds what was charged and not yet refunded."

    def suits(self, row: Any) -> bool:
        return row.charge is not None and row.charge.charged > row.charge.refunded

    def tables(self, rows: list[Task], data: dict[str, Any]) -> list[Table]:
        lines = [_lines(rows[0])] if len(rows) == 1 else []
        return [self._balances(rows, data), *lines]

    def _balances(self, rows: list[Task], data: dict[str, Any]) -> Table:
        """The balance after is that of all the rows above it refunded, too."""
        charges = charges_of(rows)
        balances = {pk: account.available for pk, account in balances_of(rows).items()}
        shown = []
        for task in rows:
            charge, before = charges[task.pk], balances[task.account_id]
            left = charge.charged - charge.refunded
            given, no = _wanted(charge, data)
            balances[task.account_id] += given
            numbers = [charge.charged, charge.refunded, left, given, before, before + given]
            then = f"Refused: {no}" if no else "The account gets it back."
            shown.append([str(task), str(task.account), *map(amount, numbers), then])
        headers = ["Task", "Account", "Charged", "Refunded", "Left", "This refund", "Available now"]
        return Table("", [*headers, "Available after", "Then"], shown)

    def seen(self, rows: list[Task]) -> dict[str, str]:
        return {str(pk): f"{charge.charged - charge.refunded:f}" for pk, charge in charges_of(rows).items()}

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        key = keyed("refund", data["key"], row.pk)
        line, wanted = data.get("line"), data.get("amount")
        if line and wanted is None:
            wanted = _given_by(key) or _left_of(line) or _declined(f"nothing is left of {line}.")
        seen = agreed(data["seen"])
        given = lifecycle.refund(row.pk, wanted, line=line, key=key, reason=data["reason"], by=by, seen=seen)
        return Done(f"Refunded {amount(given.amount)}; {amount(given.available_after)} credits are available now.")


def _wanted(charge: Charge, data: dict[str, Any]) -> tuple[Decimal, str]:
    """What this would give back, or nothing and why."""
    line, left = data.get("line"), charge.charged - charge.refunded
    most = min(left, _left_of(line)) if line else left
    wanted = (data.get("amount") or most).quantize(SMALLEST)
    if not charge.charged:
        return Decimal("0.0000"), "Nothing was charged, so nothing can be refunded."
    if not most:
        return Decimal("0.0000"), f"nothing is left of {line or 'the charge'}."
    if wanted > most:
        return Decimal("0.0000"), f"only {amount(most)} is left of {line or 'the charge'}."
    return wanted, ""


def _left_of(line: UsageLine) -> Decimal:
    """What this line may still give back: no more than is left of the charge, either."""
    charge = Charge.objects.get(task_id=line.task_id)
    refunded = line.refunds.aggregate(total=Sum("amount"))["total"] or Decimal(0)
    return min(line.billed_amount - refunded, charge.charged - charge.refunded)


def _given_by(key: str) -> Decimal | None:
    """What this form has given back already, if it was sent before."""
    return Transfer.objects.filter(key=key).values_list("amount", flat=True).first()


def _declined(why: str) -> Decimal:
    raise Declined(why)


def _lines(task: Task) -> Table:
    billed = UsageLine.objects.filter(task_id=task.pk).annotate(
        refunded=Sum("refunds__amount", default=Decimal("0.0000"))
    )
    return table(
        "Its lines",
        billed.order_by("position"),
        ("Line", str),
        ("Billed", "billed_amount"),
        ("Refunded by line", "refunded"),
        ("Left of the line", lambda line: line.billed_amount - line.refunded),
    )
