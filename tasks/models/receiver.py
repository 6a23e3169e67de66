from django.db import models
from django.db.models import F, Func, Q, Value
from django.db.models.functions import MD5, Coalesce, Left, Lower

from billing.models import Account

AUTHORITY = Lower(Func(F("url"), Value("^[^/]*//([^/?#]*)"), function="substring"))
# The host and port of a URL, the web's own ports left out: what a receiver's turn goes by, in one spelling since only
# one is taken. Never null, so that no row is passed over.
HOST = Coalesce(
    Left(Func(AUTHORITY, Value(r"\.?(:0*(80|443)|(:[0-9]+))?$"), Value(r"\3"), function="regexp_replace"), 255),
    Value(""),
)
# A URL without its query: what a receiver is known by.
ENDPOINT = Func(F("url"), Value("?"), Value(1), function="split_part", output_field=models.TextField())


class Receiver(models.Model):
    """A URL of one account that has failed: how often in a row, and since when callbacks wait for it to work again.

    One that never failed has no row.
    """

    account = models.ForeignKey(Account, models.CASCADE, related_name="+", db_index=False)
    url = models.CharField(max_length=2048, help_text="Without its query.")
    host = models.GeneratedField(expression=HOST, output_field=models.CharField(max_length=255), db_persist=True)
    failures = models.PositiveIntegerField(default=0, help_text="In a row, probes included.")
    failing_since = models.DateTimeField(null=True, help_text="The first of these failures.")
    last_error = models.TextField(null=True)
    last_failure_at = models.DateTimeField()
    recovered_at = models.DateTimeField(null=True, help_text="When a callback was delivered after failures.")
    paused_at = models.DateTimeField(null=True)
    probes = models.PositiveIntegerField(default=0, help_text="That failed since it was paused.")
    next_probe_at = models.DateTimeField(
        null=True,
        help_text="Or, when it works again, since when those that waited are let go. None while nothing waits.",
    )
    probing_until = models.DateTimeField(null=True, help_text="A probe is under way, at the latest until then.")
    probe = models.ForeignKey(
        "tasks.Callback", models.SET_NULL, null=True, related_name="+", help_text="The callback that probes next."
    )

    class Meta:
        constraints = [models.UniqueConstraint(F("account"), MD5("url"), name="one_receiver_an_account_and_url")]
        indexes = [
            models.Index("last_failure_at", name="receiver_failed"),
            models.Index("next_probe_at", condition=Q(next_probe_at__isnull=False), name="receiver_due"),
        ]

    def __str__(self) -> str:
        return self.url
