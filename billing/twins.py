"""Test accounts: each account's twin, which its test keys spend from, with credits that come anew every day."""

from datetime import UTC, datetime
from decimal import Decimal

from django.conf import settings
from django.db import transaction

from billing import ledger
from billing.credentials import open_account
from billing.exceptions import KeyReused
from billing.models import Account


@transaction.atomic
def twin_of(account: Account) -> tuple[Account, str | None]:
    """The account's twin, and its callback secret if it is opened only now. A twin is its own."""
    owner = Account.objects.select_for_update(no_key=True).get(pk=account.pk)
    if owner.twin_of_id:
        return owner, None
    if found := Account.objects.filter(twin_of=owner).first():
        return found, None
    twin, secret = open_account(f"{owner.name} (test)"[:200], twin_of=owner)
    if not owner.is_active:
        Account.objects.filter(pk=twin.pk).update(is_active=False)
    _fill(twin)
    return twin, secret


def fill() -> int:
    """Give every twin today's credits, if it has fewer than a day's; returns how many were given some."""
    poor = Account.objects.filter(twin_of__isnull=False, is_active=True, available__lt=settings.TEST_CREDITS_A_DAY)
    return sum(_fill(twin) for twin in poor.only("available"))


def _fill(twin: Account) -> bool:
    """Up to a day's credits, once a UTC day. Whoever is second, with another amount in mind, changes nothing."""
    missing = Decimal(settings.TEST_CREDITS_A_DAY) - twin.available
    key = f"test:{twin.pk}:{datetime.now(UTC):%Y-%m-%d}"
    if missing <= 0 or twin.transfers.filter(key=key).exists():
        return False
    try:
        ledger.grant(twin.pk, missing, key=key, reason="test credits of the day", actor="system")
    except KeyReused:
        return False
    return True
