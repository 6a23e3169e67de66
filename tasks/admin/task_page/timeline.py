"""What happened to a task, on one timeline: moves, runs, money, callbacks and acts, the newest first.

Each kind of row is read by one statement that asks for MOST rows and one more. Where that one comes, the page ends with
the moment before it, whatever the other kinds still have: nothing is left out between two pages.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import F, Q, Sum, Window
from django.urls import NoReverseMatch, reverse
from django.utils.text import capfirst

from billing.admin.screens import compact, who
from billing.models import Transfer
from tasks.models import CallbackAttempt, Run, Task, TaskEvent

MOST = 50
# An act's rows are written within this time.
TOGETHER = timedelta(seconds=10)
TONES = {
    "succeeded": "success",
    "failed": "danger",
    "canceled": "warning",
    "delivered": "success",
    "exception": "warning",
}
EVENTS = {
    "task.succeeded": ("check_circle", "Succeeded"),
    "task.failed": ("error", "Failed"),
    "task.canceled": ("cancel", "Canceled"),
    "task.refunded": ("undo", "The refund was told"),
    "task.paused": ("pause", "Paused"),
    "task.resumed": ("play_arrow", "Resumed"),
    "task.priority_changed": ("low_priority", "Priority changed"),
    "task.deadline_extended": ("more_time", "Deadline extended"),
    "task.content_deleted": ("delete", "Content deleted"),
    "callback.delivered": ("mark_email_read", "Callback delivered"),
    "callback.failed": ("unsubscribe", "Callback failed"),
    "callback.redelivered": ("outgoing_mail", "Callback due again"),
}
MONEY = {
    "hold": ("lock", "Held"),
    "capture": ("payments", "Charged"),
    "release": ("lock_open", "Released"),
    "refund": ("undo", "Refunded"),
}


@dataclass(frozen=True)
class Entry:
    """One thing that happened. `rank` orders what has the same time: a move comes before what it moved."""

    at: datetime
    kind: str
    rank: tuple[int, int]
    icon: str
    title: str
    anchor: str
    url: str = ""
    by: str = ""
    told: tuple[str, ...] = ()
    tone: str = ""
    amount: Decimal | None = None
    after: Transfer | None = None
    answer: str = ""


@dataclass(frozen=True)
class Timeline:
    """The entries of a page, and until when the next one goes, where there is one."""

    entries: list[Entry]
    until: datetime | None


@dataclass
class Read:
    """Rows of each kind, and the latest moment of which some were left unread."""

    floor: datetime | None = None
    rows: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, name: str, rows: Iterable[Any], moment: Callable[[Any], datetime]) -> list[Any]:
        found = list(rows)
        if len(found) > MOST:
            last = moment(found.pop())
            self.floor = max(self.floor or last, last)
        self.rows[name] = found
        return found


def read(task: Task, *, answers: bool, until: datetime | None = None) -> Read:
    """The latest rows of each kind, up to a moment. What receivers answered is read only where `answers` says so."""
    read_ = Read()
    read_.add("events", _until(task.events.order_by("-seq"), until, "created_at"), lambda row: row.created_at)
    read_.add("runs", _runs(task, until), lambda run: run.resolved_at or run.started_at or run.scheduled_at)
    read_.add("transfers", _until(_transfers(task), until, "created_at"), lambda row: row.created_at)
    callbacks = task.callbacks.defer("body").select_related("waits_for").order_by("-created_at", "-id")
    read_.add("callbacks", _until(callbacks, until, "created_at"), lambda row: row.created_at)
    tries = CallbackAttempt.objects.filter(callback__task_id=task.pk).select_related("callback")
    tries = tries.defer("callback__body", *(() if answers else ("response",))).order_by("-started_at", "-id")
    read_.add("tries", _until(tries, until, "started_at"), lambda row: row.started_at)
    read_.add("history", _until(_history(task), until, "action_time"), lambda row: row.action_time)
    return read_


def timeline(read_: Read, *, answers: bool, money: bool, until: datetime | None = None) -> Timeline:
    """The rows as one story; without money, no credits are in it."""
    told = sorted(
        _entries(read_.rows, answers=answers, money=money), key=lambda entry: (entry.at, entry.rank), reverse=True
    )
    told = [entry for entry in told if until is None or entry.at <= until]
    shown = [entry for entry in told if read_.floor is None or entry.at > read_.floor]
    return Timeline(shown or told, read_.floor if shown else None)


def _until(rows: Any, until: datetime | None, column: str) -> Any:
    return (rows.filter(**{f"{column}__lte": until}) if until else rows)[: MOST + 1]


def _runs(task: Task, until: datetime | None) -> Any:
    runs = task.runs.defer("partial_text", "usage").order_by("-number")
    if until:
        runs = runs.filter(Q(started_at__lte=until) | Q(resolved_at__lte=until))
    return runs[: MOST + 1]


def _transfers(task: Task) -> Any:
    """Each with what all of the task's transfers of a kind add up to, however many there are."""
    sums = {
        f"all_{kind}": Window(Sum("amount", filter=Q(kind=kind)))
        for kind in (Transfer.Kind.HOLD, Transfer.Kind.CAPTURE, Transfer.Kind.RELEASE, Transfer.Kind.REFUND)
    }
    line = {"line_meter": F("usage_line__meter")}
    return Transfer.objects.filter(task_id=task.pk).annotate(**sums, **line).order_by("-account_seq")


def _history(task: Task) -> Any:
    of_tasks = ContentType.objects.get_for_model(Task)
    entries = LogEntry.objects.filter(content_type=of_tasks, object_id=str(task.pk))
    return entries.select_related("user").order_by("-action_time", "-id")


def _entries(rows: dict[str, list[Any]], *, answers: bool, money: bool) -> Iterator[Entry]:
    """What happened, each once: an act is told where it moved something, and a run's beginning by the run."""
    refunds = (row for row in rows["transfers"] if row.kind == Transfer.Kind.REFUND)
    refunded = [(who(row.actor), row.reason, row.created_at) for row in refunds]
    began = {run.number for run in rows["runs"] if run.started_at}
    for event in rows["events"]:
        told = _of(event)
        claimed = event.type == "task.running" and event.data.get("attempt") in began
        if not claimed and not (event.type == "task.refunded" and _among(told, refunded)):
            yield _event(event, money=money)
    for run in rows["runs"]:
        yield from _run(run)
    yield from map(_transfer, rows["transfers"] if money else [])
    yield from map(_owed, rows["callbacks"])
    yield from (_try(attempt, answers=answers) for attempt in rows["tries"])
    acts = [*refunded, *map(_of, rows["events"])]
    yield from (_act(entry) for entry in rows["history"] if not _among(_by(entry), acts))


def _of(event: TaskEvent) -> tuple[str, str, datetime]:
    """Who did it, why, and when."""
    return who(event.actor), _reason(event.data), event.created_at


def _by(entry: LogEntry) -> tuple[str, str, datetime]:
    return entry.user.get_username(), _said(entry)[1], entry.action_time


def _among(one: tuple[str, str, datetime], others: list[tuple[str, str, datetime]]) -> bool:
    """Whether the same act is told there: by the same, for the same reason, in its transaction or just after."""
    return any(one[:2] == other[:2] and abs(one[2] - other[2]) < TOGETHER for other in others)


def _reason(data: dict[str, Any]) -> str:
    reason = (data.get("private") or {}).get("reason") or data.get("reason")
    return reason if isinstance(reason, str) else ""


def _said(entry: LogEntry) -> tuple[str, str]:
    """What was done, and why."""
    told, found, reason = entry.get_change_message().partition(" Reason: ")
    return told.rstrip("."), reason if found else ""


def _event(event: TaskEvent, *, money: bool) -> Entry:
    data = {name: value for name, value in event.data.items() if money or not name.endswith("_credits")}
    reason = _reason(data)
    data.pop("private", None)
    if reason and data.get("reason") == reason:
        del data["reason"]
    error = data.get("error")
    if isinstance(error, dict):
        data["error"] = error.get("code")
    icon, title = EVENTS.get(event.type) or _named(event, data)
    told = compact({name.replace("_", " "): value for name, value in data.items()})
    return Entry(
        event.created_at,
        "callback" if event.type.startswith("callback.") else "move",
        (0, event.seq),
        icon,
        title,
        f"event-{event.pk}",
        _page("tasks_taskevent", event.pk),
        "" if event.actor == "system" else who(event.actor),
        (*((told,) if told else ()), *((f"Reason: {reason}",) if reason else ())),
        TONES.get(event.type.rpartition(".")[2], ""),
    )


def _named(event: TaskEvent, data: dict[str, Any]) -> tuple[str, str]:
    attempt = data.pop("attempt", None)
    if event.type == "task.running":
        return "play_arrow", f"Claimed for run {attempt}"
    if event.type != "task.queued":
        return "bolt", capfirst(event.type.replace(".", " ").replace("_", " "))
    return ("replay", f"Queued again, for run {attempt}") if attempt else ("add_circle", "Submitted")


def _run(run: Run) -> Iterator[Entry]:
    page = _page("tasks_run", run.pk)
    if run.started_at:
        yield Entry(
            run.started_at,
            "run",
            (1, run.number),
            "directions_run",
            f"Run {run.number} began",
            f"run-{run.number}",
            page,
            told=(f"{capfirst(run.reason_created)} run, on {run.worker or 'an unnamed worker'}",),
        )
    if run.resolved_at:
        took = (run.resolved_at - run.started_at).total_seconds() if run.started_at else None
        after = "unstarted" if took is None else f"after {seconds(took)}"
        yield Entry(
            run.resolved_at,
            "run",
            (-2, run.number),
            "sports_score",
            f"Run {run.number} ended {after}: {run.reason_resolved}",
            f"run-{run.number}-end",
            page,
            tone=TONES.get(run.status, ""),
        )


def _transfer(transfer: Any) -> Entry:
    icon, title = MONEY.get(transfer.kind, ("swap_horiz", capfirst(transfer.kind)))
    reason = (f"Reason: {transfer.reason}",) if transfer.reason else ()
    line = (f"of {transfer.line_meter}",) if transfer.line_meter else ()
    return Entry(
        transfer.created_at,
        "money",
        (2, transfer.account_seq),
        icon,
        title,
        f"transfer-{transfer.pk}",
        _page("billing_transfer", transfer.pk),
        "" if transfer.actor == "system" else who(transfer.actor),
        line + reason,
        amount=transfer.amount,
        after=transfer,
    )


def _owed(callback: Any) -> Entry:
    return Entry(
        callback.created_at,
        "callback",
        (3, 0),
        "schedule_send",
        f"Callback {callback.event} owed",
        f"callback-{callback.pk}",
        _page("tasks_callback", callback.pk),
        told=(f"to {'the endpoint ' if callback.endpoint_id else ''}{callback.url}", state_of(callback)),
        tone=TONES.get(callback.status, ""),
    )


def _try(attempt: CallbackAttempt, *, answers: bool) -> Entry:
    answered = str(attempt.status_code or "no answer")
    good = attempt.status_code is not None and 200 <= attempt.status_code < 300
    return Entry(
        attempt.started_at,
        "callback",
        (4, attempt.number),
        "outgoing_mail",
        f"Try {attempt.number} of {attempt.callback.event}: {answered} in {attempt.duration_ms} ms",
        f"try-{attempt.pk}",
        _page("tasks_callbackattempt", attempt.pk),
        told=(attempt.error,) if attempt.error else (),
        tone="success" if good else "danger",
        answer=attempt.response if answers else "",
    )


def _act(entry: LogEntry) -> Entry:
    title, reason = _said(entry)
    return Entry(
        entry.action_time,
        "act",
        (5, entry.pk),
        "person",
        title,
        f"history-{entry.pk}",
        reverse("admin:tasks_task_history", args=[entry.object_id]),
        entry.user.get_username(),
        (f"Reason: {reason}",) if reason else (),
    )


def state_of(callback: Any) -> str:
    """What became of a callback, in words."""
    if callback.status != callback.Status.PENDING:
        told = f": {callback.last_error}" if callback.status == callback.Status.FAILED else ""
        return f"{callback.status} after {_tries(callback.attempt_count)}{told}"
    if callback.waits_for_id:
        return "waits until its receiver works again"
    return f"owed: {_tries(callback.attempt_count)} made, {callback.tries_left} left"


def _tries(number: int) -> str:
    return f"{number} {'try' if number == 1 else 'tries'}"


def seconds(duration: float) -> str:
    """A duration that a person reads at a glance."""
    if duration < 1:
        return f"{max(0, round(duration * 1000))} ms"
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"


def _page(to: str, pk: Any) -> str:
    try:
        return reverse(f"admin:{to}_change", args=[pk])
    except NoReverseMatch:
        return ""
