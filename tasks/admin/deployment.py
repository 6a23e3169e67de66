"""Deployments: how each stands, what is doubtful about it, what it is set to, and drain, resume and trial."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import Field, Model
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.views import ChangeList
from unfold.widgets import UnfoldAdminSelectWidget

from billing.admin.acts import Act, Acting, Declined, Done
from billing.admin.screens import Added, Edited, Rows, Screen, Table, label, link, table, when
from billing.pricing import place_of
from billing.ratecards import in_force
from tasks import capabilities, queues, waiting
from tasks.admin.deployment_form import DeploymentForm, doubts
from tasks.admin.strict_json import StrictObjectField
from tasks.admin.trial import Trying
from tasks.models import Deployment
from tasks.standing import Standing, standing, up_to
from tasks.standing import waiting as waiting_of


def _waits(row: Deployment) -> str:
    return up_to(standing([row.pk])[row.pk].waiting)


def _runs(row: Deployment) -> str:
    return str(standing([row.pk])[row.pk].running)


def _first_end(row: Deployment) -> str:
    """When the first of those that wait ends, should it not be started."""
    return when(waiting_of(row.pk)[2])


class DeploymentAct(Act):
    permission = "tasks.drain_deployment"

    def facts(self, rows: list[Deployment]) -> Table:
        seen = (("Wait", _waits), ("Run", _runs), ("First ends unstarted", _first_end))
        return table("", rows, ("Deployment", "name"), ("Queue", "queue"), *seen)


class Drain(DeploymentAct):
    name, title, icon = "drain", "Drain", "pause"
    note = (
        "No task of it is started from now on: those that wait and those that come are kept until it is resumed, and "
    )
    note += "their deadlines run on. Running ones end as they would, and are charged. New tasks are still accepted."

    def suits(self, row: Deployment) -> bool:
        return row.drained_at is None

    def perform(self, row: Deployment, *, by: str, data: dict[str, Any]) -> Done:
        if not waiting.drain(row.pk):
            raise Declined("it is drained already.")
        return Done("Drained.")


class Resume(DeploymentAct):
    name, title, icon = "resume", "Resume", "play_arrow"
    note = "Its tasks are started again at once, in their order, as far as workers and accounts have room."

    def suits(self, row: Deployment) -> bool:
        return row.drained_at is not None

    def perform(self, row: Deployment, *, by: str, data: dict[str, Any]) -> Done:
        if not waiting.undrain(row.pk):
            raise Declined("it is not drained.")
        return Done("Resumed.")


class Standings(Rows):
    """A list whose rows know how they stand."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        found = standing(row.pk for row in self.result_list)
        for row in self.result_list:
            row.stands = found[row.pk]


@admin.register(Deployment)
class DeploymentScreen(Trying, Added, Edited, Acting, Screen):
    form = DeploymentForm
    change_form_outer_before_template = "admin/counterfoil/deployment.html"
    acts = (Drain(), Resume())
    list_display = ("name", "capability", "queue", "state", "waits", "runs", "failed", "median", "rate_card")
    list_filter = ("is_active", "capability")
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

    def get_urls(self) -> list[URLPattern]:
        workers = self.admin_site.admin_view(self.workers)
        return [path("<uuid:pk>/workers/", workers, name="tasks_deployment_workers"), *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return Standings

    def formfield_for_dbfield(self, db_field: Field, request: HttpRequest, **kwargs: Any) -> forms.Field | None:
        if db_field.name == "settings":
            kwargs["form_class"] = StrictObjectField
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        if db_field.name == "capability":
            names = [(name, name) for name in sorted(capabilities.REGISTRY)]
            return forms.ChoiceField(choices=names, widget=UnfoldAdminSelectWidget, label=field.label)
        return field

    def get_form(self, request: HttpRequest, obj: Model | None = None, **kwargs: Any) -> type[forms.ModelForm]:
        """What its tasks cost is for those who may write prices; others see it."""
        form = super().get_form(request, obj, **kwargs)
        if obj and "rate_card" in form.base_fields and not request.user.has_perm("billing.add_price"):
            form.base_fields["rate_card"].disabled = True
            form.base_fields["rate_card"].help_text = "Another rate card is for those who may write prices."
        return form

    def save_model(self, request: HttpRequest, obj: Model, form: Any, change: bool) -> None:  # noqa: FBT001 - Django's
        super().save_model(request, obj, form, change)
        for doubt in [*doubts(obj), *([told] if (told := unserved(obj.queue)) else [])]:
            messages.warning(request, doubt)

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if obj := kwargs.get("obj"):
            context |= {"now": _now(obj), "doubts": doubts(obj)}
        return super().render_change_form(request, context, *args, **kwargs)

    def workers(self, request: HttpRequest, pk: Any) -> HttpResponse:
        """Whether its queue is served: asked beside the page, because workers take half a second to answer."""
        queue = self.get_queryset(request).filter(pk=pk).values_list("queue", flat=True).first()
        if queue is None:
            raise Http404
        told = unserved(queue) if self.has_view_permission(request) else ""
        return TemplateResponse(request, "admin/counterfoil/workers.html", {"told": told})

    def tables(self, request: HttpRequest, obj: Deployment) -> list[Table]:
        return [_prices(obj)]

    @admin.display(description="status")
    def state(self, deployment: Deployment) -> str:
        main = _state(deployment)
        if deployment.is_default:
            return main
        return format_html("{} {}", main, label("not default"))

    @admin.display(description="waiting")
    def waits(self, deployment: Any) -> str:
        return _linked(deployment, up_to(deployment.stands.waiting), status="queued")

    @admin.display(description="running")
    def runs(self, deployment: Any) -> str:
        return _linked(deployment, deployment.stands.running, status="running")

    @admin.display(description="failed in a day")
    def failed(self, deployment: Any) -> str:
        return _failed(deployment, deployment.stands)

    @admin.display(description="median run")
    def median(self, deployment: Any) -> str:
        return seconds(deployment.stands.median)


def _state(deployment: Deployment) -> str:
    capability = capabilities.get(deployment.capability)
    if capability is None or not capability.available():
        return label("no capability", "danger")
    if not deployment.is_active:
        return label("inactive", "danger")
    return label("drained", "warning") if deployment.drained_at else label("active", "success")


def _linked(deployment: Deployment, text: Any, **query: str) -> str:
    address = f"{reverse('admin:tasks_task_changelist')}?{urlencode({'model': deployment.name, **query})}"
    return format_html('<a href="{}" class="text-link">{}</a>', address, text)


def _failed(deployment: Deployment, stands: Standing) -> str:
    since = (timezone.now() - timezone.timedelta(days=1)).isoformat(timespec="seconds")
    return _linked(deployment, f"{stands.failed} of {stands.ended}", status="failed", ended_from=since)


def seconds(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.2f} s" if number < 10 else f"{number:.0f} s"


def unserved(queue: str) -> str:
    """What is wrong with the workers of a queue, in a sentence; empty when nothing is."""
    served = queues.served()
    if served is None:
        return "The broker does not answer: nobody knows whether a worker serves it."
    if queue in served:
        return ""
    return (
        f"No worker that answers takes tasks of the queue “{queue}”: they wait until one is started for it "
        f"(`manage.py up` serves the queues that it finds when it starts, `celery worker -Q {queue}` this one)."
    )


def _now(obj: Deployment) -> list[tuple[str, str]]:
    stands = standing([obj.pk])[obj.pk]
    return [
        ("Status", _state(obj)),
        ("Waiting", _linked(obj, up_to(stands.waiting), status="queued")),
        ("Running", _linked(obj, stands.running, status="running")),
        ("Failed in a day", _failed(obj, stands)),
        ("Median run", seconds(stands.median)),
    ]


def _prices(obj: Deployment) -> Table:
    """What its tasks may be charged for, and what is free because nobody said otherwise."""
    prices, capability = in_force(obj.rate_card_id), capabilities.get(obj.capability)
    meters = sorted({*(capability.meters if capability else ()), *({"task"} & prices.keys())}, key=place_of)
    return table(
        "Prices in force",
        meters,
        ("Meter", lambda meter: meter),
        ("Price", lambda meter: str(prices[meter]) if meter in prices else label("none: free", "warning")),
        ("Since", lambda meter: when(prices[meter].effective_from) if meter in prices else ""),
        ("Rate card", lambda meter: link("billing_ratecard", obj.rate_card_id, obj.rate_card)),
    )
