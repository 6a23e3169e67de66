"""Receivers that fail: since when they are paused, what waits for them, and what an operator may do about it."""

from contextlib import nullcontext
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.timezone import now

from billing.admin.acts import Act, Acting, Declined, Done
from billing.admin.screens import Screen, Table, label, link, listing, table, when
from tasks import callbacks
from tasks.admin.found import task_link
from tasks.models import Callback, Receiver


class ReceiverAct(Act):
    permission = "tasks.redeliver_callback"
    within = staticmethod(nullcontext)

    def facts(self, rows: list[Receiver]) -> Table:
        return table("", rows, ("Receiver", str), ("Account", "account"), ("Failures in a row", "failures"))


class Probe(ReceiverAct):
    name, title, icon = "probe", "Probe now", "network_ping"
    note = "One of the waiting callbacks is sent at once. If it is taken, all the others go out, too."

    def suits(self, row: Receiver) -> bool:
        return row.paused_at is not None

    def perform(self, row: Receiver, *, by: str, data: dict[str, Any]) -> Done:
        if not callbacks.probe(row.pk):
            raise Declined("it is not paused.")
        return Done("It is probed as soon as something waits for it.")


class RedeliverFailed(ReceiverAct):
    name, title, icon = "redeliver-failed", "Redeliver what failed", "outgoing_mail"
    note = "Every callback of this URL that ended as failed is sent again, with fresh tries."

    def perform(self, row: Receiver, *, by: str, data: dict[str, Any]) -> Done:
        owed = callbacks.redeliver_many(callbacks.failed_of(row), since=now(), by=by, reason=data["reason"])
        return Done(f"Due again: {owed} callbacks.")


@admin.register(Receiver)
class ReceiverScreen(Acting, Screen):
    acts = (Probe(), RedeliverFailed())
    list_display = ("shown_url", "account", "state", "failures", "last_failure_at", "paused_at", "next_probe_at")
    list_filter = (("paused_at", admin.EmptyFieldListFilter),)
    list_select_related = ("account",)
    linked = ("account",)
    search_fields = ("host",)
    search_help_text = "Host and port"
    fields = (
        ("url", "of_account", "state"),
        ("failures", "last_failure_at", "recovered_at"),
        ("paused_at", "probes", "next_probe_at"),
        "last_error",
    )

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        term = search_term.strip().lower().replace("\x00", "")
        return (queryset.filter(host=term) if term else queryset), False

    @admin.display(description="URL")
    def shown_url(self, receiver: Receiver) -> str:
        return receiver.url[:100]

    @admin.display(description="account")
    def of_account(self, receiver: Receiver) -> str:
        return link("billing_account", receiver.account_id, receiver.account)

    @admin.display(description="status")
    def state(self, receiver: Receiver) -> str:
        return label("paused", "danger") if receiver.paused_at else label("open", "success")

    def tables(self, request: HttpRequest, obj: Receiver) -> list[Table]:
        waiting = Callback.objects.filter(waits_for=obj).defer("body").order_by("next_attempt_at", "id")[:50]
        return [
            table(
                "Callbacks that wait for it",
                waiting,
                ("Callback", lambda callback: link("tasks_callback", callback.pk, callback.event)),
                ("Task", lambda callback: task_link(callback.task_id)),
                ("Since", lambda callback: when(callback.waits_since)),
                ("Tries left", "tries_left"),
                more=listing("tasks_callback", waits_for__id=obj.pk),
            )
        ]
