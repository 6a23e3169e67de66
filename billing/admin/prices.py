from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget

from billing.admin.screens import Added, Screen, Table, link, table
from billing.models import Price, RateCard
from billing.pricing import FLAT, UNITS


class PriceForm(forms.ModelForm):
    """A price from now on, or from a later moment; its unit is its meter's."""

    meter = forms.ChoiceField(
        choices=[(meter, f"{meter}, a {unit}") for meter, unit in UNITS.items()],
        widget=UnfoldAdminSelectWidget,
        help_text=f"“{FLAT}” is the flat price of a task.",
    )

    class Meta:
        model = Price
        fields = ("rate_card", "meter", "unit_size", "credits", "effective_from")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["effective_from"].required = False
        self.fields["effective_from"].help_text = "In UTC. Empty: from now on."
        self.fields["credits"].help_text = "Credits for “unit size” units."

    def clean_effective_from(self) -> Any:
        moment = self.cleaned_data["effective_from"]
        if moment and moment < timezone.now():
            raise forms.ValidationError("A price never begins in the past.")
        return moment or Price._meta.get_field("effective_from").get_default()

    def clean_meter(self) -> str:
        self.instance.unit = UNITS[self.cleaned_data["meter"]]
        return self.cleaned_data["meter"]


@admin.register(Price)
class PriceScreen(Added, Screen):
    list_display = ("meter", "rate_card", "__str__", "effective_from")
    list_select_related = ("rate_card",)
    list_filter = ("rate_card",)
    ordering = ("rate_card__name", "meter", "-effective_from")
    add_fieldsets = ((None, {"fields": (("rate_card", "meter"), ("credits", "unit_size"), "effective_from")}),)
    fields = (("rate_card", "meter", "unit"), ("credits", "unit_size"), ("effective_from", "created_at"))

    def get_form(self, request: HttpRequest, obj: Price | None = None, **kwargs: Any) -> type[forms.ModelForm]:
        return super().get_form(request, obj, **({} if obj else {"form": PriceForm}), **kwargs)


@admin.register(RateCard)
class RateCardScreen(Added, Screen):
    list_display = ("name", "created_at")
    search_fields = ("name",)
    ordering = ("name",)
    add_fieldsets = ((None, {"fields": ("name",)}),)
    fields = ("name", "created_at")

    def tables(self, request: HttpRequest, obj: RateCard) -> list[Table]:
        prices = table(
            "Prices, the newest first",
            obj.prices.order_by("meter", "-effective_from")[:200],
            ("Meter", lambda price: link("billing_price", price.pk, price.meter)),
            ("Price", str),
            ("Effective from", "effective_from"),
        )
        return [prices]
