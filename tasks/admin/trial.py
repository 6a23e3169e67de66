"""Try it: an operator gives a deployment an input, sees what that costs, and runs it as a real task of the house."""

import json
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from billing.admin.once import OnceForm, Repeated, keyed, once, remember
from billing.admin.screens import Table, amount, table
from billing.exceptions import Refusal
from billing.house import house_account
from tasks import capabilities, trials
from tasks.admin import strict_json
from tasks.admin.deployment_form import doubts
from tasks.capabilities import CapabilityError
from tasks.capabilities.json_schema import json_schema
from tasks.exceptions import Invalid
from tasks.identifiers import public_id
from tasks.models import Deployment
from tasks.pointers import every_error, value_at
from tasks.submission import Quoted, fingerprint

PERMISSION = "tasks.try_deployment"
MOST = 2**20
# What of a refused value is shown beside why.
SHOWN = 200


class TryForm(OnceForm):
    """The input, as JSON; `agreed` is the quote that was looked at."""

    input = forms.CharField(
        max_length=MOST, strip=False, widget=UnfoldAdminTextareaWidget({"rows": 16, "spellcheck": "false"})
    )
    reason = forms.CharField(required=False, max_length=1000, widget=UnfoldAdminTextareaWidget({"rows": 2}))
    agreed = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)

    def clean_input(self) -> dict[str, Any]:
        return strict_json.parse(self.cleaned_data["input"])


class Trying:
    """A screen of deployments that can be tried."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.trial)
        return [path("<uuid:pk>/try/", view, name="tasks_deployment_try"), *super().get_urls()]

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        """Trying goes before the acts, which change something."""
        buttons = super()._buttons(request, row)
        if not request.user.has_perm(PERMISSION):
            return buttons
        address = reverse("admin:tasks_deployment_try", args=[row.pk])
        shape = {"title": "Try it", "icon": "experiment", "variant": ActionVariant.PRIMARY, "attrs": {}, "dialog": None}
        return [shape | {"path": address}, *buttons]

    def trial(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Ask for an input; quote it; run what was quoted."""
        if not (request.user.has_perm(PERMISSION) and self.has_view_permission(request)):
            raise PermissionDenied
        deployment = Deployment.objects.select_related("rate_card").filter(pk=pk).first()
        if deployment is None:
            raise Http404
        capability = capabilities.get(deployment.capability)
        hindrance = _hindrance(deployment, capability)
        form = TryForm(request.POST or None, initial={"input": _example(capability)})
        page: dict[str, Any] = {"form": form, "hindrance": hindrance}
        if request.method == "POST" and not hindrance and form.is_valid():
            page |= (told := _quoted(deployment, capability, form.cleaned_data["input"]))
            if quote := told.get("quote"):
                return self._agreed(request, deployment, form, page, quote)
        return self._page_of(request, deployment, capability, page)

    def _agreed(
        self, request: HttpRequest, deployment: Deployment, form: TryForm, page: dict[str, Any], quote: Quoted
    ) -> HttpResponse:
        """Run it when the operator has seen this very quote, else show it."""
        agreed, data = _fingerprint(quote, form.cleaned_data["input"]), form.cleaned_data
        if "run" in request.POST and data["agreed"] == agreed:
            try:
                return self._run(request, deployment, data)
            except Refusal as refusal:
                page["refused"] = str(refusal)
        elif "run" in request.POST:
            page["refused"] = "The quote is another than the one you saw. Look at it again."
        form.data = form.data.copy()
        form.data["agreed"] = agreed
        shown = {"quote": quote, "lines": _lines(quote), "house": house_account(), "ready": True}
        return self._page_of(request, deployment, capabilities.get(deployment.capability), page | shown)

    def _run(self, request: HttpRequest, deployment: Deployment, data: dict[str, Any]) -> HttpResponse:
        by = f"operator:{request.user.get_username()}"
        reason = data["reason"].strip() or f"Test run of {deployment.name}"
        key = keyed("try", data["key"], deployment.pk)
        try:
            with once(key):
                made = trials.try_out(deployment.name, data["input"], key=data["key"], by=by, reason=reason)
                remember(key)
                told = f"Tried it with {public_id(made.task_id)}. Reason: {reason}"
                self.log_change(request, deployment, told)
        except Repeated as repeated:
            messages.info(request, f"{deployment}: {repeated}")
            return HttpResponseRedirect(reverse("admin:tasks_deployment_change", args=[deployment.pk]))
        messages.success(request, f"{deployment} is tried with this task, which is real: it is held and charged.")
        return HttpResponseRedirect(reverse("admin:tasks_task_change", args=[made.task_id]))

    def _page_of(
        self, request: HttpRequest, deployment: Deployment, capability: Any, page: dict[str, Any]
    ) -> TemplateResponse:
        shown = {
            "title": f"Try {deployment}",
            "deployment": deployment,
            "doubts": [] if page["hindrance"] else doubts(deployment),
            "schema": capability and _written(json_schema(capability.input)),
            "example": _example(capability),
            "back": reverse("admin:tasks_deployment_change", args=[deployment.pk]),
        }
        return self._page(request, "admin/counterfoil/trial.html", **shown, **page)


def _hindrance(deployment: Deployment, capability: Any) -> str:
    """Why it cannot be tried. A drained one can: the task waits, as any other, and the page says so."""
    if capability is None or not capability.available():
        return f"{deployment.capability} is not available here: there is nothing to try."
    if not house_account().is_active:
        return "The house's own account is disabled. Enable it first."
    if not deployment.is_active:
        return "It is not active, so that it takes no tasks, from operators neither. Make it active first."
    return ""


def _quoted(deployment: Deployment, capability: Any, input_: dict[str, Any]) -> dict[str, Any]:
    """The quote, or what is wrong with the input: each value by its pointer."""
    checked = capability.input(data=input_)
    if not checked.is_valid():
        return {"wrong": [_wrong(input_, pointer, no) for pointer, no in every_error(checked.errors)]}
    try:
        return {"quote": trials.quote(deployment.name, input_)}
    except Invalid as invalid:
        pointer = (invalid.param or "").removeprefix("/input")
        return {"wrong": [_wrong(input_, pointer, str(invalid))]}
    except (Refusal, CapabilityError) as refusal:
        return {"refused": str(refusal)}


def _wrong(input_: dict[str, Any], pointer: str, no: str) -> dict[str, str]:
    try:
        found = json.dumps(value_at(input_, pointer), ensure_ascii=False) if pointer else ""
    except LookupError:
        found = ""
    return {"pointer": pointer or "/", "no": no, "found": found[:SHOWN]}


def _fingerprint(quote: Quoted, input_: dict[str, Any]) -> str:
    prices = sorted(line.rate.price_id for line in quote.lines)
    return fingerprint([input_, str(quote.ceiling_credits), prices])


def _lines(quote: Quoted) -> Table:
    return table(
        "",
        quote.lines,
        ("Meter", lambda line: line.rate.meter),
        ("At most", lambda line: f"{line.quantity.normalize():,f} {line.rate.unit}"),
        ("Price", lambda line: f"{line.rate.credits.normalize():f} / {line.rate.unit_size:,} {line.rate.unit}"),
        ("Credits", lambda line: amount(line.listed)),
    )


def _example(capability: Any) -> str:
    return _written(capability.example) if capability else ""


def _written(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
