"""Whose tasks are seeded: accounts with names, keys, limits, callback URLs that lead nowhere, and a few in trouble."""

import hashlib
import random
import secrets
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.utils.timezone import now

from billing.credentials import encrypt, new_callback_secret
from billing.models import Account, ApiKey
from tasks.lifecycle import USAGE_EXCEEDS_QUOTE
from tasks.models import Receiver, WebhookEndpoint

CUT = USAGE_EXCEEDS_QUOTE
FIRST = (
    *("Northwind", "Umbrella", "Blue Harbor", "Kestrel", "Linden", "Santa Clara", "Old Mill", "Polaris", "Redwood"),
    *("Tidewater", "Zürich", "Granite", "Juniper", "Meridian", "Ostrava", "Silver Lake", "Vantage", "Whitby"),
)
SECOND = ("Logistics", "Labs", "Health", "Press", "Insurance", "Foods", "Robotics", "Legal", "Travel", "Analytics")
FAILURES = 10


def open_accounts(count: int, begin: datetime, chance: random.Random) -> list[tuple[Any, ...]]:
    """New accounts as `seed_account` has them, with their keys, receivers and endpoints; their balances come last.

    Receivers are of the reserved name `.example`, which leads nowhere whoever asks.
    """
    born = begin - timedelta(days=3)
    return [_open(place, born + timedelta(seconds=place), chance) for place in range(1, count + 1)]


def _open(place: int, born: datetime, chance: random.Random) -> tuple[Any, ...]:
    name = f"{chance.choice(FIRST)} {chance.choice(SECOND)}"
    account = _account(f"{name} {place}", place, born)
    first, second = (_key(account, name, born) for name in ("production", "batch"))
    slug = f"{name.lower().replace(' ', '-').replace('ü', 'u')}-{place}"
    hook = f"https://hooks.{slug}.example/counterfoil" if place % 5 < 3 else None
    failing = hook is not None and place % 13 == 6
    receiver = _receiver(account, hook, place) if hook and (failing or place % 13 == 1) else None
    endpoint = _endpoint(account, slug, born) if place % 7 == 2 else None
    keys = (first.pk, first.prefix, second.pk, second.prefix)
    asked = (hook, *keys, receiver.pk if receiver else None, endpoint and endpoint.pk, endpoint and endpoint.url)
    low = place % 11 == 3
    opening = Decimal(chance.randrange(1, 9) if low else chance.randrange(200, 5000))
    return (place, account.pk, born, opening, low, failing, *asked)


def _account(name: str, place: int, born: datetime) -> Account:
    account = Account(
        name=name,
        callback_secret=encrypt(new_callback_secret()),
        created_at=born,
        monthly_cap=Decimal(1_000_000) if place % 4 == 0 else None,
        low_balance_threshold=Decimal(50) if place % 6 == 0 else None,
        credit_limit=Decimal(100) if place % 10 == 0 else Decimal(0),
        requests_per_minute=1200 if place % 3 == 0 else 600,
    )
    account.save(force_insert=True)
    return account


def _key(account: Account, name: str, born: datetime) -> ApiKey:
    """A key that nobody has: its secret is thrown away."""
    secret = f"cf_live_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    key = ApiKey(account=account, name=name, prefix=secret[:16], digest=digest, created_at=born)
    key.save(force_insert=True)
    return key


def _receiver(account: Account, url: str, place: int) -> Receiver:
    """One that is paused and probed in a month, or one that has failed and works again."""
    lately, paused = now() - timedelta(hours=1), place % 13 == 6
    return Receiver.objects.create(
        account=account,
        url=url,
        failures=FAILURES + place % 30 if paused else 0,
        last_error="The receiver answered 503.",
        last_failure_at=lately if paused else lately - timedelta(days=1),
        recovered_at=None if paused else lately,
        paused_at=lately - timedelta(days=4) if paused else None,
        next_probe_at=now() + timedelta(days=30) if paused else None,
    )


def _endpoint(account: Account, slug: str, born: datetime) -> WebhookEndpoint:
    url, events = f"https://events.{slug}.example/tasks", ["task.failed", "task.canceled"]
    return WebhookEndpoint.objects.create(
        account=account, url=url, events=events, description="What went wrong", created_at=born
    )
