"""Webhook endpoints: whom an account has told of its events, and what became of it lately."""

from django.contrib import admin
from django.http import HttpRequest

from billing.admin.screens import Screen, Table, label, link, listing, table
from tasks.admin.found import task_link
from tasks.models import WebhookEndpoint


@admin.register(WebhookEndpoint)
class WebhookEndpointScreen(Screen):
    list_display = ("url", "account", "state", "events", "created_at")
    list_select_related = ("account",)
    linked = ("account",)
    search_fields = ("account__name",)
    search_help_text = "Account"
    fields = (("of_account", "state"), "url", "events", "description", ("created_at", "deleted_at"))

    @admin.display(description="account")
    def of_account(self, endpoint: WebhookEndpoint) -> str:
        return link("billing_account", endpoint.account_id, endpoint.account)

    @admin.display(description="status")
    def state(self, endpoint: WebhookEndpoint) -> str:
        return label("deleted", "danger") if endpoint.deleted_at else label("active", "success")

    def tables(self, request: HttpRequest, obj: WebhookEndpoint) -> list[Table]:
        return [
            table(
                "Latest callbacks",
                obj.callbacks.defer("body").order_by("-pk")[:20],
                ("Callback", lambda callback: link("tasks_callback", callback.pk, callback.event)),
                ("Task", lambda callback: task_link(callback.task_id)),
                ("Status", "status"),
                ("Last error", "last_error"),
                ("Time", "created_at"),
                more=listing("tasks_callback", endpoint__id=obj.pk),
            )
        ]
