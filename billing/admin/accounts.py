"""Accounts: a list that answers an operator's questions, and a page that begins with the money.

Registered where tasks are known, with what it takes to show an account's tasks beside it.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.text import Truncator

from billing.admin import account_page
from billing.admin.account_acts import Adjust, Grant, IssueKey, OpenForm, RotateSecret
from billing.admin.account_find import NeedFilter, found
from billing.admin.acts import Acting
from billing.admin.doors import Disable, Enable
from billing.admin.limits import SetLimits
from billing.admin.notes import NoteForm, WriteNote
from billing.admin.once import SHOWN_ONCE, Repeated, keyed, once, remember
from billing.admin.screens import Added, Screen, Table, listing
from billing.admin.statement import Stated, statement_url
from billing.credentials import open_account
from billing.models import Account

LONGEST = 40


class AccountScreen(Added, Stated, Acting, Screen):
    acts = (Grant(), Adjust(), SetLimits(), IssueKey(), RotateSecret(), WriteNote(), Disable(), Enable())
    single = ("set-limits", "issue-key", "rotate-secret", "write-note")
    list_display = ("called", "state", "available", "held", "charged", "at_work")
    list_filter = (NeedFilter,)
    list_select_related = ("twin_of", "twin")
    search_fields = ("name",)
    search_help_text = "Beginning of a word of the name, id, or beginning of an API key"
    heavy = ("callback_secret", "callback_secret_previous")
    change_form_outer_before_template = "admin/counterfoil/account.html"

    def get_fieldsets(self, request: HttpRequest, obj: Account | None = None) -> list[tuple[Any, dict[str, Any]]]:
        """Nothing is edited here: an act changes limits, and says what they were."""
        return []

    @admin.display(description="name")
    def called(self, account: Account) -> str:
        """As much of the name as a list has room for."""
        return Truncator(account.name).chars(LONGEST)

    @admin.display(description="status")
    def state(self, account: Account) -> str:
        return account_page.states(account)

    @admin.display(description="running / unfinished")
    def at_work(self, account: Account) -> str:
        return f"{account.running} / {account.pending}"

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        return found(queryset, search_term), False

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if account := kwargs.get("obj"):
            context |= self.page_of(request, account)
        return super().render_change_form(request, context, *args, **kwargs)

    def page_of(self, request: HttpRequest, account: Account) -> dict[str, Any]:
        """What the head of the page shows; the tables stand below it."""
        may_write = request.user.has_perm(WriteNote.permission)
        return {
            "account": account,
            "states": account_page.states(account),
            "imbalance": account_page.imbalance(account),
            "limits": account_page.limits(account),
            "settings": account_page.settings_of(account),
            "statement_url": statement_url(account),
            "notes": account.notes.order_by("-id")[: account_page.NOTES],
            "notes_url": listing("billing_accountnote", account__id=account.pk),
            "note_form": NoteForm(rows=[account]) if may_write else None,
            "note_url": self.address(WriteNote(), [account.pk]),
        }

    def tables(self, request: HttpRequest, obj: Account) -> list[Table]:
        latest = obj.transfers.order_by("-account_seq")[: account_page.ROWS]
        return [
            self.transfers_table("Latest transfers", latest, more=statement_url(obj)),
            account_page.keys_table(obj, request),
            *self.tables_of_tasks(request, obj),
            account_page.history_table(obj),
        ]

    def tables_of_tasks(self, request: HttpRequest, account: Account) -> list[Table]:
        """What whoever knows of tasks shows between the keys and the notes."""
        return []

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """A name, and what whoever opens the account may give it. Its secrets are shown once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = OpenForm(request.POST or None, user=request.user)
        back = reverse("admin:billing_account_changelist")
        try:
            if request.method == "POST" and form.is_valid():
                account, secrets = self._open(request, form)
                return self.shown_once(request, "Account opened", secrets, account)
        except Repeated as repeated:
            messages.info(request, f"{form.cleaned_data['name']}: {repeated}{SHOWN_ONCE}")
            return HttpResponseRedirect(back)
        return self.asked(request, "Open account", form, back=back)

    def _open(self, request: HttpRequest, form: OpenForm) -> tuple[Account, list[tuple[str, str]]]:
        key = keyed("open", form.cleaned_data["key"], "account")
        with once(key), transaction.atomic():
            remember(key)
            account, secret = open_account(form.cleaned_data["name"])
            keys = form.furnish(account, by=f"operator:{request.user.get_username()}")
            self.log_addition(request, account, "Opened the account.")
        messages.success(request, f"{account}: opened.")
        return account, [("Callback secret", secret), *keys]
