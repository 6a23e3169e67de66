from django.db import models

from billing.models import Account


class Turn(models.Model):
    """When an account was last served in a queue: a row each, written by the claim."""

    pk = models.CompositePrimaryKey("queue", "account")
    queue = models.CharField(max_length=64)
    # The claim is the only reader, by the key.
    account = models.ForeignKey(Account, models.CASCADE, related_name="+", db_index=False)
    served_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.account_id} in {self.queue}"
