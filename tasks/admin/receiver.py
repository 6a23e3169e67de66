"""Receivers that fail: since when, how they answer, what is owed to them, and what an operator may do about it."""

from contextlib import nullcontext
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from django.http import HttpRequest
from django.utils import timezone

from billing.admin.acts import Act, Acting, Declined, Done
from billing.admin.screens import Screen, Table, label, link, listing, table, when
from tasks import callbacks
from tasks.admin.callback import next_try
from tasks.admin.found import task_link
from tasks.models import Callback, Receiver

# How far callbacks are counted: beyond, it says "more than".
MOST = 1000
WAITS = "SELECT count(*) FROM (SELECT FROM tasks_callback c WHERE c.waits_for_id = tasks_receiver.id LIMIT %s) waits"


def counted(queryset: QuerySet) -> str:
    """How many there are, up to a bound that any page can afford."""
    return _at_most(len(queryset.values_list("pk", flat=True)[: MOST + 1]))


def _at_most(found: int) -> str:
    return f"more than {MOST}" if found > MOST else str(found)


def waiting_for(receiver: Receiver) -> QuerySet:
    return Callback.objects.filter(waits_for=receiver)


class ReceiverAct(Act):
    permission = "tasks.redeliver_callback"
    within = staticmethod(nullcontext)

    def facts(self, rows: list[Receiver]) -> Table:
        return table(
            "",
            rows,
            ("Receiver", str),
            ("Account", "account"),
            ("Failures in a row", "failures"),
            ("Last error", "last_error"),
            ("Wait for it", lambda row: counted(waiting_for(row))),
            ("Owed beside", lambda row: counted(callbacks.owed_to(row))),
            ("Failed", lambda row: counted(callbacks.failed_of(row))),
        )


class Probe(ReceiverAct):
    name, title, icon = "probe", "Probe now", "network_ping"
    note = "One of the waiting callbacks is sent at once. If it is taken, all the others go out, too. If it is not, "
    note += "the receiver stays paused, and nothing that waits has used up a try."

    def suits(self, row: Receiver) -> bool:
        return row.paused_at is not None

    def perform(self, row: Receiver, *, by: str, data: dict[str, Any]) -> Done:
        if not callbacks.probe(row.pk):
            raise Declined("it is not paused.")
        return Done("It is probed as soon as something waits for it.")


class RetryOwed(ReceiverAct):
    name, title, icon = "retry-owed", "Retry what is owed now", "fast_forward"
    note = "Every callback of this URL that is to be tried again later is tried now, with fresh tries. What waits for "
    note += "a paused receiver goes on waiting: probe it."

    def suits(self, row: Receiver) -> bool:
        return row.failures > 0 and row.paused_at is None

    def perform(self, row: Receiver, *, by: str, data: dict[str, Any]) -> Done:
        owed = callbacks.redeliver_many(callbacks.owed_to(row), since=timezone.now(), by=by, reason=data["reason"])
        return Done(f"Due now: {owed} callbacks.")


class RedeliverFailed(ReceiverAct):
    name, title, icon = "redeliver-failed", "Redeliver what failed", "outgoing_mail"
    note = "Every callback of this URL that ended as failed is sent again, with fresh tries."

    def perform(self, row: Receiver, *, by: str, data: dict[str, Any]) -> Done:
        owed = callbacks.redeliver_many(callbacks.failed_of(row), since=timezone.now(), by=by, reason=data["reason"])
        return Done(f"Due again: {owed} callbacks.")


class Need(admin.SimpleListFilter):
    title = "what"
    parameter_name = "need"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("paused", "Paused"), ("failing", "Failing, not paused yet"), ("recovered", "Works again")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        asked = {
            "paused": {"paused_at__isnull": False},
            "failing": {"paused_at": None, "failures__gt": 0},
            "recovered": {"failures": 0},
        }
        return queryset.filter(**asked.get(self.value(), {}))


@admin.register(Receiver)
class ReceiverScreen(Acting, Screen):
    acts = (Probe(), RetryOwed(), RedeliverFailed())
    list_display = ("shown_url", "account", "state", "since", "failures", "waiting", "next_probe", "shown_error")
    list_filter = (Need,)
    list_select_related = ("account",)
    linked = ("account", "paused_at")
    search_fields = ("host",)
    search_help_text = "URL, or host and port"
    ordering = ("-last_failure_at",)
    fields = (
        ("url", "of_account", "state"),
        ("since", "failures", "last_failure_at", "recovered_at"),
        ("paused_at", "probes", "next_probe", "waiting"),
        "last_error",
    )

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        term = search_term.strip().lower().replace("\x00", "")
        host = (term.partition("://")[2] or term).split("/")[0].split("?")[0]
        return (queryset.filter(host=host) if host else queryset), False

    def for_list(self, queryset: QuerySet) -> QuerySet:
        return super().for_list(queryset).annotate(waits=RawSQL(WAITS, [MOST + 1]))  # noqa: S611 - ours

    @admin.display(description="URL")
    def shown_url(self, receiver: Receiver) -> str:
        return receiver.url[:100]

    @admin.display(description="account")
    def of_account(self, receiver: Receiver) -> str:
        return link("billing_account", receiver.account_id, receiver.account)

    @admin.display(description="status")
    def state(self, receiver: Receiver) -> str:
        if receiver.paused_at:
            return label("paused", "danger")
        return label("failing", "warning") if receiver.failures else label("works again", "success")

    @admin.display(description="failing since")
    def since(self, receiver: Receiver) -> str:
        """Failures that began before this was written down are known by their pause."""
        return when(receiver.failing_since or receiver.paused_at)

    @admin.display(description="wait for it")
    def waiting(self, receiver: Receiver) -> str:
        found = getattr(receiver, "waits", None)
        return counted(waiting_for(receiver)) if found is None else _at_most(found)

    @admin.display(description="next probe")
    def next_probe(self, receiver: Receiver) -> str:
        if not receiver.paused_at:
            return when(None)
        if receiver.probing_until and receiver.probing_until > timezone.now():
            return "under way"
        due = receiver.next_probe_at
        return "at once" if due and due <= timezone.now() else when(due)

    @admin.display(description="last error")
    def shown_error(self, receiver: Receiver) -> str:
        return (receiver.last_error or "")[:100]

    def tables(self, request: HttpRequest, obj: Receiver) -> list[Table]:
        waiting = waiting_for(obj).select_related("waits_for").defer("body").order_by("next_attempt_at", "id")[:50]
        more = listing("tasks_callback", waits_for__id=obj.pk)
        found = [
            _listed("Callbacks that wait for it", waiting, more),
            _listed("Owed beside, the next first", callbacks.owed_to(obj).order_by("next_attempt_at", "id")[:20]),
            _listed("Failed", callbacks.failed_of(obj)[:20]),
        ]
        return [each for each in found if each.rows]


def _listed(title: str, found: QuerySet, more: str = "") -> Table:
    return table(
        title,
        found.defer("body"),
        ("Callback", lambda callback: link("tasks_callback", callback.pk, callback.event)),
        ("Task", lambda callback: task_link(callback.task_id)),
        ("Tries so far", "attempt_count"),
        ("Tries left", "tries_left"),
        ("Next", next_try),
        ("Last error", "last_error"),
        more=more,
    )
