"""What an act on many tasks is told, and what starts it."""

from decimal import Decimal
from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminTextareaWidget,
    UnfoldBooleanWidget,
)

from tasks.admin.task_acts.times import MoreTime, Priority
from tasks.models import BulkAction


class Share(forms.Form):
    percent = forms.DecimalField(
        required=False,
        min_value=Decimal("0.0001"),
        max_value=Decimal(100),
        max_digits=7,
        decimal_places=4,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="A percentage of each charge. Empty: all that is left of it.",
    )


# What is asked beside the reason, by act; the others need nothing.
TOLD: dict[str, type[forms.Form]] = {"refund": Share, "extend_deadline": MoreTime, "change_priority": Priority}


def told(form: forms.Form) -> dict[str, Any]:
    """What was filled in, as JSON keeps it."""
    filled = {name: value for name, value in form.cleaned_data.items() if value is not None}
    return {name: _plain(value) for name, value in filled.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value:f}"
    return value.isoformat() if hasattr(value, "isoformat") else value


class EverythingForm(forms.Form):
    """Without a filter all tasks are meant, and somebody has to say so."""

    everything = forms.BooleanField(label="I mean all tasks, of every account.", widget=UnfoldBooleanWidget)


class StartForm(forms.Form):
    """Why, and the number of tasks, typed. The digest of what the page showed goes along."""

    seen = forms.CharField(max_length=32, widget=forms.HiddenInput)
    reason = forms.CharField(max_length=1000, widget=UnfoldAdminTextareaWidget({"rows": 2}))
    number = forms.IntegerField(min_value=0, widget=UnfoldAdminIntegerFieldWidget)

    def __init__(self, *args: Any, action: BulkAction, **kwargs: Any) -> None:
        super().__init__(*args, initial={"seen": action.digest}, **kwargs)
        self.fields["number"].label = f"Type {action.suited} to confirm"
