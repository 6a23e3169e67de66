from typing import Any

from django.contrib import admin, messages
from django.db.models import F, QuerySet
from django.db.models.functions import Now
from django.db.models.lookups import GreaterThan
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from unfold.enums import ActionVariant

from billing.admin.acts import Act, Acting, Done
from billing.admin.screens import Screen, Table, label, table, when
from billing.models import Price
from billing.ratecards import instead, to_come, withdraw

WRITE = "billing.add_price"


class Withdraw(Act):
    name, title, permission, icon = "withdraw", "Withdraw", WRITE, "undo"
    variant = ActionVariant.DANGER
    note = "The price never comes into force, whatever else is written or withdrawn. It stays in the list."

    def suits(self, row: Price) -> bool:
        return to_come(row)

    def facts(self, rows: list[Price]) -> Table:
        columns = (("Price", str), ("From", lambda row: when(row.effective_from)), ("Instead", _instead))
        return table("", rows, ("Meter", "meter"), ("Rate card", "rate_card"), *columns)

    def perform(self, row: Price, *, by: str, data: dict[str, Any]) -> Done:
        kept = _instead(row)
        withdraw(row.pk, by=by, reason=data["reason"])
        return Done(f"Withdrew {row.meter} at {row} from {when(row.effective_from)}. Then in force: {kept}.")


def _instead(price: Price) -> str:
    return str(instead(price) or "no price: free")


@admin.register(Price)
class PriceScreen(Acting, Screen):
    acts = (Withdraw(),)
    list_display = ("meter", "rate_card", "__str__", "effective_from", "state")
    list_select_related = ("rate_card", "withdrawal")
    list_filter = ("rate_card",)
    ordering = ("rate_card__name", "meter", "-effective_from")
    fields = (("rate_card", "meter", "unit"), ("credits", "unit_size"), ("effective_from", "created_at"), "withdrawn")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).annotate(coming=GreaterThan(F("effective_from"), Now()))

    def add_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Prices are written on the page of their card, which shows what they change."""
        if request.method != "GET" or not request.user.has_perm(WRITE):
            return super().add_view(request, *args, **kwargs)
        messages.info(request, "Choose the rate card; its page has “New prices”.")
        return HttpResponseRedirect(reverse("admin:billing_ratecard_changelist"))

    @admin.display(description="status")
    def state(self, price: Any) -> str:
        if hasattr(price, "withdrawal"):
            return label("withdrawn", "warning")
        return label("to come", "info") if price.coming else label("begun")

    @admin.display(description="withdrawn")
    def withdrawn(self, price: Price) -> str:
        kept = getattr(price, "withdrawal", None)
        return f"{when(kept.at)} by {kept.actor}: {kept.reason}" if kept else "no"
