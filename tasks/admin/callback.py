from contextlib import nullcontext
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.timezone import now

from billing.admin.acts import Act, Acting, Declined, Done
from billing.admin.screens import Screen, Table, label, link, listing, preformatted, table
from tasks import callbacks
from tasks.admin.found import FoundByTask, FoundByTaskOrAccount, HidesContent, of_content, task_link
from tasks.models import Callback, CallbackAttempt

COLOURS = {Callback.Status.DELIVERED: "success", Callback.Status.FAILED: "danger"}


class RedeliverThis(Act):
    name, title, permission, icon = "redeliver", "Redeliver", "tasks.redeliver_callback", "outgoing_mail"
    note = "Sends it again: the same bytes under the same id, with fresh tries."
    within = staticmethod(nullcontext)

    def suits(self, row: Callback) -> bool:
        return row.body != "" and not (row.endpoint and row.endpoint.deleted_at)

    def facts(self, rows: list[Callback]) -> Table:
        return table("", rows, ("Callback", str), ("Status", "status"), ("Last error", "last_error"))

    def perform(self, row: Callback, *, by: str, data: dict[str, Any]) -> Done:
        if not callbacks.redeliver_many(Callback.objects.filter(pk=row.pk), since=now(), by=by, reason=data["reason"]):
            raise Declined("its content was deleted, or somebody has just redelivered it.")
        return Done("Due again.")


def host_of(callback: Callback) -> str:
    """Whom it goes to: a list has no room for the whole address."""
    return callback.url.split("/")[2] if callback.url.count("/") > 1 else callback.url


@admin.register(Callback)
class CallbackScreen(HidesContent, FoundByTaskOrAccount, Acting, Screen):
    content = ("shown_body",)
    heavy = ("body",)
    acts = (RedeliverThis(),)
    list_display = ("event", "state", "of_task", "account", "attempt_count", "next_attempt_at", "host")
    list_filter = ("status",)
    list_select_related = ("account", "endpoint", "waits_for")
    linked = ("task", "account", "endpoint", "waits_for")
    fields = (
        ("event", "state", "of_task", "of_account"),
        ("url", "format", "of_endpoint"),
        ("attempt_count", "tries_left", "next_attempt_at", "of_receiver", "waits_since"),
        ("created_at", "delivered_at", "last_error"),
        "shown_body",
    )

    @admin.display(description="task")
    def of_task(self, callback: Callback) -> str:
        return task_link(callback.task_id)

    @admin.display(description="account")
    def of_account(self, callback: Callback) -> str:
        return link("billing_account", callback.account_id, callback.account)

    @admin.display(description="endpoint")
    def of_endpoint(self, callback: Callback) -> str:
        return link("tasks_webhookendpoint", callback.endpoint_id, "of the account")

    @admin.display(description="status")
    def state(self, callback: Callback) -> str:
        return label(callback.status, COLOURS.get(callback.status, ""))

    @admin.display(description="waits for")
    def of_receiver(self, callback: Callback) -> str:
        return link("tasks_receiver", callback.waits_for_id, callback.waits_for)

    @admin.display(description="host")
    def host(self, callback: Callback) -> str:
        return host_of(callback)

    @admin.display(description="body")
    def shown_body(self, callback: Callback) -> str:
        return preformatted(callback.body)

    def tables(self, request: HttpRequest, obj: Callback) -> list[Table]:
        tries = table(
            "Tries, the newest first",
            obj.attempts.order_by("-number")[:50],
            ("Time", "started_at"),
            ("No.", "number"),
            ("Status", "status_code"),
            ("Took", lambda attempt: f"{attempt.duration_ms} ms"),
            ("Error", "error"),
            *of_content(request, ("Answer", "response")),
            more=listing("tasks_callbackattempt", callback__id=obj.pk),
        )
        return [tries]


@admin.register(CallbackAttempt)
class CallbackAttemptScreen(HidesContent, FoundByTask, Screen):
    content = ("shown_answer",)
    task_column = "callback__task_id"
    list_display = ("started_at", "of_task", "number", "status_code", "duration_ms", "host", "error")
    list_select_related = ("callback",)
    linked = ("callback",)
    fields = (
        ("started_at", "of_task", "number"),
        "of_callback",
        ("status_code", "duration_ms", "error"),
        "shown_answer",
    )

    def for_list(self, queryset: QuerySet) -> QuerySet:
        return super().for_list(queryset).defer("response", "callback__body")

    @admin.display(description="callback")
    def of_callback(self, attempt: CallbackAttempt) -> str:
        return link("tasks_callback", attempt.callback_id, attempt.callback)

    @admin.display(description="task")
    def of_task(self, attempt: CallbackAttempt) -> str:
        return task_link(attempt.callback.task_id)

    @admin.display(description="host")
    def host(self, attempt: CallbackAttempt) -> str:
        return host_of(attempt.callback)

    @admin.display(description="answer")
    def shown_answer(self, attempt: CallbackAttempt) -> str:
        return preformatted(attempt.response)
