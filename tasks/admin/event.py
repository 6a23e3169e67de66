from django.contrib import admin

from billing.admin.screens import Screen, compact, pretty
from tasks.admin.found import FoundByTask, task_link
from tasks.models import TaskEvent


@admin.register(TaskEvent)
class TaskEventScreen(FoundByTask, Screen):
    list_display = ("created_at", "type", "of_task", "seq", "by", "told")
    linked = ("task",)
    fields = (("created_at", "type"), ("of_task", "seq", "by"), "shown_data")

    @admin.display(description="task")
    def of_task(self, event: TaskEvent) -> str:
        return task_link(event.task_id)

    @admin.display(description="data")
    def told(self, event: TaskEvent) -> str:
        return compact({name.replace("_", " "): value for name, value in event.data.items()})

    @admin.display(description="data")
    def shown_data(self, event: TaskEvent) -> str:
        return pretty(event.data)
