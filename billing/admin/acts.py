"""What an operator may do to rows: each act under its own permission, on a page of its own, for a reason.

An act has its own view because Django's change view is itself atomic and the verbs of a task own their transaction. A
GET only asks; the POST acts on each row for itself and reports on each.
"""

import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DataError, InterfaceError, OperationalError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from psycopg.errors import DeadlockDetected, LockNotAvailable
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from billing.admin.once import OnceForm, Repeated, keyed, once, remember
from billing.admin.reports import keep_report
from billing.admin.screens import Table, table
from billing.exceptions import ChangedSince, Refusal
from billing.failpoints import here

logger = logging.getLogger(__name__)

# What somebody who holds the row causes.
BUSY = (LockNotAvailable, DeadlockDetected)
# Rows one form acts on: as many as a list shows at once, and some.
AT_ONCE = 100


class ReasonForm(OnceForm):
    """An act is for a reason."""

    reason = forms.CharField(max_length=1000, widget=UnfoldAdminTextareaWidget({"rows": 2}))

    def __init__(self, *args: Any, rows: list[Any], **kwargs: Any) -> None:
        self.rows = rows
        super().__init__(*args, **kwargs)
        self.order_fields([*(name for name in self.fields if name != "reason"), "reason"])


class Declined(Exception):
    """An act's own no: this row is not for it."""


@dataclass(frozen=True)
class Done:
    """What an act did, in a sentence, and what only this answer may show: pairs of a name and a secret."""

    told: str
    secrets: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of one row: done, refused or repeated, in a sentence; `changed` says that another look is needed."""

    row: Any
    subject: str
    kind: str
    told: str
    secrets: tuple[tuple[str, str], ...] = ()
    changed: bool = False


SAID = {"done": messages.success, "refused": messages.error, "repeated": messages.info}


class Act:
    """One act. Its verb refuses by an exception, which the operator reads."""

    name = ""
    title = ""
    permission = ""
    icon = ""
    variant = ActionVariant.DEFAULT
    note = ""
    # What is said beside that the form was sent before.
    again = ""
    form: type[ReasonForm] = ReasonForm
    refusals: tuple[type[Exception], ...] = (Refusal, Declined)
    # Fields of the form that change what will happen: the page asks again while they are typed.
    live: tuple[str, ...] = ()
    # What holds an act and its entry in the history together. A verb that owns its transaction has none around it.
    within: Callable[[], AbstractContextManager] = staticmethod(transaction.atomic)

    def allowed(self, request: HttpRequest) -> bool:
        return request.user.has_perm(self.permission)

    def suits(self, row: Any) -> bool:
        """Whether the page of this row offers the act; the verb decides."""
        return True

    def subject(self, row: Any) -> str:
        return str(row)

    def facts(self, rows: list[Any]) -> Table:
        """What the operator looks at before deciding."""
        return table("", rows, ("Name", self.subject))

    def tables(self, rows: list[Any], data: dict[str, Any]) -> list[Table]:
        """What would happen to each row with what is in the form so far."""
        return [self.facts(rows)]

    def seen(self, rows: list[Any]) -> dict[str, str]:
        """What the page shows of each row that must still hold when it is acted on."""
        return {}

    def hindrance(self, row: Any) -> str:
        """Why this row is refused already, in a sentence, or nothing."""
        return ""

    def perform(self, row: Any, *, by: str, data: dict[str, Any]) -> Done:
        raise NotImplementedError


class Acting:
    """A screen with acts: buttons on a row's page, and the same for the rows chosen in the list."""

    acts: tuple[Act, ...] = ()
    # Acts that are offered for one row only.
    single: tuple[str, ...] = ()
    # Acts that fit beside the page's title.
    buttons = 3

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        pages = [path(f"{act.name}/", wrap(partial(self.act, act)), name=self._named(act)) for act in self.acts]
        return [*pages, *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> dict[str, tuple[Callable, str, str]]:
        offered = [act for act in self.acts if act.name not in self.single and act.allowed(request)]
        return {act.name: (partial(_ask, act), act.name, act.title) for act in offered}

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if obj := kwargs.get("obj"):
            context["actions_detail"] = self._buttons(request, obj)
        return super().render_change_form(request, context, *args, **kwargs)

    def act(self, act: Act, request: HttpRequest) -> HttpResponse:
        """Ask for a reason, or act."""
        if not (act.allowed(request) and self.has_view_permission(request)):
            raise PermissionDenied
        rows = self._chosen(request, act)
        if request.method == "POST":
            form = act.form(request.POST, rows=rows)
            return self._acted(request, act, rows, form) if form.is_valid() else self._asked(request, act, rows, form)
        if request.headers.get("HX-Request"):
            form = act.form(request.GET, rows=rows)
            form.full_clean()
            return self._page(request, "admin/counterfoil/facts.html", **self._facts(act, rows, form))
        return self._asked(request, act, rows, act.form(rows=rows))

    def _asked(self, request: HttpRequest, act: Act, rows: list[Any], form: forms.Form) -> TemplateResponse:
        for name in act.live:
            if name in form.fields:
                form.fields[name].widget.attrs |= self._asking_again(act, rows)
        back = self._back(rows).url
        return self.asked(request, act.title, form, act=act, rows=rows, back=back, **self._facts(act, rows, form))

    def _asking_again(self, act: Act, rows: list[Any]) -> dict[str, str]:
        return {
            "hx-get": self.address(act, [row.pk for row in rows]),
            "hx-target": "#facts",
            "hx-trigger": "input changed delay:300ms, change",
            "hx-include": ",".join(f"[name^={name}]" for name in act.live),
            "hx-sync": "#facts:replace",
        }

    def _facts(self, act: Act, rows: list[Any], form: forms.Form) -> dict[str, Any]:
        """What the page shows of the rows, what of it must still hold, and what is wrong with what was typed so far."""
        data = getattr(form, "cleaned_data", {})
        shown = act.tables(rows, data)
        wrong = [error for name in act.live for error in form.errors.get(name, [])] if form.is_bound else []
        hindrance = act.hindrance(rows[0]) if len(rows) == 1 else ""
        seen = json.dumps(act.seen(rows))
        return {"facts": shown[0], "tables": shown[1:], "seen": seen, "wrong": wrong, "hindrance": hindrance}

    def _acted(self, request: HttpRequest, act: Act, rows: list[Any], form: forms.Form) -> HttpResponse:
        """Act on each row; one is told at once, and of many there is a report."""
        seen = _seen(request)
        perform = self._perform if len(rows) == 1 else self._perform_of_many
        done = [perform(request, act, row, form.cleaned_data | {"seen": seen.get(str(row.pk))}) for row in rows]
        if len(rows) == 1 and done[0].changed:
            form.add_error(None, done[0].told)
            return self._asked(request, act, self._chosen(request, act), form)
        back = self._told(request, done[0]) if len(rows) == 1 else self._reported(request, act, done, form)
        secrets = [pair for each in done for pair in each.secrets]
        return self.shown_once(request, act.title, secrets, rows[0], back.url) if secrets else back

    def _told(self, request: HttpRequest, outcome: Outcome) -> HttpResponseRedirect:
        SAID[outcome.kind](request, f"{outcome.subject}: {outcome.told}")
        return self._back([outcome.row])

    def _reported(self, request: HttpRequest, act: Act, done: list[Outcome], form: forms.Form) -> HttpResponseRedirect:
        report = keep_report(
            act.title,
            screen=f"{self.opts.app_label}_{self.opts.model_name}",
            actor=_actor(request),
            reason=form.cleaned_data["reason"],
            rows=[(str(each.row.pk), each.subject, each.kind, each.told) for each in done],
        )
        return HttpResponseRedirect(reverse("admin:billing_actreport_change", args=[report.pk]))

    def address(self, act: Act, pks: list[Any]) -> str:
        return f"{reverse(f'admin:{self._named(act)}')}?ids={','.join(str(pk) for pk in pks)}"

    def asked(self, request: HttpRequest, title: str, form: forms.Form, **context: Any) -> TemplateResponse:
        return self._page(request, "admin/counterfoil/act.html", title=title, form=form, **context)

    def shown_once(
        self, request: HttpRequest, title: str, secrets: list[tuple[str, str]], row: Any, back: str = ""
    ) -> TemplateResponse:
        """Secrets in this answer and nowhere else: admin pages are not cached, and no redirect carries them."""
        back = back or self._back([row]).url
        return self._page(request, "admin/counterfoil/secrets.html", title=title, secrets=secrets, back=back)

    def _page(self, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
        base = {**self.admin_site.each_context(request), "opts": self.opts, "is_popup": False}
        return TemplateResponse(request, template, base | context)

    def _perform(self, request: HttpRequest, act: Act, row: Any, data: dict[str, Any]) -> Outcome:
        """Act on one row. What refuses one row stops no other."""
        key = keyed(act.name, data["key"], row.pk)
        told = partial(Outcome, row, act.subject(row))
        try:
            with once(key), act.within():
                done = act.perform(row, by=_actor(request), data=data)
                here("act.before_history")
                self._write(request, row, f"{done.told} Reason: {data['reason']}", key=key)
        except Repeated as repeated:
            return told("repeated", f"{repeated}{act.again}")
        except DataError:
            return told("refused", "a number is too large.")
        except OperationalError as error:
            if not isinstance(error.__cause__, BUSY):
                raise
            return told("refused", "it is busy: somebody else holds it. Nothing was done to it.")
        except ChangedSince as changed:
            return told("refused", str(changed), changed=True)
        except act.refusals as refusal:
            return told("refused", str(refusal))
        return told("done", done.told, secrets=done.secrets)

    def _perform_of_many(self, request: HttpRequest, act: Act, row: Any, data: dict[str, Any]) -> Outcome:
        """A row that fails by a fault of ours keeps no other from its report."""
        try:
            return self._perform(request, act, row, data)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("%s failed for %s", act.name, row.pk)
            return Outcome(row, act.subject(row), "refused", f"It failed, by a fault of ours: {type(error).__name__}.")

    @transaction.atomic
    def _write(self, request: HttpRequest, row: Any, told: str, *, key: str) -> None:
        """The entry in the history and the key of its form: both or neither."""
        remember(key)
        self.log_change(request, row, told)

    def _chosen(self, request: HttpRequest, act: Act) -> list[Any]:
        wanted = (request.POST.get("ids") or request.GET.get("ids", "")).split(",")
        if len(wanted) > (1 if act.name in self.single else AT_ONCE):
            raise Http404
        try:
            pks = [self.opts.pk.to_python(pk) for pk in wanted]
        except ValidationError as error:
            raise Http404 from error
        rows = list(self.get_queryset(request).filter(pk__in=pks).order_by(*self.ordering))
        if not rows:
            raise Http404
        return rows

    def _back(self, rows: list[Any]) -> HttpResponseRedirect:
        base = f"admin:{self.opts.app_label}_{self.opts.model_name}"
        address = reverse(f"{base}_change", args=[rows[0].pk]) if len(rows) == 1 else reverse(f"{base}_changelist")
        return HttpResponseRedirect(address)

    def _named(self, act: Act) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{act.name}"

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """The acts that suit this row: a button each, and a menu for those that would crowd out the title."""
        buttons = [self._button(act, row) for act in self.acts if act.allowed(request) and act.suits(row)]
        if len(buttons) <= self.buttons:
            return buttons
        first = self.buttons - 1
        more = {"title": "More acts", "icon": "bolt", "variant": ActionVariant.DEFAULT, "items": buttons[first:]}
        return [*buttons[:first], more]

    def _button(self, act: Act, row: Any) -> dict[str, Any]:
        """A button as unfold's template draws it. Red is for the page that asks, not for this one."""
        path_ = self.address(act, [row.pk])
        return {
            "title": act.title,
            "icon": act.icon,
            "variant": ActionVariant.PRIMARY if act.variant == ActionVariant.PRIMARY else ActionVariant.DEFAULT,
            "attrs": {},
            "dialog": None,
            "path": path_,
        }


def _actor(request: HttpRequest) -> str:
    return f"operator:{request.user.get_username()}"


def agreed(shown: str | None) -> Decimal | None:
    """The credits that the page had shown."""
    try:
        credits_ = Decimal(shown or "")
    except InvalidOperation:
        return None
    return credits_ if credits_.is_finite() else None


def _seen(request: HttpRequest) -> dict[str, str]:
    """What the page had shown of each row; nothing of what no page has sent."""
    try:
        seen = json.loads(request.POST.get("seen", "{}"))
    except (ValueError, RecursionError):
        return {}
    return {pk: shown for pk, shown in seen.items() if isinstance(shown, str)} if isinstance(seen, dict) else {}


def _ask(act: Act, screen: Acting, request: HttpRequest, queryset: Any) -> HttpResponseRedirect:
    """From the list to the page that asks, with the rows that were ticked."""
    return HttpResponseRedirect(screen.address(act, request.POST.getlist(ACTION_CHECKBOX_NAME)[:AT_ONCE]))
