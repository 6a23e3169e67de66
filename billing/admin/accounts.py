from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import flatten_fieldsets
from django.core.exceptions import PermissionDenied
from django.db import DataError, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html

from billing.admin.account_acts import Adjust, Disable, Enable, Grant, IssueKey, OpenForm, RotateSecret
from billing.admin.acts import Acting
from billing.admin.once import SHOWN_ONCE, Repeated, keyed, once, remember
from billing.admin.screens import Added, Edited, Screen, Table, label, link, listing, table, when
from billing.credentials import open_account
from billing.models import Account

LIMITS = (
    "running_limit", "pending_limit", "requests_per_minute", "credit_limit", "monthly_cap", "low_balance_threshold",
)  # fmt: skip
EDITED = ("name", *LIMITS)


@admin.register(Account)
class AccountScreen(Added, Edited, Acting, Screen):
    acts = (Grant(), Adjust(), IssueKey(), RotateSecret(), Disable(), Enable())
    single = ("issue-key", "rotate-secret")
    list_display = ("name", "state", "available", "held", "charged", "pending", "running", "created_at")
    list_filter = ("is_active",)
    search_fields = ("name",)
    search_help_text = "Name"
    heavy = ("callback_secret", "callback_secret_previous")
    fieldsets = (
        (None, {"fields": (("name", "state", "live_account", "created_at"),)}),
        ("Credits", {"fields": (("available", "held", "charged", "granted"), ("month", "month_spent"))}),
        ("Now", {"fields": (("pending", "running", "previous_secret"),)}),
        ("Limits", {"fields": (LIMITS[:3], LIMITS[3:])}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Account | None = None) -> list[str]:
        return [name for name in flatten_fieldsets(self.fieldsets) if name not in EDITED]

    @admin.display(description="status")
    def state(self, account: Account) -> str:
        state = label("active", "success") if account.is_active else label("disabled", "danger")
        return format_html("{} {}", label("test"), state) if account.twin_of_id else state

    @admin.display(description="live account")
    def live_account(self, account: Account) -> str:
        return link("billing_account", account.twin_of_id, account.twin_of)

    @admin.display(description="previous callback secret valid until")
    def previous_secret(self, account: Account) -> str:
        return when(account.callback_secret_previous_until)

    def tables(self, request: HttpRequest, obj: Account) -> list[Table]:
        return [_keys(obj), _transfers(obj)]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """A name, and what whoever opens the account may give it. Its secrets are shown once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = OpenForm(request.POST or None, user=request.user)
        back = reverse("admin:billing_account_changelist")
        try:
            if request.method == "POST" and form.is_valid() and (opened := self._open(request, form)):
                return self.shown_once(request, "Account opened", opened[1], opened[0])
        except Repeated as repeated:
            messages.info(request, f"{form.cleaned_data['name']}: {repeated}{SHOWN_ONCE}")
            return HttpResponseRedirect(back)
        return self.asked(request, "Open account", form, back=back)

    def _open(self, request: HttpRequest, form: OpenForm) -> tuple[Account, list[tuple[str, str]]] | None:
        key = keyed("open", form.cleaned_data["key"], "account")
        try:
            with once(key), transaction.atomic():
                remember(key)
                account, secret = open_account(form.cleaned_data["name"])
                keys = form.furnish(account, by=f"operator:{request.user.get_username()}")
                self.log_addition(request, account, "Opened the account.")
        except DataError:
            form.add_error(None, "A number is too large.")
            return None
        messages.success(request, f"{account}: opened.")
        return account, [("Callback secret", secret), *keys]


def _keys(account: Account) -> Table:
    return table(
        "API keys",
        account.api_keys.order_by("-id")[:20],
        ("Name", lambda key: link("billing_apikey", key.pk, key.name)),
        ("Begins with", "prefix"),
        ("Scopes", lambda key: ", ".join(key.scopes)),
        ("Last used", "last_used_at"),
        ("Expires", "expires_at"),
        ("Revoked", "revoked_at"),
        ("Created", "created_at"),
        more=listing("billing_apikey", account__id=account.pk),
    )


def _transfers(account: Account) -> Table:
    return table(
        "Latest transfers",
        account.transfers.order_by("-account_seq")[:20],
        ("No.", lambda transfer: link("billing_transfer", transfer.pk, transfer.account_seq)),
        ("Kind", "kind"),
        ("Amount", "amount"),
        ("Available after", "available_after"),
        ("Reason", "reason"),
        ("By", "actor"),
        ("Time", "created_at"),
        more=listing("billing_transfer", account__id=account.pk),
    )
