from typing import Any

from django.contrib import admin
from django.db.models.functions import Now
from django.utils import timezone
from unfold.enums import ActionVariant

from billing.admin.acts import Act, Acting, Declined, Done
from billing.admin.screens import Screen, Table, label, link, table
from billing.models import ApiKey


class Revoke(Act):
    name, title, permission, icon = "revoke", "Revoke key", "billing.issue_apikey", "key_off"
    variant = ActionVariant.DANGER
    note = "Requests with the key are refused from now on. A revoked key stays revoked."

    def suits(self, row: ApiKey) -> bool:
        return row.revoked_at is None

    def facts(self, rows: list[ApiKey]) -> Table:
        uses = (("Last used", "last_used_at"), ("Revoked", "revoked_at"))
        return table("", rows, ("Key", "name"), ("Begins with", "prefix"), ("Account", "account"), *uses)

    def perform(self, row: ApiKey, *, by: str, data: dict[str, Any]) -> Done:
        if not ApiKey.objects.filter(pk=row.pk, revoked_at=None).update(revoked_at=Now()):
            raise Declined("it was revoked before.")
        return Done("Revoked the key.")


@admin.register(ApiKey)
class ApiKeyScreen(Acting, Screen):
    acts = (Revoke(),)
    list_display = ("name", "prefix", "account", "state", "last_used_at", "expires_at", "created_at")
    list_select_related = ("account",)
    linked = ("account",)
    search_fields = ("name", "prefix", "account__name")
    search_help_text = "Name, beginning or account"
    fields = (
        ("name", "prefix", "of_account", "state"),
        ("created_at", "last_used_at", "expires_at", "revoked_at"),
        "scopes",
    )

    @admin.display(description="account")
    def of_account(self, key: ApiKey) -> str:
        return link("billing_account", key.account_id, key.account)

    @admin.display(description="status")
    def state(self, key: ApiKey) -> str:
        if key.revoked_at:
            return label("revoked", "danger")
        if key.expires_at and key.expires_at <= timezone.now():
            return label("expired", "warning")
        return label("valid", "success")
