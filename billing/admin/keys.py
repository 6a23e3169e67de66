from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminIntegerFieldWidget

from billing import credentials
from billing.admin.account_acts import MOST, CreditsField
from billing.admin.account_page import key_state
from billing.admin.acts import Act, Acting, Declined, Done, ReasonForm
from billing.admin.once import SHOWN_ONCE
from billing.admin.screens import Screen, Table, amount, link, table, when
from billing.models import ApiKey

LONGEST_OVERLAP_HOURS = 24 * 30


class RollForm(ReasonForm):
    overlap_hours = forms.IntegerField(
        min_value=0,
        max_value=LONGEST_OVERLAP_HOURS,
        initial=24,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="For how long the present secret stays good beside the new one. 0: it ends at once.",
    )


class CapForm(ReasonForm):
    monthly_cap = CreditsField(
        required=False,
        min_value=0,
        max_value=MOST,
        help_text="Credits that the key may hold and be charged in a UTC month. Empty: no cap.",
    )


class KeyAct(Act):
    permission = "billing.issue_apikey"

    def suits(self, row: ApiKey) -> bool:
        return row.revoked_at is None

    def facts(self, rows: list[ApiKey]) -> Table:
        uses = (("Last used", "last_used_at"), ("Revoked", "revoked_at"))
        return table("", rows, ("Key", "name"), ("Begins with", "prefix"), ("Account", "account"), *uses)


class Roll(KeyAct):
    name, title, icon = "roll", "Roll secret", "autorenew"
    note = "The key gets a new secret, shown once, on the next page. It stays the same key in everything else."
    again = SHOWN_ONCE
    form = RollForm

    def seen(self, rows: list[ApiKey]) -> dict[str, str]:
        return {str(key.pk): key.prefix for key in rows}

    def perform(self, row: ApiKey, *, by: str, data: dict[str, Any]) -> Done:
        hours = data["overlap_hours"]
        secret = credentials.roll(row, overlap=timedelta(hours=hours), seen=data["seen"] or "")
        told = (
            f"Rolled the secret: {row.prefix}… is good for {hours} h more, then {secret[: credentials.PREFIX]}… only."
        )
        return Done(told, secrets=((f"API key “{row.name}”", secret),))


class SetCap(KeyAct):
    name, title, icon = "set-cap", "Set spend cap", "savings"
    note = "Counts from the beginning of this month, what was spent already included."
    form = CapForm

    def facts(self, rows: list[ApiKey]) -> Table:
        spent = (("Spent in", "month"), ("Credits", "month_spent"), ("Cap", "monthly_cap"))
        return table("", rows, ("Key", "name"), ("Begins with", "prefix"), ("Account", "account"), *spent)

    def perform(self, row: ApiKey, *, by: str, data: dict[str, Any]) -> Done:
        cap = data["monthly_cap"]
        ApiKey.objects.filter(pk=row.pk).update(monthly_cap=cap)
        return Done("Lifted the spend cap." if cap is None else f"Set the spend cap to {amount(cap)} credits a month.")


class Revoke(KeyAct):
    name, title, icon = "revoke", "Revoke key", "key_off"
    variant = ActionVariant.DANGER
    note = "Requests with the key, an old secret of it too, are refused from now on. A revoked key stays revoked."

    def perform(self, row: ApiKey, *, by: str, data: dict[str, Any]) -> Done:
        if not credentials.revoke(row):
            raise Declined("it was revoked before.")
        return Done("Revoked the key.")


@admin.register(ApiKey)
class ApiKeyScreen(Acting, Screen):
    acts = (Roll(), SetCap(), Revoke())
    single = ("roll",)
    list_display = ("name", "prefix", "account", "state", "last_used_at", "expires_at", "created_at")
    list_select_related = ("account",)
    linked = ("account",)
    search_fields = ("name", "prefix", "account__name")
    search_help_text = "Name, beginning or account"
    fields = (
        ("name", "prefix", "of_account", "state"),
        ("created_at", "last_used_at", "expires_at", "revoked_at"),
        ("monthly_cap", "month", "month_spent"),
        ("previous_prefix", "previous_secret"),
        "scopes",
    )

    @admin.display(description="account")
    def of_account(self, key: ApiKey) -> str:
        return link("billing_account", key.account_id, key.account)

    @admin.display(description="previous secret valid until")
    def previous_secret(self, key: ApiKey) -> str:
        return when(key.previous_until)

    @admin.display(description="status")
    def state(self, key: ApiKey) -> str:
        return key_state(key)
