"""What an operator may do to rows: each act under its own permission, on a page of its own, for a reason.

An act has its own view because Django's change view is itself atomic and the verbs of a task own their transaction. A
GET only asks; the POST acts on each row for itself and reports on each.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DataError, transaction
from django.db.models import Model
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from billing.admin.once import OnceForm, Repeated, keyed, once, remember
from billing.admin.screens import Table, table
from billing.exceptions import Refusal
from billing.failpoints import here

# Rows one form acts on: as many as a list shows at once, and some.
AT_ONCE = 100
# Acts that fit beside a page's title.
BUTTONS = 3


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

    def perform(self, row: Any, *, by: str, data: dict[str, Any]) -> Done:
        raise NotImplementedError


class Acting:
    """A screen with acts: buttons on a row's page, and the same for the rows chosen in the list."""

    acts: tuple[Act, ...] = ()
    # Acts that are offered for one row only.
    single: tuple[str, ...] = ()

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
        form = act.form(request.POST or None, rows=rows)
        if request.method == "POST" and form.is_valid():
            secrets = [pair for row in rows for pair in self._perform(request, act, row, form.cleaned_data)]
            return self.shown_once(request, act.title, secrets, rows[0]) if secrets else self._back(rows)
        return self.asked(
            request, act.title, form, act=act, rows=rows, facts=act.facts(rows), back=self._back(rows).url
        )

    def address(self, act: Act, pks: list[Any]) -> str:
        return f"{reverse(f'admin:{self._named(act)}')}?ids={','.join(str(pk) for pk in pks)}"

    def asked(self, request: HttpRequest, title: str, form: forms.Form, **context: Any) -> TemplateResponse:
        return self._page(request, "admin/counterfoil/act.html", title=title, form=form, **context)

    def shown_once(
        self, request: HttpRequest, title: str, secrets: list[tuple[str, str]], row: Model
    ) -> TemplateResponse:
        """Secrets in this answer and nowhere else: admin pages are not cached, and no redirect carries them."""
        return self._page(
            request, "admin/counterfoil/secrets.html", title=title, secrets=secrets, back=self._back([row]).url
        )

    def _page(self, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
        base = {**self.admin_site.each_context(request), "opts": self.opts, "is_popup": False}
        return TemplateResponse(request, template, base | context)

    def _perform(self, request: HttpRequest, act: Act, row: Any, data: dict[str, Any]) -> tuple[tuple[str, str], ...]:
        """Act on one row, and report. What refuses one row stops no other."""
        key = keyed(act.name, data["key"], row.pk)
        try:
            with once(key), act.within():
                done = act.perform(row, by=f"operator:{request.user.get_username()}", data=data)
                here("act.before_history")
                self._write(request, row, f"{done.told} Reason: {data['reason']}", key=key)
        except Repeated as repeated:
            messages.info(request, f"{act.subject(row)}: {repeated}{act.again}")
        except DataError:
            messages.error(request, f"{act.subject(row)}: a number is too large.")
        except act.refusals as refusal:
            messages.error(request, f"{act.subject(row)}: {refusal}")
        else:
            messages.success(request, f"{act.subject(row)}: {done.told}")
            return done.secrets
        return ()

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
        """The acts that suit this row: a button each, or one menu when they would crowd out the title."""
        buttons = [self._button(act, row) for act in self.acts if act.allowed(request) and act.suits(row)]
        if len(buttons) <= BUTTONS:
            return buttons
        return [{"title": "Act", "icon": "bolt", "variant": ActionVariant.PRIMARY, "items": buttons}]

    def _button(self, act: Act, row: Any) -> dict[str, Any]:
        """A button as unfold's template draws it."""
        path_ = self.address(act, [row.pk])
        return {
            "title": act.title,
            "icon": act.icon,
            "variant": act.variant,
            "attrs": {},
            "dialog": None,
            "path": path_,
        }


def _ask(act: Act, screen: Acting, request: HttpRequest, queryset: Any) -> HttpResponseRedirect:
    """From the list to the page that asks, with the rows that were ticked."""
    return HttpResponseRedirect(screen.address(act, request.POST.getlist(ACTION_CHECKBOX_NAME)[:AT_ONCE]))
