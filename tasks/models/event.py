from django.db import models
from django.db.models.functions import Now

from tasks.models.task import Task


class TaskEvent(models.Model):
    """One entry of a task's timeline: moves, money, callback ends and operators' acts."""

    id = models.BigAutoField(primary_key=True)
    task = models.ForeignKey(Task, models.CASCADE, related_name="events")
    seq = models.BigIntegerField()
    type = models.CharField(max_length=64)
    data = models.JSONField(default=dict)
    actor = models.CharField(max_length=200, help_text="system, api_key:<prefix> or operator:<name>.")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["task", "seq"], name="events_of_a_task_are_numbered")]

    def __str__(self) -> str:
        return f"{self.type} {self.seq}"
