from django.contrib import admin

from billing.admin.acts import Acting
from billing.admin.screens import Screen
from tasks.admin.bulk.button import AllThatMatch
from tasks.admin.task_acts.moves import Cancel, DeleteContent, Pause, Redeliver, Resume
from tasks.admin.task_acts.refund import Refund
from tasks.admin.task_acts.reruns import Rerun, RerunFree
from tasks.admin.task_acts.times import ChangePriority, ExtendDeadline
from tasks.admin.task_list.screen import TaskList
from tasks.admin.task_page.page import TaskPage
from tasks.models import Task


@admin.register(Task)
class TaskScreen(AllThatMatch, TaskPage, TaskList, Acting, Screen):
    acts = (
        Cancel(), Pause(), Resume(), ExtendDeadline(), ChangePriority(), Refund(), Redeliver(), Rerun(), RerunFree(),
        DeleteContent(),
    )  # fmt: skip
    buttons = 6
    heavy = ("input", "output", "creation_request", "quote", "metadata", "warnings", "usage")
    list_select_related = ("account",)
    search_fields = ("pk",)
