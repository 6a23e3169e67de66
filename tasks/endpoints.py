"""An account's webhook endpoints: URLs that are told of its events, beside the URL that a task may name."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from billing.models import Account
from billing.statements import one, rows
from tasks.exceptions import EndpointExists, NoEndpoint, TooManyEndpoints
from tasks.models import WebhookEndpoint

MOST = 10
REASON = "endpoint_deleted"

# Shares that events took of the row are waited for: what they wrote is seen by the next statement, and ends.
DELETE = """
UPDATE tasks_webhookendpoint SET deleted_at = now()
WHERE id = %(id)s AND account_id = %(account)s AND deleted_at IS NULL RETURNING id
"""
END_PENDING = """
WITH pending AS MATERIALIZED (
    SELECT id FROM tasks_callback WHERE endpoint_id = %(id)s AND status = 'pending' ORDER BY id FOR NO KEY UPDATE
)
UPDATE tasks_callback c SET status = 'failed', last_error = %(reason)s, next_attempt_at = NULL, waits_for_id = NULL,
    waits_since = NULL, lease_token = NULL, lease_expires_at = NULL
FROM pending WHERE c.id = pending.id RETURNING c.id
"""


def of(account_id: UUID) -> QuerySet[WebhookEndpoint]:
    """The account's endpoints that are not deleted, oldest first."""
    return WebhookEndpoint.objects.filter(account_id=account_id, deleted_at=None).order_by("pk")


@transaction.atomic(durable=True)
def add(account_id: UUID, **fields: Any) -> WebhookEndpoint:
    """A new endpoint. Raises EndpointExists for a URL that the account has, TooManyEndpoints after ten."""
    Account.objects.select_for_update(no_key=True).only("pk").get(pk=account_id)
    if of(account_id).filter(url=fields["url"]).exists():
        raise EndpointExists
    if of(account_id).count() >= MOST:
        raise TooManyEndpoints
    return WebhookEndpoint.objects.create(account_id=account_id, **fields)


def find(account_id: UUID, endpoint_id: UUID | None) -> WebhookEndpoint:
    """The account's endpoint of this id. Raises NoEndpoint."""
    found = of(account_id).filter(pk=endpoint_id).first()
    if found is None:
        raise NoEndpoint
    return found


@transaction.atomic(durable=True)
def delete(account_id: UUID, endpoint_id: UUID | None) -> None:
    """Tell the endpoint nothing any more: what it is still owed ends as failed. Raises NoEndpoint."""
    if one(DELETE, {"id": endpoint_id, "account": account_id}) is None:
        raise NoEndpoint
    rows(END_PENDING, {"id": endpoint_id, "reason": REASON})
