"""API keys and callback secrets: how they are made, recognised and kept."""

import base64
import hashlib
import secrets
from datetime import datetime, timedelta
from decimal import Decimal

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from billing.exceptions import ChangedSince, KeyEnded
from billing.models import Account, ApiKey

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# What a key shows of its secret: `cf_live_` and eight characters.
PREFIX = 16


def issue_key(
    account: Account,
    *,
    name: str,
    scopes: list[str] | None = None,
    expires_at: datetime | None = None,
    monthly_cap: Decimal | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, `cf_live_<8>_<43>`; a test twin's says `cf_test_`. The secret is not kept."""
    secret = _new_secret(account)
    chosen = {} if scopes is None else {"scopes": scopes}
    key = ApiKey(
        account=account,
        name=name,
        prefix=secret[:PREFIX],
        digest=digest(secret),
        expires_at=expires_at,
        monthly_cap=monthly_cap,
        **chosen,
    )
    key.save(force_insert=True)
    return key, secret


@transaction.atomic
def roll(key: ApiKey, *, overlap: timedelta, seen: str | None = None) -> str:
    """A new secret for the same key, which the caller shows once; the old one is good for `overlap` more.

    The key keeps its id, scopes, expiry, rate and spending. Of two secrets before, the older ends at once. Raises
    KeyEnded for a key that is revoked or expired, and ChangedSince when its secret does not begin as was `seen`.
    """
    row = ApiKey.objects.select_for_update(no_key=True, of=("self",)).select_related("account").get(pk=key.pk)
    now = timezone.now()
    if row.revoked_at or (row.expires_at and row.expires_at <= now):
        raise KeyEnded
    if seen not in (None, row.prefix):
        raise ChangedSince(f"It changed since you looked: its secret begins with {row.prefix} now. Nothing was rolled.")
    secret = _new_secret(row.account)
    row.previous_prefix, row.previous_digest, row.previous_until = row.prefix, row.digest, now + overlap
    row.prefix, row.digest = secret[:PREFIX], digest(secret)
    row.save(update_fields=["previous_prefix", "previous_digest", "previous_until", "prefix", "digest"])
    return secret


def revoke(key: ApiKey) -> bool:
    """Refuse both secrets of the key from now on. False says that it was revoked before."""
    return ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=Now()) > 0


def digest(secret: str) -> str:
    """What is stored of a key: SHA-256, in hex. Fast is right for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_callback_secret() -> str:
    """A Standard Webhooks secret: `whsec_` and 32 random bytes in base 64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


@transaction.atomic
def rotate_callback_secret(account: Account, *, grace: timedelta, seen: str | None = None) -> str:
    """A new secret, which the caller shows once; callbacks are signed with the old one too for the `grace`.

    `seen` is the mark of the secret that the caller looked at. Raises ChangedSince when it is another by now.
    """
    row = Account.objects.select_for_update(no_key=True).only("callback_secret").get(pk=account.pk)
    if seen not in (None, mark(row.callback_secret)):
        raise ChangedSince("It changed since you looked: the secret was rotated. Nothing was done.")
    secret = new_callback_secret()
    Account.objects.filter(pk=row.pk).update(
        callback_secret_previous=F("callback_secret"),
        callback_secret_previous_until=Now() + grace,
        callback_secret=encrypt(secret),
    )
    return secret


def mark(token: str) -> str:
    """What an encrypted secret is recognised by, and tells nothing of it."""
    return digest(token)[:16]


def encrypt(text: str) -> str:
    return _fernet().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    return _fernet().decrypt(token.encode()).decode()


def open_account(name: str, *, twin_of: Account | None = None) -> tuple[Account, str]:
    """A new account and its callback secret, which is kept encrypted and can be read by its owner only now."""
    secret = new_callback_secret()
    account = Account(name=name, twin_of=twin_of, callback_secret=encrypt(secret))
    account.save(force_insert=True)
    return account, secret


def _new_secret(account: Account) -> str:
    kind = "test" if account.twin_of_id else "live"
    return f"cf_{kind}_{_random(8)}_{_random(43)}"


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.ENCRYPTION_KEYS])
