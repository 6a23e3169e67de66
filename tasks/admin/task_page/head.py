"""What an operator sees first: how the task is, why, whose it is, how long it took and what it cost."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.text import Truncator
from django.utils.timezone import now

from billing.admin.screens import when, who
from tasks.admin.task_page.timeline import seconds, state_of
from tasks.models import Callback, Task
from tasks.statuses import FINAL, ErrorCode, Status

COLOURS = {Status.SUCCEEDED: "success", Status.FAILED: "danger", Status.RUNNING: "info", Status.CANCELED: "warning"}
BECAUSE = {
    ErrorCode.CAPABILITY_ERROR: "The capability said no",
    ErrorCode.INVALID_INPUT: "The input could not be used",
    ErrorCode.UPSTREAM_ERROR: "The upstream service failed",
    ErrorCode.TIMEOUT: "A run took longer than it may",
    ErrorCode.EXPIRED: "It was not started in time",
    ErrorCode.DEADLINE_EXCEEDED: "Its deadline passed",
    ErrorCode.WORKER_LOST: "Its worker was lost",
    ErrorCode.DEPENDENCY_FAILED: "A task that it depends on failed",
    ErrorCode.INTERNAL_ERROR: "A fault of ours",
}
# Characters of a sentence that is read at a glance; a longer error has a place of its own.
SENTENCE = 300
CALLBACKS = {Callback.Status.DELIVERED: "success", Callback.Status.FAILED: "danger", Callback.Status.PENDING: "info"}


@dataclass(frozen=True)
class Head:
    """The state at a glance. `since` is when the run began that still goes on; `took` how long the last one took."""

    status: str
    tone: str
    sentence: str
    percent: float | None
    progress: str
    since: datetime | None
    took: str
    waited: str
    callback: str
    callback_tone: str
    others: str


def head(task: Task, rows: dict[str, list[Any]]) -> Head:
    """The head of this task's page, from its row and the latest rows of its timeline."""
    run = rows["runs"][0] if rows["runs"] else None
    own = next((callback for callback in rows["callbacks"] if callback.endpoint_id is None), None)
    told = [callback for callback in rows["callbacks"] if callback.endpoint_id]
    running = task.status == Status.RUNNING
    percent = task.progress.get("percent") if running else None
    said = [str(task.progress[name]) for name in ("stage", "message") if task.progress.get(name)]
    return Head(
        status="paused" if task.paused_at else task.status,
        tone="warning" if task.paused_at else COLOURS.get(task.status, ""),
        sentence=_sentence(task, run, rows["events"]),
        percent=percent,
        progress=": ".join(said) if running else "",
        since=run.started_at if running and run else None,
        took=_between(run.started_at, run.resolved_at) if run and not running else "",
        waited=_between(task.created_at, task.started_at),
        callback=_callback(task, own),
        callback_tone=CALLBACKS.get(own.status, "") if own else "",
        others=_others(told),
    )


def _sentence(task: Task, run: Any, events: list[Any]) -> str:
    match task.status:
        case Status.QUEUED:
            return _waiting(task)
        case Status.RUNNING:
            return f"Run {task.attempt} is at work on {run.worker or 'an unnamed worker'}." if run else "At work."
        case Status.SUCCEEDED:
            runs = "the first run" if task.attempt == 1 else f"run {task.attempt}"
            return f"It ended well in {runs}." + (" Its deployment's test answered in its place." if task.test else "")
        case Status.FAILED:
            return _because(task.error)
    by = next((event.actor for event in events if event.type == "task.canceled"), "")
    why = f": {task.cancel_reason}" if task.cancel_reason else ", for no reason that was given."
    return f"Canceled by {who(by) or 'somebody'}{why}"


def _because(error: dict[str, Any]) -> str:
    code = error.get("code")
    retryable = ", retryable" if error.get("retryable") else ""
    return Truncator(f"{BECAUSE.get(code, 'It failed')} ({code}{retryable}): {error.get('message')}").chars(SENTENCE)


def _waiting(task: Task) -> str:
    if task.paused_at:
        return f"Paused since {when(task.paused_at)}: it is not started until somebody resumes it."
    if task.deployment.drained_at:
        return f"Its deployment is drained since {when(task.deployment.drained_at)} and starts nothing."
    if task.blocked:
        return f"It waits for {task.blocked} other tasks."
    if task.available_at > now():
        why = "as it was asked" if task.attempt == 1 else f"for run {task.attempt}, after a back-off"
        return f"It may start at {when(task.available_at)}, {why}."
    return "It waits for a worker." if task.attempt == 1 else f"It waits for a worker, for run {task.attempt}."


def _between(begin: datetime | None, end: datetime | None) -> str:
    return seconds((end - begin).total_seconds()) if begin and end else ""


def _callback(task: Task, own: Any) -> str:
    if own:
        return state_of(own)
    if not task.callback_url:
        return "none was asked for"
    return "owed when it ends" if task.status not in FINAL else "not on this page"


def _others(told: list[Any]) -> str:
    if not told:
        return ""
    open_ = sum(callback.status == Callback.Status.PENDING for callback in told)
    failed = sum(callback.status == Callback.Status.FAILED for callback in told)
    return f"and {len(told)} to endpoints of the account: {open_} owed, {failed} failed"
