"""Callbacks: what is owed and to whom, what failed, each try as it was sent and answered, and sending it again."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.safestring import SafeString

from billing.admin.acts import Act, Acting, Declined, Done
from billing.admin.screens import Screen, Table, label, link, listing, preformatted, table, when
from tasks import callbacks
from tasks.admin.found import (
    CONTENT,
    FoundByTask,
    HidesContent,
    of_accounts,
    task_id_of,
    task_link,
)
from tasks.admin.sent import INLINE, Sent, curl, file_of, fingerprint, sent, signed
from tasks.admin.spans import span
from tasks.identifiers import parse_id
from tasks.models import Callback, CallbackAttempt, Receiver
from tasks.models.callback import ENDED_BADLY, OPEN, WAITING
from tasks.models.endpoint import EVENTS

PENDING, FAILED = Callback.Status.PENDING, Callback.Status.FAILED
COLOURS = {Callback.Status.DELIVERED: "success", FAILED: "danger", PENDING: "info"}
# Tries that a page shows in full.
SHOWN_TRIES = 10
# What a look for a host finds at most, of what is owed and of what failed.
FOUND = 200
AS_SENT = "For a machine of yours. Its time is that of the try: libraries refuse one that is five minutes old."
ANEW = "For a machine of yours. A check of its time passes, too. Reload the page for a newer one."
OWED, WAITS, BAD = "owed", "waiting", "failed"
ORDERS = {OWED: ("next_attempt_at", "id"), WAITS: ("waits_since", "id"), BAD: ("-failed_at", "-id")}
# The times that the home's numbers are counted by; due and owed are those that are still to be delivered.
TIMES = (
    span("due", "next try", "next_attempt_at", only=OPEN),
    span("owed", "event", "created_at", only=Q(status=PENDING)),
    span("delivered", "delivery", "delivered_at"),
    span("failed", "failure", "failed_at"),
)


class RedeliverThis(Act):
    name, title, permission, icon = "redeliver", "Redeliver", "tasks.redeliver_callback", "outgoing_mail"
    note = "Sends it at once: the same bytes under the same id, with ten fresh tries. A paused receiver is probed with "
    note += "it. Whoever has taken it before is sent it again."
    within = staticmethod(nullcontext)

    def suits(self, row: Callback) -> bool:
        return row.body != "" and not (row.endpoint and row.endpoint.deleted_at)

    def facts(self, rows: list[Callback]) -> Table:
        seen = (("Status", "status"), ("Tries so far", "attempt_count"), ("Next", next_try))
        return table("", rows, ("Callback", str), *seen, ("Last error", "last_error"))

    def perform(self, row: Callback, *, by: str, data: dict[str, Any]) -> Done:
        this = Callback.objects.filter(pk=row.pk)
        if not callbacks.redeliver_many(this, since=timezone.now(), by=by, reason=data["reason"]):
            raise Declined("its content was deleted, or somebody has just redelivered it.")
        return Done("Due again.")


def host_of(callback: Callback) -> str:
    """Whom it goes to: a list has no room for the whole address."""
    return callback.url.split("/")[2] if callback.url.count("/") > 1 else callback.url


def next_try(callback: Callback) -> str:
    """When it is sent next, or what keeps it."""
    if callback.status != PENDING:
        return ""
    if callback.lease_expires_at and callback.lease_expires_at > timezone.now():
        return "being sent"
    if callback.waits_for_id:
        return link("tasks_receiver", callback.waits_for_id, "when its receiver works again")
    due = callback.next_attempt_at
    return when(due) if due and due > timezone.now() else f"due since {when(due)}"


class Need(admin.SimpleListFilter):
    """What operators come for. Each has an index of its own, and an order."""

    title = "what"
    parameter_name = "need"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(OWED, "Owed, the next first"), (WAITS, "Waiting for a paused receiver"), (BAD, "Failed")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        asked = {OWED: OPEN, WAITS: WAITING, BAD: ENDED_BADLY}
        return queryset.filter(asked[self.value()]) if self.value() in asked else queryset


class Event(admin.SimpleListFilter):
    title = "event"
    parameter_name = "event"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(event, event) for event in EVENTS]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(event=self.value()) if self.value() in EVENTS else queryset


@admin.register(Callback)
class CallbackScreen(HidesContent, FoundByTask, Acting, Screen):
    change_form_outer_after_template = "admin/counterfoil/callback.html"
    heavy = ("body",)
    acts = (RedeliverThis(),)
    list_display = ("event", "state", "of_task", "account", "host", "tries", "next", "shown_error")
    list_filter = (Need, Event, *TIMES)
    list_select_related = ("account", "endpoint", "waits_for")
    linked = ("task", "account", "endpoint", "waits_for")
    search_help_text = "Task or callback id, account, or a host with what is owed to it or failed"
    fields = (
        ("event", "state", "of_task", "of_account"),
        ("url", "format", "of_endpoint"),
        ("attempt_count", "tries_left", "next", "waits_since"),
        ("created_at", "delivered_at", "last_error"),
    )

    def get_urls(self) -> list[URLPattern]:
        body = path("<uuid:pk>/body/", self.admin_site.admin_view(self.body), name="tasks_callback_body")
        return [body, *super().get_urls()]

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """The next first, where something is to come."""
        if "waits_for__id__exact" in request.GET:
            return ORDERS[OWED]
        return ORDERS.get(request.GET.get("need", ""), self.ordering)

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        term = search_term.strip().replace("\x00", "")
        return (_found(queryset, term, need=request.GET.get("need", "")) if term else queryset), False

    def body(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """The exact bytes, as a file."""
        if not (self.has_view_permission(request) and request.user.has_perm(CONTENT)):
            raise PermissionDenied
        callback = Callback.objects.filter(pk=pk).exclude(body="").first()
        if callback is None:
            raise Http404
        headers = {"content-disposition": f'attachment; filename="{file_of(callback)}"'}
        return HttpResponse(callback.body.encode(), content_type="application/octet-stream", headers=headers)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if callback := kwargs.get("obj"):
            context |= story(request, callback)
        return super().render_change_form(request, context, *args, **kwargs)

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

    @admin.display(description="tries")
    def tries(self, callback: Callback) -> int:
        return callback.attempt_count

    @admin.display(description="next try")
    def next(self, callback: Callback) -> str:
        return next_try(callback)

    @admin.display(description="host")
    def host(self, callback: Callback) -> str:
        return host_of(callback)

    @admin.display(description="last error")
    def shown_error(self, callback: Callback) -> str:
        return (callback.last_error or "")[:100]


def _found(queryset: QuerySet, term: str, *, need: str) -> QuerySet:
    if callback_id := parse_id(term.lower(), prefix="msg"):
        return queryset.filter(pk=callback_id)
    if task_id := task_id_of(term):
        return queryset.filter(Q(task_id=task_id) | Q(pk=task_id))
    host = _host(term)
    if host is None:
        return queryset.filter(of_accounts(term))
    if need == WAITS:
        receivers = Receiver.objects.filter(host=host).values_list("pk", flat=True)[:FOUND]
        return queryset.filter(waits_for__in=list(receivers))
    return queryset.filter(host=host) if need in (OWED, BAD) else queryset.filter(pk__in=_undelivered(host))


def _host(term: str) -> str | None:
    """The host and port of a URL, or what looks like one; an account's name has a space, or no dot and no colon."""
    authority = term.lower().partition("://")[2] or term.lower()
    authority = authority.split("/")[0].split("?")[0]
    looks = " " not in term and ("." in authority or ":" in authority)
    return authority if looks else None


def _undelivered(host: str) -> list[Any]:
    """What of a host is owed or failed, the newest, each looked for in its own index."""
    of_host = Callback.objects.filter(host=host).values_list("pk", flat=True)
    failed = of_host.filter(ENDED_BADLY).order_by("-failed_at")[:FOUND]
    return [*of_host.filter(OPEN).order_by("next_attempt_at")[:FOUND], *of_host.filter(WAITING)[:FOUND], *failed]


@dataclass(frozen=True)
class Command:
    """A command for a shell, and what is to be known of it."""

    title: str
    told: str
    text: str


@dataclass(frozen=True)
class Try:
    """A try as its page shows it: what was sent, what was answered."""

    attempt: CallbackAttempt
    state: SafeString
    sent: Sent
    answer: str


def a_try(request: HttpRequest, attempt: CallbackAttempt, callback: Callback) -> Try:
    """The answer's text is content, and shown to whoever may see that."""
    good = attempt.status_code is not None and 200 <= attempt.status_code < 300
    state = label(str(attempt.status_code or "no answer"), "success" if good else "danger")
    return Try(attempt, state, sent(attempt, callback), _answer(request, attempt))


def _answer(request: HttpRequest, attempt: CallbackAttempt) -> str:
    if attempt.status_code is None:
        return ""
    first = f"HTTP {attempt.status_code}"
    if not request.user.has_perm(CONTENT):
        return first
    return "\n".join(filter(None, [first, attempt.response_headers])) + (attempt.response and f"\n\n{attempt.response}")


def story(request: HttpRequest, callback: Callback) -> dict[str, Any]:
    """What a callback's page shows below its fields: its tries, its body and the commands that repeat it."""
    attempts = list(callback.attempts.order_by("-number")[:SHOWN_TRIES])
    tries = [a_try(request, attempt, callback) for attempt in attempts]
    more = listing("tasks_callbackattempt", callback__id=callback.pk) if callback.attempt_count > SHOWN_TRIES else ""
    return {"tries": tries, "all_tries": more, **_content(request, callback, attempts[:1])}


def _content(request: HttpRequest, callback: Callback, attempts: list[CallbackAttempt]) -> dict[str, Any]:
    """The body and its commands, for whoever may see content. Only whoever may redeliver is given a new signature."""
    if not request.user.has_perm(CONTENT):
        return {"may_view": False}
    shown: dict[str, Any] = {"may_view": True, "body": callback.body and preformatted(callback.body)}
    if not callback.body:
        return shown
    kept = next((attempt.request_headers for attempt in attempts if attempt.request_headers), None)
    commands = [Command("curl, as it was sent", AS_SENT, curl(callback, kept))] if kept else []
    if request.user.has_perm("tasks.redeliver_callback"):
        now = int(timezone.now().timestamp())
        commands.append(Command("curl, signed just now", ANEW, curl(callback, signed(callback, at=now))))
    in_file = file_of(callback) if len(callback.body) > INLINE else ""
    return shown | fingerprint(callback) | {"commands": commands, "in_file": in_file}


@admin.register(CallbackAttempt)
class CallbackAttemptScreen(FoundByTask, Screen):
    change_form_outer_after_template = "admin/counterfoil/callback.html"
    task_column = "callback__task_id"
    list_display = ("started_at", "of_task", "number", "status_code", "duration_ms", "host", "address", "error")
    list_select_related = ("callback",)
    linked = ("callback",)
    fields = (("started_at", "of_task", "number"), "of_callback", ("status_code", "duration_ms", "address"), "error")

    def for_list(self, queryset: QuerySet) -> QuerySet:
        hidden = ("response", "response_headers", "request_headers", "callback__body")
        return super().for_list(queryset).defer(*hidden)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if attempt := kwargs.get("obj"):
            callback = Callback.objects.select_related("account").get(pk=attempt.callback_id)
            context |= {"tries": [a_try(request, attempt, callback)], **_content(request, callback, [attempt])}
        return super().render_change_form(request, context, *args, **kwargs)

    @admin.display(description="callback")
    def of_callback(self, attempt: CallbackAttempt) -> str:
        return link("tasks_callback", attempt.callback_id, attempt.callback)

    @admin.display(description="task")
    def of_task(self, attempt: CallbackAttempt) -> str:
        return task_link(attempt.callback.task_id)

    @admin.display(description="host")
    def host(self, attempt: CallbackAttempt) -> str:
        return host_of(attempt.callback)
