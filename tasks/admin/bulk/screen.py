"""Many at once, for operators: choose, look at what would happen, start, watch, stop, read what became of each."""

import csv
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import DataError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.formats import localize

from billing.admin.acts import Act
from billing.admin.screens import Screen, Table, amount, label, when
from billing.exceptions import Refusal
from billing.spreadsheets import MARK, Echo, harmless
from tasks import bulk
from tasks.admin.bulk.forms import TOLD, EverythingForm, StartForm, told
from tasks.admin.bulk.words import (
    COLOURS,
    data_in_words,
    faults_in,
    filters_in,
    in_words,
    moved_in_words,
    progress_in_words,
)
from tasks.admin.found import task_link
from tasks.admin.task import TaskScreen
from tasks.admin.task_list.filters import matching
from tasks.foretelling import FORETELLINGS
from tasks.identifiers import public_id
from tasks.models import BulkAction, BulkActionRow

PAGE = 50
TITLES: dict[str, Act] = {act.name: act for act in TaskScreen.acts}
SHOWN = {"done": {"outcome": "done"}, "refused": {"outcome": "refused"}, "left": {"outcome": ""}}
HEADERS = ("number", "task", "outcome", "what happened", "credits", "time", "foretold refusal")


@admin.register(BulkAction)
class BulkActionScreen(Screen):
    list_display = ("created_at", "what", "operator", "chosen_in_words", "state", "progress", "moves", "reason")
    list_display_links = ("created_at", "what")
    list_filter = ("status", "act")
    list_select_related = ("operator",)

    def get_urls(self) -> list[URLPattern]:
        def page(route: str, view: Any, name: str) -> URLPattern:
            return path(route, self.admin_site.admin_view(view), name=f"tasks_bulkaction_{name}")

        return [
            page("begin/", self.begin, "begin"),
            page("<uuid:pk>/start/", self.start, "start"),
            page("<uuid:pk>/look/", self.look, "look"),
            page("<uuid:pk>/abort/", self.abort, "abort"),
            page("<uuid:pk>/again/", self.again, "again"),
            page("<uuid:pk>/progress/", self.progress_part, "progress"),
            page("<uuid:pk>/rows.csv", self.rows_csv, "csv"),
            *super().get_urls(),
        ]

    @admin.display(description="act")
    def what(self, action: BulkAction) -> str:
        return title_of(action)

    @admin.display(description="tasks")
    def chosen_in_words(self, action: BulkAction) -> str:
        return action.words

    @admin.display(description="status")
    def state(self, action: BulkAction) -> str:
        return label(action.status, COLOURS[action.status])

    @admin.display(description="progress")
    def progress(self, action: BulkAction) -> str:
        return progress_in_words(action)

    @admin.display(description="credits")
    def moves(self, action: BulkAction) -> str:
        return moved_in_words(action, action.moved) if action.started_at else ""

    def begin(self, request: HttpRequest) -> HttpResponse:
        """Choose an act for all that match the address's filter, and freeze them."""
        offered = [act for name, act in TITLES.items() if bulk.may(request.user, name)]
        if not (offered and self.has_view_permission(request)):
            raise PermissionDenied
        filters, faults = filters_in(request.GET), faults_in(request.GET)
        sent = request.POST if request.method == "POST" else None
        everything = None if filters or faults else EverythingForm(sent)
        act = next((act for act in offered if act.name == request.GET.get("act")), None)
        form = TOLD[act.name](sent) if act and act.name in TOLD else None
        filled = sent is not None and all(each.is_valid() for each in (form, everything) if each)
        if act and filled and not faults:
            return self._frozen(request, act, filters, told(form) if form else {})
        return self._page(
            request,
            "bulk_begin.html",
            title=f"{act.title}: all that match" if act else "All that match",
            words=in_words(filters),
            faults=faults,
            everything=everything,
            acts=[(each, f"?{urlencode({**filters, 'act': each.name})}") for each in offered],
            act=act,
            form=form,
            most=bulk.MOST,
            others=f"?{urlencode(filters)}",
            back=reverse("admin:tasks_task_changelist"),
        )

    def _frozen(self, request: HttpRequest, act: Act, filters: dict[str, str], data: dict[str, Any]) -> HttpResponse:
        try:
            action = bulk.freeze(
                matching(filters),
                act=act.name,
                data=data,
                operator=request.user,
                filters=filters,
                words=in_words(filters),
            )
        except DataError:
            messages.error(request, "A number is too large.")
            return HttpResponseRedirect(request.get_full_path())
        return self._to(action.pk)

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "GET":
            raise PermissionDenied
        return self._shown(request, self._action(request, object_id))

    def _shown(self, request: HttpRequest, action: BulkAction, form: StartForm | None = None) -> TemplateResponse:
        allowed = bulk.may(request.user, action.act)
        return self._page(
            request,
            "bulk.html",
            title=title_of(action),
            original=action,
            act=TITLES[action.act],
            allowed=allowed,
            form=form or StartForm(action=action),
            would=_would(action),
            told=data_in_words(action),
            retries=action.retries.order_by("pk"),
            missed=action.status in ("aborted", "stopped", "done") and action.done < action.total,
            **_rows(action, request),
            **_progress(action),
        )

    def start(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        action = self._asked(request, pk)
        form = StartForm(request.POST, action=action)
        if not form.is_valid():
            return self._shown(request, action, form)
        said = form.cleaned_data
        try:
            bulk.start(pk, operator=request.user, reason=said["reason"], number=said["number"], seen=said["seen"])
        except Refusal as refusal:
            messages.error(request, str(refusal))
            return self._to(pk)
        self.log_change(request, action, f"Started for {said['number']} tasks. Reason: {said['reason']}")
        return self._to(pk)

    def look(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        bulk.look(self._asked(request, pk).pk)
        return self._to(pk)

    def abort(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        action = self._asked(request, pk)
        if bulk.abort(pk, by=f"operator:{request.user.get_username()}"):
            self.log_change(request, action, "Aborted.")
        else:
            messages.info(request, "It was over already.")
        return self._to(pk)

    def again(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        try:
            return self._to(bulk.again(self._asked(request, pk), operator=request.user).pk)
        except Refusal as refusal:
            messages.error(request, str(refusal))
            return self._to(pk)

    def progress_part(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """What moves while it runs; a page whose action is over is loaded anew, once."""
        action = self._action(request, str(pk))
        answer = self._page(request, "bulk_progress.html", original=action, **_progress(action))
        if action.status != BulkAction.Status.RUNNING:
            answer["HX-Refresh"] = "true"
        return answer

    def rows_csv(self, request: HttpRequest, pk: UUID) -> StreamingHttpResponse:
        action = self._action(request, str(pk))
        answer = StreamingHttpResponse(csv_of(action), content_type="text/csv; charset=utf-8")
        answer["Content-Disposition"] = f'attachment; filename="{action.act}-{action.pk}.csv"'
        return answer

    def _asked(self, request: HttpRequest, pk: UUID) -> BulkAction:
        """The action that somebody who may do it says something about."""
        if request.method != "POST":
            raise PermissionDenied
        action = self._action(request, str(pk))
        if not bulk.may(request.user, action.act):
            raise PermissionDenied
        return action

    def _action(self, request: HttpRequest, pk: str) -> BulkAction:
        if not self.has_view_permission(request):
            raise PermissionDenied
        action = self.get_object(request, pk)
        if action is None:
            raise Http404
        return action

    def _to(self, pk: UUID) -> HttpResponseRedirect:
        return HttpResponseRedirect(reverse("admin:tasks_bulkaction_change", args=[pk]))

    def _page(self, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
        base = {**self.admin_site.each_context(request), "opts": self.opts, "is_popup": False}
        return TemplateResponse(request, f"admin/counterfoil/{template}", base | context)


def title_of(action: BulkAction) -> str:
    return f"{TITLES[action.act].title}: {localize(action.total)} task{'' if action.total == 1 else 's'}"


def _would(action: BulkAction) -> Table:
    """What would happen, in counts."""
    most = "up to " if FORETELLINGS[action.act].varies else ""
    credits_ = f"{most}{moved}" if (moved := moved_in_words(action, action.credits)) else ""
    accounts = f"of {localize(action.accounts)} account{'' if action.accounts == 1 else 's'}"
    rows = [[label("will be done", "success"), localize(action.suited), ", ".join(filter(None, [accounts, credits_]))]]
    refused = [[label("will be refused", "danger"), localize(each["tasks"]), each["why"]] for each in action.foretold]
    return Table("", ["What will happen", "Tasks", "Which"], rows + refused)


def _progress(action: BulkAction) -> dict[str, Any]:
    return {
        "progress": progress_in_words(action),
        "moved": moved_in_words(action, action.moved),
        "state": label(action.status, COLOURS[action.status]),
        "going": action.status == BulkAction.Status.RUNNING,
        "acted": action.done + action.refused,
    }


def _rows(action: BulkAction, request: HttpRequest) -> dict[str, Any]:
    """A page of the rows, of one outcome or all."""
    outcome, after = request.GET.get("outcome", ""), request.GET.get("after", "")
    after = after if after.isdecimal() and len(after) < 10 else "0"
    rows = action.rows.filter(number__gt=int(after), **SHOWN.get(outcome, {})).order_by("number")
    shown = list(rows[: PAGE + 1])
    more = f"?{urlencode({'outcome': outcome, 'after': shown[PAGE - 1].number})}" if len(shown) > PAGE else ""
    kind = outcome if outcome in SHOWN else ""
    return {"rows": [_shown(row) for row in shown[:PAGE]], "more": more, "outcome": kind, "after": int(after)}


def _shown(row: BulkActionRow) -> dict[str, Any]:
    """A row's cells, by their names; the credits are those that moved, or that would."""
    credits_ = row.moved if row.outcome else row.credits
    return {
        "number": row.number,
        "task": task_link(row.task_id),
        "outcome": _outcome(row),
        "told": row.told or row.foretold,
        "credits": amount(credits_) if credits_ else "",
        "time": when(row.acted_at) if row.acted_at else "",
    }


def _outcome(row: BulkActionRow) -> str:
    if row.outcome:
        return label(row.outcome, "success" if row.outcome == "done" else "danger")
    return label("will be refused", "warning") if row.foretold else label("waits")


def csv_of(action: BulkAction) -> Iterator[str]:
    """The rows as a spreadsheet, a chunk at a time."""
    write = csv.writer(Echo()).writerow
    yield MARK + write(HEADERS)
    after = 0
    while rows := list(action.rows.filter(number__gt=after).order_by("number")[:1000]):
        yield "".join(write(_cells(row)) for row in rows)
        after = rows[-1].number


def _cells(row: BulkActionRow) -> list[Any]:
    credits_ = "" if row.moved is None else f"{row.moved:f}"
    time = row.acted_at.isoformat() if row.acted_at else ""
    return [row.number, public_id(row.task_id), row.outcome, harmless(row.told), credits_, time, harmless(row.foretold)]
