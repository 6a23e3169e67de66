"""Rate cards: each meter's price in force, to come and past; new versions, looked at before they are written."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from unfold.enums import ActionVariant
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextareaWidget,
)

from billing import pricing
from billing.admin.acts import Acting
from billing.admin.once import OnceForm, Repeated, keyed, once, remember
from billing.admin.screens import Added, Screen, Table, amount, label, when
from billing.exceptions import Refusal
from billing.models import Price, RateCard
from billing.ratecards import MARGIN, FromThePast, New, after, clock, in_force, versions, write_versions, written
from tasks.admin.deployment_form import unpriced
from tasks.models import Deployment, Task
from tasks.standing import MOST, up_to

PERMISSION = "billing.add_price"
# Of the newest tasks so many are looked at for one that is typical, and of a deployment at most so many.
NEWEST, ENOUGH = 5000, 50


class VersionsForm(OnceForm):
    """New prices of any of the meters; `agreed` is what was looked at."""

    effective_from = forms.SplitDateTimeField(
        required=False, widget=UnfoldAdminSplitDateTimeWidget, help_text="In UTC. Empty: from now on."
    )
    reason = forms.CharField(max_length=1000, widget=UnfoldAdminTextareaWidget({"rows": 2}))
    agreed = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)

    def __init__(self, *args: Any, prices: dict[str, Price], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prices = prices
        for meter in (pricing.FLAT, *pricing.METERS):
            credits_ = UnfoldAdminDecimalFieldWidget({"aria-label": f"New credits of {meter}"})
            size = UnfoldAdminIntegerFieldWidget({"aria-label": f"New unit size of {meter}"})
            self.fields[f"credits-{meter}"] = forms.DecimalField(
                required=False, min_value=0, max_digits=20, decimal_places=10, widget=credits_
            )
            known = prices[meter].unit_size if meter in prices else 1
            self.fields[f"size-{meter}"] = forms.IntegerField(
                required=False, min_value=1, max_value=2**31 - 1, initial=known, widget=size
            )

    @property
    def meters(self) -> list[dict[str, Any]]:
        """A line of the form for each meter."""
        return [
            {"meter": meter, "unit": unit, "now": self.prices.get(meter), "credits": self[f"credits-{meter}"],
             "size": self[f"size-{meter}"]}
            for meter, unit in sorted(pricing.UNITS.items(), key=lambda item: pricing.place_of(item[0]))
        ]  # fmt: skip

    def clean_effective_from(self) -> datetime | None:
        moment = self.cleaned_data["effective_from"]
        if moment and moment <= clock():
            raise forms.ValidationError(FromThePast.message)
        return moment

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        data["new"] = {meter: new for meter in pricing.UNITS if (new := self._new(data, meter))}
        if not self.errors and not data["new"]:
            raise forms.ValidationError("Nothing would change: give new credits to one meter at least.")
        return data

    def _new(self, data: dict[str, Any], meter: str) -> New | None:
        """What a meter is to cost; nothing typed, or what it costs already, is no new version."""
        if (credits_ := data.get(f"credits-{meter}")) is None:
            return None
        known = self.prices.get(meter)
        size = data.get(f"size-{meter}") or (known.unit_size if known else 1)
        same = known and not data.get("effective_from") and (known.credits, known.unit_size) == (credits_, size)
        return None if same else New(credits_, size)


@admin.register(RateCard)
class RateCardScreen(Added, Acting, Screen):
    change_form_outer_after_template = "admin/counterfoil/ratecard.html"
    list_display = ("name", "used_by", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    add_fieldsets = ((None, {"fields": ("name",)}),)
    fields = (("name", "created_at"),)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.new_versions)
        return [path("<uuid:pk>/versions/", view, name="billing_ratecard_versions"), *super().get_urls()]

    def response_add(self, request: HttpRequest, obj: RateCard, *args: Any, **kwargs: Any) -> HttpResponse:
        """On to its first prices, for whoever may write them."""
        if "_popup" in request.POST or not request.user.has_perm(PERMISSION):
            return super().response_add(request, obj, *args, **kwargs)
        messages.success(request, f"{obj} was added. Nothing costs anything by it until it has prices.")
        return HttpResponseRedirect(reverse("admin:billing_ratecard_versions", args=[obj.pk]))

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("deployments")

    @admin.display(description="deployments")
    def used_by(self, card: RateCard) -> str:
        return ", ".join(deployment.name for deployment in card.deployments.all()) or "none"

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if card := kwargs.get("obj"):
            context |= {"doubts": _doubts(card), "timeline": _timeline(card, may=request.user.has_perm(PERMISSION))}
        return super().render_change_form(request, context, *args, **kwargs)

    def _buttons(self, request: HttpRequest, row: Any) -> list[dict[str, Any]]:
        if not request.user.has_perm(PERMISSION):
            return []
        address = reverse("admin:billing_ratecard_versions", args=[row.pk])
        shape = {"title": "New prices", "icon": "add", "variant": ActionVariant.PRIMARY, "attrs": {}, "dialog": None}
        return [shape | {"path": address}]

    def new_versions(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Ask for new prices, show what they change, and write what was looked at."""
        if not (request.user.has_perm(PERMISSION) and self.has_view_permission(request)):
            raise PermissionDenied
        card = RateCard.objects.filter(pk=pk).first()
        if card is None:
            raise Http404
        form, page = VersionsForm(request.POST or None, prices=in_force(card.pk)), {}
        if request.method == "POST" and form.is_valid():
            seen = written(card.pk)
            agreed = _fingerprint(form, seen)
            if "write" in request.POST and form.cleaned_data["agreed"] == agreed:
                return self._written(request, card, form, seen)
            page = _preview(card, form)
            page["changed"] = "write" in request.POST
            form.data = form.data.copy()
            form.data["agreed"] = agreed
        back = reverse("admin:billing_ratecard_change", args=[card.pk])
        shown = {"title": f"New prices of {card}", "form": form, "card": card, "back": back}
        return self._page(request, "admin/counterfoil/versions.html", **shown, **page)

    def _written(self, request: HttpRequest, card: RateCard, form: VersionsForm, seen: str) -> HttpResponse:
        data, key = form.cleaned_data, keyed("prices", form.cleaned_data["key"], card.pk)
        begin = data["effective_from"]
        told = "; ".join(f"{row[0]}: {row[1]} → {row[2]}" for row in _changes(card, form).rows)
        told = f"New prices from {when(begin) if begin else 'now on'}: {told}. Reason: {data['reason']}"
        try:
            with once(key):
                write_versions(card.pk, data["new"], effective_from=begin, seen=seen)
                remember(key)
                self.log_change(request, card, told)
        except (Repeated, Refusal) as said:
            messages.info(request, f"{card}: {said}")
        else:
            messages.success(request, f"{card}: {len(data['new'])} new prices.")
        return HttpResponseRedirect(reverse("admin:billing_ratecard_change", args=[card.pk]))


def _fingerprint(form: VersionsForm, seen: str) -> str:
    data = form.cleaned_data
    said = [seen, str(data["effective_from"]), *(f"{meter}{new}" for meter, new in sorted(data["new"].items()))]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


def _preview(card: RateCard, form: VersionsForm) -> dict[str, Any]:
    deployments = list(card.deployments.order_by("name"))
    open_ = Task.objects.filter(deployment__in=deployments, status__in=("queued", "running"))
    found = len(open_.values_list("pk", flat=True)[: MOST + 1])
    named = ", ".join(map(str, deployments)) or "no deployment"
    touched = f"It is the rate card of {named}. {up_to(found)} unfinished tasks keep the prices they were quoted with."
    return {"changes": _changes(card, form), "examples": _examples(card, form, deployments), "touched": touched}


def _changes(card: RateCard, form: VersionsForm) -> Table:
    """Old and new beside one another: old is what would be in force at that moment."""
    old = in_force(card.pk, at=form.cleaned_data["effective_from"])
    later = _later(card, form.cleaned_data["effective_from"])
    rows = []
    for meter, new in form.cleaned_data["new"].items():
        was, will = old.get(meter), Price(credits=new.credits, unit_size=new.unit_size, unit=pricing.UNITS[meter])
        rows.append([meter, str(was) if was else "no price", str(will), _per_cent(_each(was), _each(will)),
                     later.get(meter, "nothing yet")])  # fmt: skip
    return Table("", ["Meter", "Now", "New", "Change", "What takes over"], rows)


def _later(card: RateCard, moment: datetime | None) -> dict[str, str]:
    """What is written already for after that moment, a sentence for each meter."""
    found: dict[str, list[str]] = {}
    for price in after(card.pk, moment or clock()):
        found.setdefault(price.meter, []).append(f"{price} from {when(price.effective_from)}")
    return {meter: "; then ".join(told) for meter, told in found.items()}


def _each(price: Price | None) -> Decimal:
    return price.credits / price.unit_size if price else Decimal(0)


def _per_cent(old: Decimal, new: Decimal) -> str:
    if not old:
        return "new" if new else "same"
    return f"{(new - old) / old * 100:+.1f} %"


def _examples(card: RateCard, form: VersionsForm, deployments: list[Deployment]) -> Table:
    """What a typical one of the latest tasks of each deployment costs before and after."""
    old = in_force(card.pk, at=form.cleaned_data["effective_from"])
    fresh = {meter: Price(meter=meter, unit=pricing.UNITS[meter], credits=new.credits, unit_size=new.unit_size)
             for meter, new in form.cleaned_data["new"].items()}  # fmt: skip
    rows = []
    for name, usages in _usages(deployments):
        costs = sorted(((_cost(usage, old), _cost(usage, old | fresh)) for usage in usages), key=lambda pair: pair[0])
        before, after = costs[len(costs) // 2]
        rows.append([name, f"the median of {len(costs)}", amount(before), amount(after), _per_cent(before, after)])
    return Table("", ["Deployment", "Of its last tasks", "Costs now", "Would cost", "Change"], rows)


def _usages(deployments: list[Deployment]) -> Iterable[tuple[str, list[dict[str, Decimal]]]]:
    newest = Task.objects.order_by("-id").values_list("model", "status", "usage")[:NEWEST]
    names, found = {deployment.name for deployment in deployments}, {}
    for model, status, usage in newest:
        if model in names and status == "succeeded" and len(found.setdefault(model, [])) < ENOUGH:
            found[model].append({meter: Decimal(quantity) for meter, quantity in usage.items()})
    return sorted((name, usages) for name, usages in found.items() if usages)


def _cost(usage: dict[str, Decimal], prices: dict[str, Price]) -> Decimal:
    rates = [
        pricing.Rate(str(each.pk), meter, each.unit, each.unit_size, each.credits) for meter, each in prices.items()
    ]
    return pricing.ceiling(usage, rates)


def _doubts(card: RateCard) -> list[str]:
    found = [(deployment, unpriced(deployment)) for deployment in card.deployments.order_by("name")[:5]]
    return [f"{name}: no price in force for {', '.join(meters)}, so that is free." for name, meters in found if meters]


def _timeline(card: RateCard, *, may: bool) -> list[Table]:
    """For each meter its versions, the latest first: to come, in force, past, written over or withdrawn."""
    now = clock()
    by_meter = {meter: list(found) for meter, found in groupby(versions(card.pk), key=lambda price: price.meter)}
    meters = sorted(by_meter, key=pricing.place_of)
    rows = [row for meter in meters for row in _versions(meter, by_meter[meter][:50], now, may=may)]
    return [
        Table("Prices by meter, the latest first", ["Meter", "State", "Price", "From", "Until", "Change", ""], rows)
    ]


def _versions(meter: str, found: list[Price], now: datetime, *, may: bool) -> list[list[Any]]:
    standing = [price for price in found if not hasattr(price, "withdrawal")]
    rows, ends, current = [], None, False
    for price in found:
        if price not in standing:
            rows.append([meter, label("withdrawn", "warning"), str(price), when(price.effective_from), "-", "-", ""])
            continue
        over, before = _around(standing, price)
        coming = price.effective_from > now
        in_force_ = not (over or coming or current)
        current = current or in_force_
        state = _state(over=over, coming=coming, now=in_force_)
        change = _per_cent(_each(before), _each(price)) if before else "first"
        act = _withdrawing(price) if may and price.effective_from > now + MARGIN else ""
        until = when(ends) if ends and not over else "-"
        rows.append([meter, state, str(price), when(price.effective_from), until, change, act])
        ends = price.effective_from
    return rows


def _around(standing: list[Price], price: Price) -> tuple[bool, Price | None]:
    """Whether another was written over it, and what is in force before it."""
    place = standing.index(price)
    over = place > 0 and standing[place - 1].effective_from == price.effective_from
    earlier = (each for each in standing[place + 1 :] if each.effective_from < price.effective_from)
    return over, next(earlier, None)


def _state(*, over: bool, coming: bool, now: bool) -> str:
    if over:
        return label("written over")
    if coming:
        return label("to come", "info")
    return label("in force", "success") if now else label("past")


def _withdrawing(price: Price) -> str:
    address = f"{reverse('admin:billing_price_withdraw')}?ids={price.pk}"
    return format_html('<a href="{}" class="text-link">Withdraw</a>', address)
