import pgtrigger
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import MD5, Now
from uuid_utils.compat import uuid7

from billing.models import Account
from billing.triggers import HardTrigger
from tasks.models.endpoint import WebhookEndpoint
from tasks.models.fields import ExactJSONField
from tasks.models.receiver import ENDPOINT, HOST, Receiver
from tasks.models.task import Task

OPEN = Q(status="pending", waits_for__isnull=True)
WAITING = Q(waits_for__isnull=False)
ENDED_BADLY = Q(status="failed", failed_at__isnull=False)
# What most callbacks tell.
USUAL = "task.succeeded"


class Callback(models.Model):
    """One event owed to one receiver, with the body it gets on every try.

    The receiver is the URL that its task names, or an endpoint of the account; an event of the account has no task.
    """

    class Status(models.TextChoices):
        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    task = models.ForeignKey(Task, models.CASCADE, null=True, related_name="callbacks")
    account = models.ForeignKey(Account, models.PROTECT, related_name="+", db_index=False)
    endpoint = models.ForeignKey(WebhookEndpoint, models.PROTECT, null=True, related_name="callbacks", db_index=False)
    event = models.CharField(max_length=64)
    url = models.CharField(max_length=2048)
    host = models.GeneratedField(expression=HOST, output_field=models.CharField(max_length=255), db_persist=True)
    format = models.CharField(max_length=32, default="standard")
    body = models.TextField(default="")
    status = models.CharField(max_length=16, choices=Status, default=Status.PENDING)
    attempt_count = models.PositiveIntegerField(default=0, db_default=0)
    tries_left = models.PositiveSmallIntegerField(help_text="Tries before it ends as failed.")
    next_attempt_at = models.DateTimeField(db_default=Now(), null=True)
    lease_token = models.UUIDField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    waits_for = models.ForeignKey(
        Receiver,
        models.PROTECT,
        null=True,
        db_index=False,
        related_name="waiting",
        help_text="The paused receiver that it waits for; no try is used up meanwhile.",
    )
    waits_since = models.DateTimeField(null=True)
    redelivered_at = models.DateTimeField(null=True)
    delivered_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True, editable=False, help_text="When it ended as failed.")
    last_error = models.TextField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        permissions = [("redeliver_callback", "Can redeliver a callback")]
        indexes = [
            models.Index("next_attempt_at", condition=OPEN, name="callback_due"),
            models.Index("account", "host", "next_attempt_at", "id", condition=OPEN, name="callback_turn"),
            models.Index("account", "next_attempt_at", condition=OPEN, name="callback_owing"),
            models.Index("lease_expires_at", condition=Q(lease_expires_at__isnull=False), name="callback_leased"),
            models.Index("account", MD5(ENDPOINT), condition=OPEN, name="callback_receiver"),
            models.Index("waits_for", "next_attempt_at", "id", condition=WAITING, name="callback_waiting"),
            models.Index("waits_since", condition=WAITING, name="callback_waits"),
            models.Index("task", name="callback_task"),
            # Whose tasks are owed one, or were told nothing in the end: in the order of the tasks.
            models.Index("status", "task", condition=~Q(status="delivered"), name="callback_undelivered"),
            # What operators ask for, the newest first. Only the first is kept for a callback that went well.
            models.Index("account", F("id").desc(), name="callback_account"),
            models.Index("event", F("id").desc(), condition=~Q(event=USUAL), name="callback_event"),
            models.Index("host", F("failed_at").desc(), condition=ENDED_BADLY, name="callback_failed_host"),
            models.Index("account", MD5(ENDPOINT), condition=ENDED_BADLY, name="callback_failed_receiver"),
            models.Index("endpoint", condition=Q(status="pending", endpoint__isnull=False), name="callback_endpoint"),
            models.Index("endpoint", "created_at", condition=Q(event="account.balance_low"), name="callback_low"),
            models.Index("delivered_at", condition=Q(delivered_at__isnull=False), name="callback_delivered"),
            models.Index("failed_at", condition=Q(failed_at__isnull=False), name="callback_failed"),
            models.Index("endpoint", F("id").desc(), condition=Q(endpoint__isnull=False), name="callback_told"),
        ]
        triggers = [
            HardTrigger(
                name="a_failed_callback_has_an_end",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert | pgtrigger.UpdateOf("status"),
                condition=pgtrigger.Condition("NEW.status = 'failed' OR NEW.failed_at IS NOT NULL"),
                func="NEW.failed_at := CASE WHEN NEW.status = 'failed' THEN coalesce(NEW.failed_at, now()) END; "
                "RETURN NEW;",
            )
        ]
        constraints = [
            models.CheckConstraint(condition=Q(status="pending") | ~WAITING, name="only_owed_callbacks_wait"),
            models.CheckConstraint(
                condition=Q(task__isnull=False) | Q(endpoint__isnull=False), name="a_callback_has_a_task_or_an_endpoint"
            ),
            models.CheckConstraint(
                condition=~Q(status="pending", redelivered_at__isnull=False, body=""),
                name="what_is_owed_again_has_a_body",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} to {self.url}"


class CallbackAttempt(models.Model):
    """One try at delivering a callback, and what the receiver answered."""

    id = models.BigAutoField(primary_key=True)
    callback = models.ForeignKey(Callback, models.CASCADE, related_name="attempts")
    number = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    duration_ms = models.PositiveIntegerField()
    status_code = models.PositiveSmallIntegerField(null=True)
    request_headers = ExactJSONField(
        null=True, help_text="All headers as they left. Empty: nothing was sent; null: not kept, as before."
    )
    address = models.CharField(
        max_length=64, default="", db_default="", help_text="Where the name led, and what was connected to."
    )
    response = models.TextField(default="", help_text="The first 2 kB of the answer.")
    response_headers = models.TextField(default="", db_default="", help_text="The first 2 kB of them.")
    error = models.TextField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["callback", "number"], name="attempts_are_numbered")]
        indexes = [models.Index("started_at", name="attempt_started")]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.status_code or self.error}"
