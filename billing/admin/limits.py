"""What an account is set to: its name and limits, changed by an act that says what was and what is."""

from decimal import Decimal
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from billing.admin.account_acts import MOST, AccountAct, CreditsField
from billing.admin.acts import Declined, Done, ReasonForm
from billing.admin.screens import Table, amount
from billing.models import Account, printable

MOST_AT_ONCE = 2**31 - 1
NONE = "none"


def _count(label: str, told: str) -> forms.IntegerField:
    return forms.IntegerField(
        label=label, min_value=0, max_value=MOST_AT_ONCE, help_text=told, widget=UnfoldAdminIntegerFieldWidget
    )


def _credits(label: str, told: str, **kwargs: Any) -> CreditsField:
    return CreditsField(label=label, min_value=0, max_value=MOST, help_text=told, **kwargs)


class LimitsForm(ReasonForm):
    """What one account is set to. Only what was changed on the page is written."""

    name = forms.CharField(max_length=200, validators=[printable], widget=UnfoldAdminTextInputWidget)
    requests_per_minute = _count("Requests a minute", "Of all its keys together.")
    pending_limit = _count("Unfinished tasks", "Queued and running together; one more is refused.")
    running_limit = _count("Running tasks", "More than these wait in the queue.")
    monthly_cap = _credits("Monthly cap", "Holds and charges allowed in a UTC month. Empty: no cap.", required=False)
    credit_limit = _credits("Credit limit", "How far below zero the available credits may fall.")
    low_balance_threshold = _credits(
        "Low balance below", "Fewer available credits are told to its webhook endpoints. Empty: never.", required=False
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in LIMITS:
            self.fields[name].initial = getattr(self.rows[0], name)
            self.fields[name].show_hidden_initial = True

    def clean(self) -> dict[str, Any]:
        """With `changes`: the label, what was seen and what is wanted of each field that was changed."""
        data = super().clean()
        changed = [name for name in LIMITS if name in self.changed_data and name in data]
        data["changes"] = {name: (self.fields[name].label or "Name", self._seen(name), data[name]) for name in changed}
        if not (data["changes"] or self.errors):
            raise forms.ValidationError("Nothing would change.")
        return data

    def _seen(self, name: str) -> Any:
        """What the page showed when it was served."""
        field = self[name]
        try:
            return field.field.to_python(field.field.widget.value_from_datadict(self.data, {}, field.html_initial_name))
        except forms.ValidationError:
            return None


LIMITS = [name for name in LimitsForm.base_fields if name not in ("key", "reason")]


class SetLimits(AccountAct):
    name, title, permission, icon = "set-limits", "Change limits", "billing.change_account", "tune"
    note = "Tasks that are accepted already stay so; a limit below what is in use refuses only what comes next."
    form = LimitsForm

    def facts(self, rows: list[Account]) -> Table:
        """What of the limits is used now."""
        shown = [
            [
                row.name,
                f"{row.running} of {row.running_limit}",
                f"{row.pending} of {row.pending_limit}",
                f"{amount(row.month_spent)} of {told(row.monthly_cap)}",
                amount(row.available),
            ]
            for row in rows
        ]
        return Table("", ["Account", "Running", "Unfinished", "Spent in its month", "Available"], shown)

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        now = Account.objects.select_for_update(no_key=True).get(pk=row.pk)
        moved = []
        for name, (label, seen, wanted) in data["changes"].items():
            before = getattr(now, name)
            if before not in (seen, wanted):
                raise Declined(f"{label} was changed to {told(before)} meanwhile. Nothing was changed; look again.")
            setattr(now, name, wanted)
            moved.append(f"{label}: {told(before)} → {told(wanted)}")
        now.save(update_fields=list(data["changes"]))
        return Done(f"{'; '.join(moved)}.")


def told(value: Any) -> str:
    """A setting in words."""
    if value is None:
        return NONE
    return amount(value) if isinstance(value, Decimal) else str(value)
