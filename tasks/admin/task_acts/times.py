"""Acts that change when a task runs and ends: its deadline and its priority."""

from datetime import datetime, timedelta
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSplitDateTimeWidget

from billing.admin.acts import Declined, Done, ReasonForm
from billing.admin.screens import Table, table, when
from billing.exceptions import ChangedSince
from tasks import lifecycle
from tasks.admin.task_acts.moves import NOTHING, TaskAct
from tasks.models import Task
from tasks.statuses import FINAL

A_YEAR = 366 * 24 * 60


class MoreTime(forms.Form):
    """More minutes, or a moment: one of them."""

    minutes = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=A_YEAR,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Minutes more than each task has now.",
    )
    until = forms.SplitDateTimeField(
        required=False, widget=UnfoldAdminSplitDateTimeWidget, help_text="Or a moment, in UTC."
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if not self.errors.keys() & {"minutes", "until"} and bool(data.get("minutes")) == bool(data.get("until")):
            self.add_error("minutes", "Give either minutes or a moment.")
        return data


class DeadlineForm(MoreTime, ReasonForm):
    pass


def later(deadline: datetime, data: dict[str, Any]) -> datetime | None:
    """The deadline that was asked for, if one was."""
    return deadline + timedelta(minutes=data["minutes"]) if data.get("minutes") else data.get("until")


class ExtendDeadline(TaskAct):
    name, title, permission, icon = "extend_deadline", "Extend deadline", "tasks.extend_deadline", "more_time"
    form, live = DeadlineForm, ("minutes", "until")
    note = "Gives the task more time. No task lives longer than its deployment's max_lifetime from its creation."

    def suits(self, row: Task) -> bool:
        return row.status not in FINAL

    def tables(self, rows: list[Task], data: dict[str, Any]) -> list[Table]:
        shown = table(
            "",
            rows,
            ("Task", str),
            ("Account", "account"),
            ("Status now", "status"),
            ("Deadline now", "deadline"),
            ("Deadline then", lambda task: later(task.deadline, data)),
            ("At most", _last),
            ("Then", lambda task: _extended(task, later(task.deadline, data))),
        )
        return [shown]

    def seen(self, rows: list[Task]) -> dict[str, str]:
        return {str(task.pk): task.deadline.isoformat() for task in rows}

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        """Minutes count from the deadline that was shown, so that a form sent twice gives them once."""
        seen = _shown(data["seen"])
        deadline = later(seen, data)
        lifecycle.extend_deadline(row.pk, deadline, seen=seen, **self.said(row, by=by, data=data))
        return Done(f"Its deadline is {when(deadline)} now; it was {when(seen)}.")


def _shown(seen: str | None) -> datetime:
    """The deadline that the page showed. Raises ChangedSince when it showed none."""
    try:
        shown = datetime.fromisoformat(seen or "")
    except ValueError as error:
        raise ChangedSince from error
    if shown.tzinfo is None:
        raise ChangedSince
    return shown


def _last(task: Task) -> datetime:
    return task.created_at + timedelta(seconds=task.deployment.max_lifetime)


def _extended(task: Task, deadline: datetime | None) -> str:
    if task.status in FINAL:
        return f"{NOTHING}it has ended."
    if deadline is None:
        return "Give minutes or a moment."
    if not task.deadline < deadline <= _last(task):
        return "Refused: the new deadline lies after the present one, and no later than is allowed."
    return f"It has {deadline - task.deadline} more."


class Priority(forms.Form):
    priority = forms.IntegerField(
        min_value=0, max_value=9, widget=UnfoldAdminIntegerFieldWidget, help_text="0 to 9; the highest goes first."
    )


class PriorityForm(Priority, ReasonForm):
    pass


class ChangePriority(TaskAct):
    name, title, permission, icon = "change_priority", "Change priority", "tasks.change_priority", "low_priority"
    form, live = PriorityForm, ("priority",)
    note = "Changes the task's place among those of its own account; it overtakes no other account."

    def suits(self, row: Task) -> bool:
        return row.status not in FINAL

    def tables(self, rows: list[Task], data: dict[str, Any]) -> list[Table]:
        shown = table(
            "",
            rows,
            ("Task", str),
            ("Account", "account"),
            ("Status now", "status"),
            ("Priority now", "priority"),
            ("Priority then", lambda task: data.get("priority")),
            ("Then", lambda task: _reordered(task, data.get("priority"))),
        )
        return [shown]

    def perform(self, row: Task, *, by: str, data: dict[str, Any]) -> Done:
        if not lifecycle.change_priority(row.pk, data["priority"], **self.said(row, by=by, data=data)):
            raise Declined(f"it has priority {data['priority']} already.")
        before = f"; it was {row.priority}" if row.priority != data["priority"] else ""
        return Done(f"Its priority is {data['priority']} now{before}.")


def _reordered(task: Task, priority: int | None) -> str:
    if task.status in FINAL:
        return f"{NOTHING}it has ended."
    if priority is None:
        return "Give a priority."
    if priority == task.priority:
        return f"{NOTHING}it has that priority."
    return "It goes before more of its account's tasks." if priority > task.priority else "It lets more of them pass."
