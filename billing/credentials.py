"""API keys and callback secrets: how they are made, recognised and kept."""

import base64
import hashlib
import secrets
from datetime import datetime

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings

from billing.models import Account, ApiKey

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def issue_key(
    account: Account, *, name: str, scopes: list[str] | None = None, expires_at: datetime | None = None
) -> tuple[ApiKey, str]:
    """A new key and its secret, `cf_live_<8>_<43>`; a test twin's says `cf_test_`. The secret is not kept."""
    kind = "test" if account.twin_of_id else "live"
    secret = f"cf_{kind}_{_random(8)}_{_random(43)}"
    chosen = {} if scopes is None else {"scopes": scopes}
    key = ApiKey(account=account, name=name, prefix=secret[:16], digest=digest(secret), expires_at=expires_at, **chosen)
    key.save(force_insert=True)
    return key, secret


def digest(secret: str) -> str:
    """What is stored of a key: SHA-256, in hex. Fast is right for 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_callback_secret() -> str:
    """A Standard Webhooks secret: `whsec_` and 32 random bytes in base 64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


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


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _fernet() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.ENCRYPTION_KEYS])
