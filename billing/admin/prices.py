from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminSelectWidget

from billing.admin.acts import Act, Acting, Done
from billing.admin.screens import Added, Screen, when
from billing.models import Price
from billing.pricing import FLAT, UNITS
from billing.ratecards import to_come, withdraw


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


class Withdraw(Act):
    name, title, permission, icon = "withdraw", "Withdraw", "billing.add_price", "undo"
    variant = ActionVariant.DANGER
    note = "A price that has not begun is withdrawn by writing over it what is in force until then. Both stay in the "
    note += "list."

    def suits(self, row: Price) -> bool:
        same = Price.objects.filter(rate_card=row.rate_card_id, meter=row.meter, effective_from=row.effective_from)
        return to_come(row, same)

    def perform(self, row: Price, *, by: str, data: dict[str, Any]) -> Done:
        kept = withdraw(row.pk)
        return Done(f"Withdrew {row.meter} at {row} from {when(row.effective_from)}: it stays at {kept}.")


@admin.register(Price)
class PriceScreen(Added, Acting, Screen):
    acts = (Withdraw(),)
    list_display = ("meter", "rate_card", "__str__", "effective_from")
    list_select_related = ("rate_card",)
    list_filter = ("rate_card",)
    ordering = ("rate_card__name", "meter", "-effective_from")
    add_fieldsets = ((None, {"fields": (("rate_card", "meter"), ("credits", "unit_size"), "effective_from")}),)
    fields = (("rate_card", "meter", "unit"), ("credits", "unit_size"), ("effective_from", "created_at"))

    def get_form(self, request: HttpRequest, obj: Price | None = None, **kwargs: Any) -> type[forms.ModelForm]:
        return super().get_form(request, obj, **({} if obj else {"form": PriceForm}), **kwargs)
