from django.contrib import admin

from billing.admin.acts import Acting
from billing.admin.screens import Screen
from tasks.admin.bulk_button import AllThatMatch
from tasks.admin.task_acts import Cancel, DeleteContent, Pause, Redeliver, Rerun, RerunFree, Resume
from tasks.admin.task_list import TaskList
from tasks.admin.task_page import TaskPage
from tasks.admin.task_refund import Refund
from tasks.admin.task_times import ChangePriority, ExtendDeadline
from tasks.models import Task


@admin.register(Task)
class TaskScreen(AllThatMatch, TaskPage, TaskList, Acting, Screen):
    acts = (
        Cancel(), Pause(), Resume(), ExtendDeadline(), ChangePriority(), Refund(), Redeliver(), Rerun(), RerunFree(),
        DeleteContent(),
    )  # fmt: skip
    heavy = ("input", "output", "creation_request", "quote", "metadata", "warnings", "usage")
    list_select_related = ("account",)
    search_fields = ("pk",)
