from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from billing.models import RateCard

CALLBACKS_QUEUE = "callbacks"


class Deployment(models.Model):
    """What clients name as `model`: a capability, its settings, its rate card and its policy."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=38, unique=True, validators=[RegexValidator(r"^[a-z][a-z0-9-]{0,36}[a-z0-9]$")])
    capability = models.CharField(max_length=100)
    resolved_model = models.CharField(max_length=200)
    rate_card = models.ForeignKey(RateCard, models.PROTECT, related_name="deployments")
    settings = models.JSONField(default=dict, blank=True, help_text="Secrets by the NAME of an environment variable.")
    queue = models.CharField(max_length=64, default="default", validators=[RegexValidator(r"^[a-z][a-z0-9_-]*$")])
    timeout = models.PositiveIntegerField(default=600, help_text="Seconds one run may take.")
    max_retries = models.PositiveSmallIntegerField(default=2)
    ttl = models.PositiveIntegerField(default=86_400, help_text="Seconds to wait for the first start.")
    max_lifetime = models.PositiveIntegerField(default=604_800, help_text="Seconds from creation to the end, at most.")
    max_pending = models.PositiveIntegerField(
        null=True, blank=True, help_text="Unfinished tasks, of all accounts, at most."
    )
    bills_partial_output = models.BooleanField(default=False)
    is_default = models.BooleanField(default=False, help_text="Used when a client names only the capability.")
    is_active = models.BooleanField(default=True)
    drained_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        permissions = [
            ("drain_deployment", "Can drain and resume a deployment"),
            ("try_deployment", "Can try a deployment out"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["capability"], condition=Q(is_default=True), name="one_default_a_capability"
            ),
            models.CheckConstraint(name="callbacks_have_their_queue_alone", condition=~Q(queue=CALLBACKS_QUEUE)),
            models.CheckConstraint(name="a_run_may_take_a_second", condition=Q(timeout__gte=1)),
        ]

    def __str__(self) -> str:
        return self.name
