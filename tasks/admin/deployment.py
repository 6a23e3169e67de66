from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Field
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminSelectWidget

from billing.admin.acts import Act, Acting, Declined, Done
from billing.admin.screens import Added, Edited, Screen, label
from tasks import capabilities, waiting
from tasks.admin.strict_json import StrictObjectField
from tasks.models import Deployment


class Drain(Act):
    name, title, permission, icon = "drain", "Drain", "tasks.drain_deployment", "pause"
    note = (
        "No task of it is started until it is resumed: queued and later ones wait, and their deadlines stay. Running "
    )
    note += "ones end."

    def suits(self, row: Deployment) -> bool:
        return row.drained_at is None

    def perform(self, row: Deployment, *, by: str, data: dict[str, Any]) -> Done:
        if not waiting.drain(row.pk):
            raise Declined("it is drained already.")
        return Done("Drained.")


class Resume(Act):
    name, title, permission, icon = "resume", "Resume", "tasks.drain_deployment", "play_arrow"
    note = "Its tasks are started again, in their order."

    def suits(self, row: Deployment) -> bool:
        return row.drained_at is not None

    def perform(self, row: Deployment, *, by: str, data: dict[str, Any]) -> Done:
        if not waiting.undrain(row.pk):
            raise Declined("it is not drained.")
        return Done("Resumed.")


@admin.register(Deployment)
class DeploymentScreen(Added, Edited, Acting, Screen):
    acts = (Drain(), Resume())
    list_display = ("name", "state", "capability", "rate_card", "queue", "timeout", "max_retries", "is_default")
    list_filter = ("is_active",)
    list_select_related = ("rate_card",)
    search_fields = ("name", "capability")
    ordering = ("name",)
    readonly_fields = ("drained_at", "created_at")
    add_fieldsets = (
        (None, {"fields": (("name", "capability"), ("resolved_model", "rate_card"))}),
        ("Use", {"fields": (("is_active", "is_default", "bills_partial_output"),)}),
        ("Work", {"fields": (("queue", "timeout", "max_retries"), ("ttl", "max_lifetime", "max_pending"), "settings")}),
    )
    fieldsets = (*add_fieldsets, ("History", {"fields": (readonly_fields,)}))

    def formfield_for_dbfield(self, db_field: Field, request: HttpRequest, **kwargs: Any) -> forms.Field | None:
        if db_field.name == "settings":
            kwargs["form_class"] = StrictObjectField
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "capability":
            names = [(name, name) for name in sorted(capabilities.REGISTRY)]
            return forms.ChoiceField(choices=names, widget=UnfoldAdminSelectWidget, label=field.label)
        return field

    @admin.display(description="status")
    def state(self, deployment: Deployment) -> str:
        if not deployment.is_active:
            return label("inactive", "danger")
        return label("drained", "warning") if deployment.drained_at else label("active", "success")
