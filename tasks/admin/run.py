from django.contrib import admin
from django.db.models import Q

from billing.admin.screens import Screen, label, preformatted, pretty
from tasks.admin.found import FoundByTask, HidesContent, task_link
from tasks.admin.spans import span
from tasks.models import Run
from tasks.statuses import RunStatus

# Of runs that are under way: a lease that is over is a worker that is lost.
LEASED = span("lease", "end of lease", "lease_expires_at", only=Q(status=RunStatus.RUNNING))
COLOURS = {RunStatus.SUCCEEDED: "success", RunStatus.FAILED: "danger", RunStatus.EXCEPTION: "warning"}


@admin.register(Run)
class RunScreen(HidesContent, FoundByTask, Screen):
    content = ("shown_text",)
    heavy = ("partial_text",)
    list_display = ("number", "of_task", "state", "reason_created", "reason_resolved", "worker", "started_at")
    list_filter = ("status", "reason_resolved", LEASED)
    linked = ("task",)
    fields = (
        ("of_task", "number", "state"),
        ("reason_created", "reason_resolved", "worker", "lease_expires_at"),
        ("scheduled_at", "started_at", "resolved_at"),
        "shown_usage",
        "shown_text",
    )

    @admin.display(description="task")
    def of_task(self, run: Run) -> str:
        return task_link(run.task_id)

    @admin.display(description="status")
    def state(self, run: Run) -> str:
        return label(run.status, COLOURS.get(run.status, ""))

    @admin.display(description="usage so far")
    def shown_usage(self, run: Run) -> str:
        return pretty(run.usage or None)

    @admin.display(description="text so far")
    def shown_text(self, run: Run) -> str:
        return preformatted(run.partial_text)
