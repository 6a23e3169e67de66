from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import HttpRequest

from billing.admin.acts import Acting
from billing.admin.screens import Screen, Table, amount, compact, label, link, listing, pretty, table, when, yes_or_no
from billing.models import Charge, UsageLine
from tasks.admin.found import FoundByTaskOrAccount, HidesContent, of_accounts, of_content, task_id_of, task_link
from tasks.admin.task_acts import Cancel, DeleteContent, Pause, Redeliver, Rerun, RerunFree, Resume
from tasks.admin.task_refund import Refund
from tasks.admin.task_times import ChangePriority, ExtendDeadline
from tasks.models import CallbackAttempt, Task
from tasks.statuses import Status

COLOURS = {Status.SUCCEEDED: "success", Status.FAILED: "danger", Status.RUNNING: "info", Status.CANCELED: "warning"}


@admin.register(Task)
class TaskScreen(HidesContent, FoundByTaskOrAccount, Acting, Screen):
    acts = (
        Cancel(), Pause(), Resume(), ExtendDeadline(), ChangePriority(), Refund(), Redeliver(), Rerun(), RerunFree(),
        DeleteContent(),
    )  # fmt: skip
    content = ("shown_input", "shown_output")
    heavy = ("input", "output", "creation_request", "quote", "metadata", "warnings", "usage")
    list_display = ("public", "state", "model", "account", "quoted", "charged", "refunded", "created_at")
    list_filter = ("status", "deployment", "test")
    list_select_related = ("account", "api_key", "deployment")
    linked = ("account", "rerun_root")
    task_column = "pk"
    search_help_text = "Task id, client reference or account"
    fieldsets = (
        (None, {"fields": (
            ("public", "state", "of_account"),
            ("capability", "of_deployment", "resolved_model"),
            ("client_reference", "key", "shown_progress"),
            ("reruns", "cancel_reason", "is_test"),
        )}),
        ("Money", {"fields": (("money_quoted", "money_held", "money_charged", "money_refunded", "is_waived"),)}),
        ("Outcome", {"fields": (("shown_error", "shown_warnings"),)}),
        ("Content", {"fields": ("shown_metadata", "shown_input", "shown_output")}),
        ("Times", {"fields": (
            ("created_at", "started_at", "completed_at", "cancel_requested_at", "content_deleted_at"),
            ("not_before", "available_at", "paused_at", "expires_at", "deadline"),
        )}),
        ("Work", {"fields": (("queue", "priority", "attempt", "retries_left", "timeout", "blocked", "seq"),)}),
    )  # fmt: skip

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Task | None:
        """The task of this id, in any spelling, with its charge."""
        task = super().get_object(request, str(task_id_of(object_id) or object_id), from_field)
        if task is not None:
            task.charge = Charge.objects.filter(task_id=task.pk).first()
        return task

    def for_list(self, queryset: QuerySet) -> QuerySet:
        charge = Charge.objects.filter(task_id=OuterRef("pk"))
        amounts = {f"now_{name}": Subquery(charge.values(name)) for name in ("charged", "refunded")}
        return super().for_list(queryset).annotate(**amounts)

    def found_by_words(self, queryset: QuerySet, term: str) -> QuerySet:
        return queryset.filter(Q(client_reference=term) | of_accounts(term))

    @admin.display(description="task")
    def public(self, task: Task) -> str:
        return str(task)

    @admin.display(description="status")
    def state(self, task: Task) -> str:
        return label("paused", "warning") if task.paused_at else label(task.status, COLOURS.get(task.status, ""))

    @admin.display(description="charged")
    def charged(self, task: Any) -> str:
        return amount(task.now_charged)

    @admin.display(description="refunded")
    def refunded(self, task: Any) -> str:
        return amount(task.now_refunded or None)

    @admin.display(description="test")
    def is_test(self, task: Task) -> str:
        return yes_or_no(task.test)

    @admin.display(description="waived")
    def is_waived(self, task: Task) -> str:
        return yes_or_no(task.waived)

    @admin.display(description="account")
    def of_account(self, task: Task) -> str:
        return link("billing_account", task.account_id, task.account)

    @admin.display(description="deployment")
    def of_deployment(self, task: Task) -> str:
        return link("tasks_deployment", task.deployment_id, task.deployment)

    @admin.display(description="API key")
    def key(self, task: Task) -> str:
        return link("billing_apikey", task.api_key_id, task.api_key)

    @admin.display(description="rerun of")
    def reruns(self, task: Task) -> str:
        return task_link(task.rerun_of_id)

    @admin.display(description="metadata")
    def shown_metadata(self, task: Task) -> str:
        return pretty(task.metadata or None)

    @admin.display(description="progress")
    def shown_progress(self, task: Task) -> str:
        return compact({name: value for name, value in task.progress.items() if value is not None})

    @admin.display(description="error")
    def shown_error(self, task: Task) -> str:
        return pretty(task.error)

    @admin.display(description="warnings")
    def shown_warnings(self, task: Task) -> str:
        return pretty(task.warnings or None)

    @admin.display(description="quoted")
    def money_quoted(self, task: Task) -> str:
        return amount(task.quoted)

    @admin.display(description="held")
    def money_held(self, task: Any) -> str:
        return amount(task.charge and task.charge.held)

    @admin.display(description="charged")
    def money_charged(self, task: Any) -> str:
        return amount(task.charge and task.charge.charged)

    @admin.display(description="refunded")
    def money_refunded(self, task: Any) -> str:
        return amount(task.charge and task.charge.refunded)

    @admin.display(description="input")
    def shown_input(self, task: Task) -> str:
        return pretty(task.input)

    @admin.display(description="output")
    def shown_output(self, task: Task) -> str:
        return pretty(task.output)

    def tables(self, request: HttpRequest, obj: Task) -> list[Table]:
        return [_lines(obj), _runs(obj), _events(obj), *_callbacks(obj, request), *_reruns(obj)]


def _lines(task: Task) -> Table:
    return table(
        "Usage lines",
        UsageLine.objects.filter(task_id=task.pk).select_related("price").order_by("position"),
        ("Meter", lambda line: link("billing_usageline", line.pk, line.meter)),
        ("Quantity", lambda line: f"{line.quantity.normalize():f} {line.unit}"),
        ("Measured", lambda line: "estimated" if line.estimated else "as reported"),
        ("Price", "price"),
        ("Listed", "listed_amount"),
        ("Billed", "billed_amount"),
        ("USD", "usd_reference"),
    )


def _runs(task: Task) -> Table:
    return table(
        "Runs",
        task.runs.defer("partial_text").order_by("-number")[:50],
        ("Run", lambda run: link("tasks_run", run.pk, run.number)),
        ("Status", "status"),
        ("Created for", "reason_created"),
        ("Resolved by", "reason_resolved"),
        ("Worker", "worker"),
        ("Scheduled", "scheduled_at"),
        ("Started", "started_at"),
        ("Resolved", "resolved_at"),
    )


def _events(task: Task) -> Table:
    return table(
        "Events, the newest first",
        task.events.order_by("-seq")[:200],
        ("Time", "created_at"),
        ("Seq", "seq"),
        ("Event", "type"),
        ("By", "actor"),
        ("Data", lambda event: compact(event.data)),
        more=listing("tasks_taskevent", task__id=task.pk),
    )


def _callbacks(task: Task, request: HttpRequest) -> list[Table]:
    callbacks = list(task.callbacks.defer("body").order_by("-id")[:20])
    owed = table(
        "Callbacks",
        callbacks,
        ("Event", lambda callback: link("tasks_callback", callback.pk, callback.event)),
        ("URL", "url"),
        ("Status", "status"),
        ("Tries", "attempt_count"),
        ("Left", "tries_left"),
        ("Next", "next_attempt_at"),
        ("Last error", "last_error"),
    )
    made = table(
        "Tries at callbacks, the newest first",
        CallbackAttempt.objects.filter(callback__in=callbacks).order_by("-id")[:50],
        ("Time", lambda attempt: link("tasks_callbackattempt", attempt.pk, when(attempt.started_at))),
        ("No.", "number"),
        ("Status", "status_code"),
        ("Took", lambda attempt: f"{attempt.duration_ms} ms"),
        ("Error", "error"),
        *of_content(request, ("Answer", "response")),
    )
    return [owed, made] if callbacks else []


def _reruns(task: Task) -> list[Table]:
    reruns = table(
        "Reruns",
        task.reruns.order_by("-id").only("id", "status", "created_at")[:20],
        ("Task", lambda rerun: task_link(rerun.pk)),
        ("Status", "status"),
        ("Created", "created_at"),
    )
    return [reruns] if reruns.rows else []
