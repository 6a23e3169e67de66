from decimal import Decimal

import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from billing.models import Account, ApiKey, Credits
from billing.triggers import HardTrigger, no_truncate, refusal
from tasks.identifiers import public_id
from tasks.models.deployment import Deployment
from tasks.models.fields import ExactJSONField
from tasks.statuses import FINAL, MOVES, UNFINISHED, Status

NO_PROGRESS = {"percent": None, "stage": None, "message": None}
FROZEN = (
    "status", "account_id", "input", "output", "error", "warnings", "usage", "quote", "quoted", "usd_rate", "metadata",
    "capability", "model", "resolved_model", "client_reference", "progress",
    "created_at", "not_before", "expires_at", "deadline", "started_at", "completed_at",
    "cancel_requested_at", "cancel_reason", "attempt",
)  # fmt: skip


EXACT = ("input", "output")
# What is paused or blocked costs neither a claim nor the sweeper a look.
CLAIMABLE = Q(status="queued", paused_at__isnull=True, blocked=0)


def no_progress() -> dict:
    return dict(NO_PROGRESS)


def _sql_list(statuses) -> str:
    return ", ".join(f"'{status}'" for status in sorted(statuses))


def _columns(row: str, names=FROZEN) -> str:
    return ", ".join(f"{row}.{name}" + ("::text" if name in EXACT else "") for name in names)


LEGAL_MOVES = ", ".join(f"('{a}', '{b}')" for a in sorted(MOVES) for b in sorted(MOVES[a]))
COUNT_TASKS = f"""
    IF TG_OP = 'UPDATE' THEN IF OLD.status = NEW.status THEN RETURN NULL; END IF; END IF;
    IF TG_OP = 'INSERT' THEN
        UPDATE billing_account SET pending = pending + 1 WHERE id = NEW.account_id;
    ELSIF NEW.status = 'running' THEN
        UPDATE billing_account SET running = running + 1 WHERE id = NEW.account_id;
    ELSE
        UPDATE billing_account SET
            running = running - CASE OLD.status WHEN 'running' THEN 1 ELSE 0 END,
            pending = pending - CASE WHEN NEW.status IN ({_sql_list(FINAL)}) THEN 1 ELSE 0 END
        WHERE id = NEW.account_id;
    END IF;
    RETURN NULL;
"""  # noqa: S608 - the statuses are ours
KEPT = [column for column in FROZEN if column not in EXACT]
DELETED_CONTENT = (
    "NEW.content_deleted_at IS NOT NULL AND NEW.input::text = '{}' AND NEW.output IS NULL AND "
    f"({_columns('OLD', KEPT)}) IS NOT DISTINCT FROM ({_columns('NEW', KEPT)})"
)


class Task(models.Model):
    """What a client paid for: one request, its life, its outcome."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    # Its own index would tempt the planner away from task_claim and task_account.
    account = models.ForeignKey(Account, models.PROTECT, related_name="tasks", db_index=False)
    api_key = models.ForeignKey(ApiKey, models.PROTECT, null=True, related_name="+", db_index=False)
    deployment = models.ForeignKey(Deployment, models.PROTECT, related_name="tasks", db_index=False)
    capability = models.CharField(max_length=100)
    model = models.CharField(max_length=64)
    resolved_model = models.CharField(max_length=200)
    queue = models.CharField(max_length=64)
    test = models.BooleanField(
        default=False, help_text="Made by a test key: test.echo runs in place of the capability."
    )
    test_outcome = models.CharField(max_length=32, null=True, help_text="The end that a test was told to have.")

    status = models.CharField(max_length=16, choices=[(s.value, s.value) for s in Status], default=Status.QUEUED)
    seq = models.BigIntegerField(default=1, help_text="Rises with every visible change.")
    attempt = models.PositiveIntegerField(default=1, help_text="The number of the current run.")
    priority = models.PositiveSmallIntegerField(default=5)
    available_at = models.DateTimeField(db_default=Now())
    not_before = models.DateTimeField(null=True)
    paused_at = models.DateTimeField(null=True)
    blocked = models.PositiveIntegerField(default=0, help_text="Unmet dependencies.")
    depends_on = ArrayField(models.UUIDField(), default=list)

    metadata = models.JSONField(default=dict)
    input = ExactJSONField(default=dict)
    output = ExactJSONField(null=True)
    progress = models.JSONField(default=no_progress)
    warnings = models.JSONField(default=list)
    error = models.JSONField(null=True)
    usage = models.JSONField(default=dict, help_text="Meter to decimal string, as measured.")
    quote = models.JSONField(default=dict, help_text="The bound and the price rows used.")
    quoted = Credits(default=Decimal(0), help_text="The ceiling of the quote.")
    waived = models.BooleanField(default=False, help_text="Listed in full, billed nothing.")
    usd_rate = models.DecimalField(max_digits=12, decimal_places=4, default=1000, help_text="Credits for one USD.")

    client_reference = models.CharField(max_length=255, null=True)
    idempotency_key = models.CharField(max_length=64, null=True)
    idempotency_fingerprint = models.CharField(max_length=64, null=True)
    creation_request = models.JSONField(null=True)
    callback_url = models.CharField(max_length=2048, null=True)
    callback_format = models.CharField(max_length=32, default="standard")

    max_retries = models.PositiveSmallIntegerField(default=0)
    retries_left = models.PositiveSmallIntegerField(default=0)
    timeout = models.PositiveIntegerField(help_text="Seconds one run may take.")
    deadline = models.DateTimeField(help_text="It is final soon after this, whatever happens.")
    expires_at = models.DateTimeField(help_text="It has started by then, or never will.")

    rerun_of = models.ForeignKey("self", models.SET_NULL, null=True, related_name="reruns")
    rerun_root = models.UUIDField(null=True)
    cancel_reason = models.TextField(null=True)
    content_deleted_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)

    class Meta:
        permissions = [
            ("cancel_task", "Can cancel a task"),
            ("rerun_task", "Can rerun a task"),
            ("pause_task", "Can pause and resume a task"),
            ("extend_deadline", "Can extend a deadline"),
            ("change_priority", "Can change a priority"),
            ("delete_content", "Can delete a task's content"),
            ("view_content", "Can view a task's input and output"),
        ]
        constraints = [
            models.CheckConstraint(name="status_is_known", condition=Q(status__in=[s.value for s in Status])),
            models.CheckConstraint(
                name="only_a_test_is_told_its_outcome", condition=Q(test=True) | Q(test_outcome__isnull=True)
            ),
            models.CheckConstraint(name="priority_is_0_to_9", condition=Q(priority__lte=9)),
            models.CheckConstraint(
                name="a_final_task_has_an_end",
                condition=Q(status__in=sorted(FINAL), completed_at__isnull=False)
                | Q(status__in=sorted(UNFINISHED), completed_at__isnull=True),
            ),
            models.CheckConstraint(
                name="a_failed_task_has_an_error",
                condition=Q(status="failed", error__isnull=False) | (~Q(status="failed") & Q(error__isnull=True)),
            ),
            models.UniqueConstraint(
                fields=["account", "idempotency_key"],
                condition=Q(idempotency_key__isnull=False),
                name="one_task_an_idempotency_key",
            ),
            models.UniqueConstraint(
                fields=["rerun_root"],
                condition=Q(rerun_root__isnull=False, status__in=sorted(UNFINISHED)),
                name="one_unfinished_task_a_chain",
            ),
        ]
        indexes = [
            models.Index("queue", "account", F("priority").desc(), "id", condition=CLAIMABLE, name="task_claim"),
            models.Index("queue", "account", condition=Q(status="running"), name="task_running"),
            models.Index("deployment", condition=Q(status__in=sorted(UNFINISHED)), name="task_pending"),
            models.Index("deadline", condition=Q(status__in=sorted(UNFINISHED)), name="task_deadline"),
            models.Index("expires_at", condition=Q(status="queued", started_at__isnull=True), name="task_expiry"),
            models.Index("account", F("id").desc(), name="task_account"),
            models.Index("client_reference", "account", condition=Q(client_reference__isnull=False), name="task_named"),
            # Beside the key alone it serves a list of one model, the newest first.
            models.Index("deployment", F("id").desc(), name="task_model"),
            models.Index(F("error__code"), F("id").desc(), condition=Q(status="failed"), name="task_failure"),
            models.Index("status", F("id").desc(), condition=~Q(status="succeeded"), name="task_status"),
            # What ended in a time, read from the index alone: a row is a kilobyte.
            models.Index(
                fields=["completed_at"],
                include=["status", "started_at", "model"],
                condition=Q(completed_at__isnull=False),
                name="task_ended",
            ),
            GinIndex(fields=["metadata"], opclasses=["jsonb_path_ops"], name="task_metadata"),
        ]
        triggers = [
            HardTrigger(
                name="a_status_moves_by_the_table",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf("status"),
                condition=pgtrigger.Q(old__status__df=pgtrigger.F("new__status")),
                func=f"IF (OLD.status, NEW.status) NOT IN ({LEGAL_MOVES}) THEN RAISE EXCEPTION USING ERRCODE='CF002', "
                "CONSTRAINT='a_status_moves_by_the_table', TABLE=TG_TABLE_NAME, "
                "MESSAGE=format('task %s: %s to %s', OLD.id, OLD.status, NEW.status); END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="final_is_final",
                when=pgtrigger.Before,
                operation=pgtrigger.Update,
                condition=pgtrigger.Condition(
                    f"OLD.status IN ({_sql_list(FINAL)}) AND ({_columns('OLD')}) IS DISTINCT FROM ({_columns('NEW')})"
                ),
                func=f"IF NOT ({DELETED_CONTENT}) THEN "
                + refusal("final_is_final", "A final task never changes")
                + " END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="a_task_starts_queued",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                func="IF NEW.status <> 'queued' THEN "
                + refusal("a_task_starts_queued", "A task starts queued", code="CF002")
                + " END IF; RETURN NEW;",
            ),
            HardTrigger(
                name="a_task_is_counted",
                when=pgtrigger.After,
                operation=pgtrigger.Insert | pgtrigger.UpdateOf("status"),
                func=COUNT_TASKS,
            ),
            HardTrigger(
                name="only_a_final_task_is_purged",
                when=pgtrigger.Before,
                operation=pgtrigger.Delete,
                func=f"IF OLD.status NOT IN ({_sql_list(FINAL)}) THEN "
                + refusal("only_a_final_task_is_purged", "Only a final task is purged")
                + " END IF; RETURN OLD;",
            ),
            no_truncate("task"),
        ]

    def __str__(self) -> str:
        return public_id(self.id)
