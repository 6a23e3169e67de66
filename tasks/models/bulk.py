"""One act on many tasks: which, frozen at its start; what was foretold; what became of each."""

from decimal import Decimal

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from billing.models import Credits

# No deployment's queue has such a name: theirs have no dot.
BULK_QUEUE = "operators.bulk"


class BulkAction(models.Model):
    """An act on all tasks that matched a filter. Its rows are the truth; a message only says that there are some."""

    class Status(models.TextChoices):
        READY = "ready"
        RUNNING = "running"
        DONE = "done"
        ABORTED = "aborted"
        STOPPED = "stopped"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    act = models.CharField(max_length=32)
    data = models.JSONField(default=dict, help_text="What the act was told: a share, a priority, more time.")
    chosen = models.JSONField(default=dict, help_text="The list's parameters that chose the tasks.")
    words = models.TextField(help_text="The same in words.")
    root = models.UUIDField(help_text="The first action of a row of retries: its key is theirs.")
    retry_of = models.ForeignKey("self", models.PROTECT, null=True, related_name="retries")
    operator = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    reason = models.TextField(default="")
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.READY)

    total = models.PositiveIntegerField(default=0, help_text="Tasks that were chosen.")
    cut = models.BooleanField(default=False, help_text="More matched than one action takes.")
    suited = models.PositiveIntegerField(default=0, help_text="Tasks that the act suits, as foretold.")
    accounts = models.PositiveIntegerField(default=0, help_text="Accounts of those.")
    credits = Credits(default=Decimal(0), help_text="Credits that it moves, as foretold.")
    foretold = models.JSONField(default=list, help_text="Each refusal with its number of tasks.")
    digest = models.CharField(max_length=32, default="", help_text="Of what was foretold of every row.")
    looked_at = models.DateTimeField(null=True, help_text="When that was foretold.")

    done = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    moved = Credits(default=Decimal(0), help_text="Credits that it has moved.")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=200, default="", help_text="Who aborted it, or why it was stopped.")

    lease_token = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    served_at = models.DateTimeField(null=True, help_text="When a batch of it was last begun: they take turns.")

    class Meta:
        default_permissions = ("view",)
        constraints = [
            models.CheckConstraint(
                name="a_bulk_action_is_run_for_a_reason", condition=Q(started_at__isnull=True) | ~Q(reason="")
            ),
            models.CheckConstraint(
                name="a_bulk_action_that_is_over_has_an_end",
                condition=Q(status__in=["ready", "running"], ended_at__isnull=True)
                | Q(status__in=["done", "aborted", "stopped"], ended_at__isnull=False),
            ),
            models.UniqueConstraint(
                fields=["retry_of"],
                condition=Q(status="ready") | Q(started_at__isnull=False),
                name="a_bulk_action_is_tried_again_once",
            ),
        ]
        indexes = [
            models.Index("served_at", condition=Q(status="running") | Q(lease_token__isnull=False), name="bulk_running")
        ]

    def __str__(self) -> str:
        return f"{self.act} of {self.total}"

    @property
    def by(self) -> str:
        return f"operator:{self.operator.get_username()}"

    @property
    def left(self) -> int:
        return self.total - self.done - self.refused


class BulkActionRow(models.Model):
    """One task of a bulk action. It is acted on once: `begun_at` is written before its verb, the outcome after."""

    id = models.BigAutoField(primary_key=True)
    action = models.ForeignKey(BulkAction, models.CASCADE, related_name="rows", db_index=False)
    number = models.PositiveIntegerField()
    task_id = models.UUIDField()
    foretold = models.TextField(default="", help_text="Why the act does not suit it; empty where it does.")
    credits = Credits(default=Decimal(0), help_text="What was foretold to move.")
    target = models.DateTimeField(null=True, help_text="The deadline that it is given.")
    seen = models.TextField(default="", help_text="What it showed then, and must still show when it is acted on.")
    begun_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=16, default="", choices=[("done", "done"), ("refused", "refused")])
    told = models.TextField(default="")
    moved = Credits(null=True)
    acted_at = models.DateTimeField(null=True)

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(fields=["action", "number"], name="rows_of_a_bulk_action_are_numbered"),
            models.UniqueConstraint(fields=["action", "task_id"], name="a_bulk_action_has_a_task_once"),
            models.CheckConstraint(
                name="a_row_with_an_outcome_has_its_time",
                condition=Q(outcome="", acted_at__isnull=True) | (~Q(outcome="") & Q(acted_at__isnull=False)),
            ),
        ]
        indexes = [
            models.Index("action", "number", condition=Q(outcome=""), name="bulk_row_waiting"),
            models.Index("action", "outcome", "number", name="bulk_row_outcome"),
        ]

    def __str__(self) -> str:
        return f"{self.number} of {self.action_id}"
