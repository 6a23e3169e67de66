from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, Q, QuerySet, Subquery

from billing.admin.acts import Acting
from billing.admin.screens import Screen, amount, label
from billing.models import Charge
from tasks.admin.bulk_button import AllThatMatch
from tasks.admin.found import FoundByTaskOrAccount, of_accounts
from tasks.admin.task_acts import Cancel, DeleteContent, Pause, Redeliver, Rerun, RerunFree, Resume
from tasks.admin.task_page import TaskPage
from tasks.admin.task_page_head import COLOURS
from tasks.admin.task_refund import Refund
from tasks.admin.task_times import ChangePriority, ExtendDeadline
from tasks.models import Task


@admin.register(Task)
class TaskScreen(AllThatMatch, TaskPage, FoundByTaskOrAccount, Acting, Screen):
    acts = (
        Cancel(), Pause(), Resume(), ExtendDeadline(), ChangePriority(), Refund(), Redeliver(), Rerun(), RerunFree(),
        DeleteContent(),
    )  # fmt: skip
    heavy = ("input", "output", "creation_request", "quote", "metadata", "warnings", "usage")
    list_display = ("public", "state", "model", "account", "quoted", "charged", "refunded", "created_at")
    list_filter = ("status", "deployment", "test")
    list_select_related = ("account", "api_key", "deployment")
    linked = ("account", "rerun_root")
    task_column = "pk"
    search_help_text = "Task id, client reference or account"

    def for_list(self, queryset: QuerySet) -> QuerySet:
        charge = Charge.objects.filter(task_id=OuterRef("pk"))
        amounts = {f"now_{name}": Subquery(charge.values(name)) for name in ("charged", "refunded")}
        return super().for_list(queryset).annotate(**amounts)

    def found_by_words(self, queryset: QuerySet, term: str) -> QuerySet:
        return queryset.filter(Q(client_reference=term) | of_accounts(term))

    @admin.display(description="task")
    def public(self, task: Task) -> str:
        return str(task)

    @admin.display(description="status")
    def state(self, task: Task) -> str:
        return label("paused", "warning") if task.paused_at else label(task.status, COLOURS.get(task.status, ""))

    @admin.display(description="charged")
    def charged(self, task: Any) -> str:
        return amount(task.now_charged)

    @admin.display(description="refunded")
    def refunded(self, task: Any) -> str:
        return amount(task.now_refunded or None)
