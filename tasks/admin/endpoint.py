"""Webhook endpoints: whom an account has told of its events, what became of it lately, and who is told no more."""

from contextlib import nullcontext
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminTextInputWidget

from billing.admin.account_acts import AccountAct
from billing.admin.acts import Act, Acting, Declined, Done, ReasonForm
from billing.admin.screens import NOTHING, Screen, Table, label, link, listing, table
from billing.models import Account, printable
from tasks import endpoints, net
from tasks.admin.found import task_link
from tasks.exceptions import NoEndpoint
from tasks.models import WebhookEndpoint
from tasks.models.endpoint import EVENTS


class EndpointForm(ReasonForm):
    url = forms.CharField(
        label="URL",
        max_length=2048,
        widget=UnfoldAdminTextInputWidget,
        help_text="http or https, on port 80 or 443 of a public address.",
    )
    events = forms.MultipleChoiceField(
        choices=[(event, event) for event in EVENTS], widget=UnfoldAdminCheckboxSelectMultipleWidget
    )
    description = forms.CharField(
        required=False,
        max_length=500,
        validators=[printable],
        widget=UnfoldAdminTextInputWidget,
        help_text="The customer sees it.",
    )

    def clean_url(self) -> str:
        try:
            net.check_url(self.cleaned_data["url"])
        except net.ForbiddenUrl as error:
            raise forms.ValidationError(str(error)) from error
        return self.cleaned_data["url"]


class AddEndpoint(AccountAct):
    name, title, permission = "add-endpoint", "Add webhook endpoint", "tasks.add_webhookendpoint"
    icon = "webhook"
    note = "The URL is told of each of these events from now on, signed with the account's callback secret."
    form = EndpointForm
    within = staticmethod(nullcontext)

    def facts(self, rows: list[Account]) -> Table:
        """The URLs that are told already."""
        told = endpoints.of(rows[0].pk)
        return table("", told, ("Told already", "url"), ("Events", lambda endpoint: ", ".join(endpoint.events)))

    def perform(self, row: Account, *, by: str, data: dict[str, Any]) -> Done:
        chosen = {"url": data["url"], "events": data["events"], "description": data["description"] or None}
        endpoints.add(row.pk, **chosen)
        return Done(f"Added the webhook endpoint {data['url']}.")


class DeleteEndpoint(Act):
    name, title, permission = "delete-endpoint", "Delete endpoint", "tasks.delete_webhookendpoint"
    icon = "delete"
    variant = ActionVariant.DANGER
    note = "It is told nothing any more, and what it is still owed ends as failed. A deleted endpoint stays deleted; "
    note += "the account may add the same URL again."
    within = staticmethod(nullcontext)

    def suits(self, row: WebhookEndpoint) -> bool:
        return row.deleted_at is None

    def facts(self, rows: list[WebhookEndpoint]) -> Table:
        owed = ("Still owed", lambda endpoint: endpoint.callbacks.filter(status="pending").count())
        events = ("Events", lambda endpoint: ", ".join(endpoint.events))
        return table("", rows, ("Endpoint", "url"), ("Account", "account"), events, owed)

    def perform(self, row: WebhookEndpoint, *, by: str, data: dict[str, Any]) -> Done:
        try:
            endpoints.delete(row.account_id, row.pk)
        except NoEndpoint as error:
            raise Declined("it was deleted before.") from error
        return Done("Deleted the webhook endpoint.")


@admin.register(WebhookEndpoint)
class WebhookEndpointScreen(Acting, Screen):
    acts = (DeleteEndpoint(),)
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
        return endpoint_state(endpoint)

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
                more=latest_address(obj),
            )
        ]


def endpoint_state(endpoint: WebhookEndpoint) -> SafeString:
    return label("deleted", "danger") if endpoint.deleted_at else label("active", "success")


def latest_address(endpoint: WebhookEndpoint) -> str:
    return listing("tasks_callback", endpoint__id=endpoint.pk)


def latest_callbacks(endpoint: WebhookEndpoint) -> SafeString:
    """A link to what the endpoint was told."""
    return format_html('<a href="{}" class="text-link">Callbacks</a>', latest_address(endpoint))


def endpoint_acts(request: HttpRequest) -> tuple[tuple[str, Any], ...]:
    """The column of a table of endpoints with what may be done to each, for whoever may."""
    return (("Acts", _delete_link),) if DeleteEndpoint().allowed(request) else ()


def _delete_link(endpoint: WebhookEndpoint) -> str:
    if endpoint.deleted_at:
        return NOTHING
    address = reverse("admin:tasks_webhookendpoint_delete-endpoint")
    return format_html('<a href="{}?ids={}" class="text-link">Delete</a>', address, endpoint.pk)
