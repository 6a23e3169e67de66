"""An account's statement: what moved its credits, and what it had after each move, as a page and as a spreadsheet."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.widgets import BASE_INPUT_CLASSES, UnfoldAdminSelectWidget

from billing.admin.screens import Table, amount, label, link, table, who
from billing.models import Account, Transfer
from billing.periods import BALANCES, Period, period
from billing.spreadsheets import csv_of, file_name

A_PAGE = 50
# Transfers that a page of one frequent kind looks through; of the seldom kinds there is an index.
LOOKED_THROUGH = 50_000
SELDOM = {Transfer.Kind.GRANT, Transfer.Kind.REFUND, Transfer.Kind.ADJUSTMENT}
COLOURS = {
    Transfer.Kind.GRANT: "success",
    Transfer.Kind.REFUND: "warning",
    Transfer.Kind.ADJUSTMENT: "warning",
    Transfer.Kind.CAPTURE: "info",
}
SYSTEM = "system"
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)
FURTHEST = 2**62


class DayField(forms.DateField):
    """A UTC day that a statement can begin or end with."""

    def __init__(self, **kwargs: Any) -> None:
        look = {"type": "date", "class": " ".join(BASE_INPUT_CLASSES)}
        super().__init__(required=False, widget=forms.DateInput(look, format="%Y-%m-%d"), **kwargs)

    def validate(self, value: date | None) -> None:
        super().validate(value)
        if value and not FIRST_DAY <= value <= LAST_DAY:
            raise forms.ValidationError(f"A day between {FIRST_DAY} and {LAST_DAY}.")


class StatementForm(forms.Form):
    since = DayField(label="From")
    until = DayField(label="To, that day included")
    kind = forms.ChoiceField(
        label="Kind",
        required=False,
        choices=[("", "All kinds"), *Transfer.Kind.choices],
        widget=UnfoldAdminSelectWidget,
    )
    before = forms.IntegerField(required=False, min_value=1, max_value=FURTHEST, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if data.get("since") and data.get("until") and data["since"] > data["until"]:
            raise forms.ValidationError("The first day is after the last.")
        return data

    def days(self) -> dict[str, str]:
        return {name: str(self.cleaned_data[name]) for name in ("since", "until") if self.cleaned_data[name]}


class Stated:
    """A screen of accounts whose rows have a statement. Whoever may see transfers may see it and take it along."""

    def get_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view
        return [
            path("<uuid:pk>/statement/", wrap(self.statement), name="billing_account_statement"),
            path("<uuid:pk>/statement.csv", wrap(self.spreadsheet), name="billing_account_spreadsheet"),
            *super().get_urls(),
        ]

    def statement(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """A page of transfers of the days and the kind that are asked for, newest first."""
        account, form = self._stated(request, pk), StatementForm(request.GET)
        context = {"title": "Statement", "account": account, "original": account, "form": form, "presets": _presets()}
        if form.is_valid():
            context |= self._page_of(account, form)
        base = {**self.admin_site.each_context(request), "opts": self.opts, "is_popup": False}
        return TemplateResponse(request, "admin/counterfoil/statement.html", base | context)

    def spreadsheet(self, request: HttpRequest, pk: UUID) -> HttpResponseBase:
        """All transfers of the days that are asked for, oldest first, as CSV."""
        account, form = self._stated(request, pk), StatementForm(request.GET)
        if not form.is_valid():
            return HttpResponseRedirect(f"{statement_url(account)}?{request.GET.urlencode()}")
        asked = _period_of(account, form)
        response = StreamingHttpResponse(csv_of(asked), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = f'attachment; filename="{file_name(account, asked)}"'
        response["Cache-Control"] = "no-store"
        return response

    def transfers_table(self, title: str, transfers: Any, *, more: str = "") -> Table:
        """Transfers and what the account had after each."""
        return table(
            title,
            transfers,
            ("No.", lambda transfer: link("billing_transfer", transfer.pk, transfer.account_seq)),
            ("Time", "created_at"),
            ("Kind", lambda transfer: label(transfer.kind, COLOURS.get(transfer.kind, ""))),
            ("Amount", "amount"),
            ("Available after", "available_after"),
            ("Held after", "held_after"),
            ("Charged after", "charged_after"),
            ("For", self._purpose),
            more=more,
        )

    def _purpose(self, transfer: Transfer) -> SafeString:
        """The task that it is for, and who gave which reason, as far as there are such."""
        task = self.task_named(transfer.task_id) if transfer.task_id else ""
        words = [word for word in (transfer.reason, who(transfer.actor)) if word and word != SYSTEM]
        return format_html('{}<span class="account-words">{}</span>', task, " · ".join(words))

    def task_named(self, task_id: UUID | None) -> Any:
        return link("tasks_task", task_id, task_id)

    def _stated(self, request: HttpRequest, pk: UUID) -> Account:
        if not (self.has_view_permission(request) and request.user.has_perm("billing.view_transfer")):
            raise PermissionDenied
        account = self.get_object(request, str(pk))
        if account is None:
            raise Http404
        return account

    def _page_of(self, account: Account, form: StatementForm) -> dict[str, Any]:
        asked, kind = _period_of(account, form), form.cleaned_data["kind"]
        top = min(asked.last + 1, form.cleaned_data["before"] or FURTHEST)
        rows, older = _rows(asked, kind, below=top)
        query = form.days() | ({"kind": kind} if kind else {})
        address, whole = statement_url(account), reverse("admin:billing_account_spreadsheet", args=[account.pk])
        return {
            "period": asked,
            "balances": _balances(asked),
            "transfers": self.transfers_table("", rows),
            "older": f"{address}?{urlencode(query | {'before': older})}" if older else "",
            "newest": f"{address}?{urlencode(query)}" if top <= asked.last else "",
            "spreadsheet": f"{whole}?{urlencode(form.days())}",
        }


def statement_url(account: Account) -> str:
    return reverse("admin:billing_account_statement", args=[account.pk])


def _period_of(account: Account, form: StatementForm) -> Period:
    return period(account.pk, since=form.cleaned_data["since"], until=form.cleaned_data["until"])


def _rows(asked: Period, kind: str, *, below: int) -> tuple[list[Transfer], int | None]:
    """A page of transfers with numbers below this one, and the number to go on below, if there may be more."""
    found = asked.transfers.filter(account_seq__lt=below).order_by("-account_seq")
    floor = asked.before
    if kind:
        floor = floor if kind in SELDOM else max(floor, below - 1 - LOOKED_THROUGH)
        found = found.filter(kind=kind, account_seq__gt=floor)
    rows = list(found[: A_PAGE + 1])
    if len(rows) > A_PAGE:
        return rows[:A_PAGE], rows[A_PAGE - 1].account_seq
    return rows, floor + 1 if floor > asked.before else None


def _balances(asked: Period) -> Table:
    """What the account had before and after the period, and what lies between."""
    rows = [
        [
            name.capitalize(),
            amount(getattr(asked.opening, name)),
            f"{getattr(asked.change, name):+,f}",
            amount(getattr(asked.closing, name)),
        ]
        for name in BALANCES
    ]
    return Table("", ["Credits", "Opening balance", "Change", "Closing balance"], rows)


def _presets() -> list[tuple[str, str]]:
    """Periods that are asked for often, as queries."""
    today = datetime.now(UTC).date()
    month = today.replace(day=1)
    last_month = month - timedelta(days=1)
    return [
        ("This month", urlencode({"since": month})),
        ("Last month", urlencode({"since": last_month.replace(day=1), "until": last_month})),
        ("This year", urlencode({"since": today.replace(month=1, day=1)})),
        ("All", ""),
    ]
