import pgtrigger
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import MD5, Now
from uuid_utils.compat import uuid7

from billing.models import Account
from billing.triggers import HardTrigger, refusal

EVENTS = ("task.succeeded", "task.failed", "task.canceled", "task.refunded", "account.balance_low")


class WebhookEndpoint(models.Model):
    """A URL of an account that is told of each event that it names. One that is deleted is told nothing new."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    account = models.ForeignKey(Account, models.PROTECT, related_name="webhook_endpoints", db_index=False)
    url = models.CharField(max_length=2048)
    events = ArrayField(models.CharField(max_length=64))
    description = models.CharField(max_length=500, null=True)
    metadata = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                F("account"), MD5("url"), condition=Q(deleted_at__isnull=True), name="one_endpoint_an_account_and_url"
            ),
            models.CheckConstraint(
                name="an_endpoint_names_known_events",
                condition=Q(events__contained_by=list(EVENTS), events__len__gte=1),
            ),
        ]
        triggers = [
            HardTrigger(
                name="a_deleted_endpoint_stays_deleted",
                when=pgtrigger.Before,
                operation=pgtrigger.UpdateOf("deleted_at"),
                condition=pgtrigger.Q(old__deleted_at__isnull=False),
                func=refusal("a_deleted_endpoint_stays_deleted", "A deleted endpoint stays deleted"),
            )
        ]

    def __str__(self) -> str:
        return self.url
