"""The books: charges, transfers and usage lines, each beside the task it is for."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from billing.admin.screens import Screen, Table, amount, label, link, table, who
from billing.models import Charge, Transfer, UsageLine
from tasks.admin.found import FoundByTaskOrAccount, task_link
from tasks.admin.spans import span

KINDS = {Transfer.Kind.GRANT: "success", Transfer.Kind.REFUND: "warning", Transfer.Kind.ADJUSTMENT: "warning"}


class BookScreen(FoundByTaskOrAccount, Screen):
    list_select_related = ("account",)
    linked = ("account", "task_id")

    @admin.display(description="no.")
    def numbered(self, row: Any) -> str:
        return str(row.pk)

    @admin.display(description="task")
    def of_task(self, row: Any) -> str:
        return task_link(row.task_id)

    @admin.display(description="account")
    def of_account(self, row: Any) -> str:
        return link("billing_account", row.account_id, row.account)


class TestCredits(admin.SimpleListFilter):
    """Test credits are no money, and test runs of the house no revenue: sums of credits leave them out."""

    title, parameter_name = "test credits", "test"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Left out"), ("yes", "Alone")]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if self.value() not in ("no", "yes"):
            return queryset
        test = Q(account__twin_of__isnull=False) | Q(account__is_internal=True)
        return queryset.filter(test if self.value() == "yes" else ~test)


@admin.register(Transfer)
class TransferScreen(BookScreen):
    list_display = ("numbered", "what", "amount", "available_after", "account", "of_task", "by", "created_at")
    list_filter = ("kind", TestCredits, span("created", "time", "created_at"))
    fields = (
        ("what", "amount", "of_account", "account_seq"),
        ("of_task", "usage_line", "by", "created_at"),
        ("available_after", "held_after", "charged_after", "granted_after"),
        "reason",
        "key",
    )

    @admin.display(description="kind")
    def what(self, transfer: Transfer) -> str:
        return label(transfer.kind, KINDS.get(transfer.kind, ""))


@admin.register(Charge)
class ChargeScreen(BookScreen):
    ordering = ("-task_id",)
    list_display = ("shown", "account", "held", "charged", "refunded", "of_task", "created_at")
    fields = (("of_task", "of_account", "created_at"), ("held", "charged", "refunded", "net"))

    @admin.display(description="charge")
    def shown(self, charge: Charge) -> str:
        return amount(charge.charged - charge.refunded)

    @admin.display(description="charged and not refunded")
    def net(self, charge: Charge) -> str:
        return amount(charge.charged - charge.refunded)

    def tables(self, request: HttpRequest, obj: Charge) -> list[Table]:
        lines = table(
            "Usage lines",
            UsageLine.objects.filter(task_id=obj.pk).order_by("position"),
            ("Meter", lambda line: link("billing_usageline", line.pk, line.meter)),
            ("Quantity", lambda line: f"{line.quantity.normalize():,f} {line.unit}{'' if line.quantity == 1 else 's'}"),
            ("Listed", "listed_amount"),
            ("Billed", "billed_amount"),
        )
        transfers = table(
            "Transfers",
            Transfer.objects.filter(task_id=obj.pk).order_by("-account_seq")[:100],
            ("No.", lambda transfer: link("billing_transfer", transfer.pk, transfer.account_seq)),
            ("Kind", "kind"),
            ("Amount", "amount"),
            ("Reason", "reason"),
            ("By", lambda transfer: who(transfer.actor)),
            ("Time", "created_at"),
        )
        return [lines, transfers]


@admin.register(UsageLine)
class UsageLineScreen(BookScreen):
    list_display = ("numbered", "meter", "quantity_", "billed_amount", "account", "of_task", "created_at")
    fields = (
        ("of_task", "of_account", "position", "created_at"),
        ("meter", "quantity_", "price"),
        ("listed_amount", "billed_amount", "usd_reference", "how"),
    )

    @admin.display(description="quantity")
    def quantity_(self, line: UsageLine) -> str:
        return f"{line.quantity.normalize():,f} {line.unit}{'' if line.quantity == 1 else 's'}"

    @admin.display(description="measured")
    def how(self, line: UsageLine) -> str:
        return "estimated" if line.estimated else "as reported"
