from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from tasks.models.task import Task
from tasks.statuses import Created, Resolved, RunStatus


class Run(models.Model):
    """One try at a task. Written when the task becomes queued; the claim fills worker and lease."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    task = models.ForeignKey(Task, models.CASCADE, related_name="runs")
    number = models.PositiveIntegerField()
    status = models.CharField(max_length=16, choices=[(s.value, s.value) for s in RunStatus], default=RunStatus.PENDING)
    reason_created = models.CharField(max_length=16, choices=[(r.value, r.value) for r in Created])
    reason_resolved = models.CharField(max_length=32, choices=[(r.value, r.value) for r in Resolved], null=True)
    worker = models.CharField(max_length=200, null=True)
    lease_token = models.UUIDField(null=True, unique=True)
    lease_expires_at = models.DateTimeField(null=True)
    partial_text = models.TextField(default="", db_default="")
    usage = models.JSONField(default=dict, db_default={}, help_text="Meter to decimal string, so far.")
    scheduled_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task", "number"], name="runs_of_a_task_are_numbered"),
            models.CheckConstraint(
                name="a_run_resolves_for_a_reason",
                condition=Q(status__in=["pending", "running"], reason_resolved__isnull=True, resolved_at__isnull=True)
                | Q(
                    status__in=["succeeded", "failed", "exception"],
                    reason_resolved__isnull=False,
                    resolved_at__isnull=False,
                    lease_token__isnull=True,
                ),
            ),
        ]
        indexes = [models.Index("lease_expires_at", condition=Q(status="running"), name="run_lease")]

    def __str__(self) -> str:
        return f"run {self.number} of {self.task_id}"
