"""Keys and callback secrets: how they look, and that nothing stored gives them away."""

import base64
import hashlib
import re
from datetime import UTC, datetime

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.db import IntegrityError, connection

from billing.credentials import decrypt, digest, encrypt, issue_key, new_callback_secret, open_account
from billing.models import ApiKey

pytestmark = pytest.mark.django_db


def stored(table: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT t::text FROM {table} t")
        return "\n".join(row for (row,) in cursor.fetchall())


def test_a_key_names_us_its_kind_and_a_prefix():
    owner, _ = open_account("Acme")

    key, secret = issue_key(owner, name="laptop")

    assert re.fullmatch(r"cf_live_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}", secret)
    assert key.prefix == secret[: len("cf_live_") + 8]


def test_a_key_of_a_twin_says_test():
    owner, _ = open_account("Acme")
    twin, _ = open_account("Acme, test", twin_of=owner)

    key, secret = issue_key(twin, name="laptop")

    assert re.fullmatch(r"cf_test_[0-9A-Za-z]{8}_[0-9A-Za-z]{43}", secret)
    assert key.prefix == secret[:16]


def test_an_account_has_one_twin():
    owner, _ = open_account("Acme")
    open_account("Acme, test", twin_of=owner)

    with pytest.raises(IntegrityError, match="twin_of"):
        open_account("Acme, test again", twin_of=owner)


def test_a_key_is_found_by_its_digest_and_not_kept():
    owner, _ = open_account("Acme")

    key, secret = issue_key(owner, name="laptop")

    assert ApiKey.objects.get(digest=digest(secret)) == key
    assert digest(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.rpartition("_")[2] not in stored("billing_apikey")


def test_no_two_keys_are_alike():
    owner, _ = open_account("Acme")

    secrets = {issue_key(owner, name="laptop")[1] for _ in range(50)}

    assert len(secrets) == 50
    assert len({secret[8:16] for secret in secrets}) == 50


def test_a_key_may_do_what_it_was_issued_for():
    owner, _ = open_account("Acme")
    until = datetime(2030, 1, 1, tzinfo=UTC)

    usual, _ = issue_key(owner, name="usual")
    narrow, _ = issue_key(owner, name="narrow", scopes=["tasks:read"], expires_at=until)
    useless, _ = issue_key(owner, name="useless", scopes=[])

    assert usual.scopes == ["tasks:read", "tasks:write", "billing:read"]
    assert (narrow.scopes, narrow.expires_at) == (["tasks:read"], until)
    assert useless.scopes == []


def test_a_callback_secret_is_thirty_two_bytes_in_base_64():
    secret = new_callback_secret()

    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert secret != new_callback_secret()


def test_a_callback_secret_is_kept_encrypted():
    owner, secret = open_account("Acme")

    owner.refresh_from_db()

    assert decrypt(owner.callback_secret) == secret
    assert secret.removeprefix("whsec_") not in stored("billing_account")


def test_the_same_text_is_never_encrypted_the_same():
    assert encrypt("whsec_x") != encrypt("whsec_x")


def test_the_first_key_encrypts_and_an_older_one_decrypts(settings):
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    settings.ENCRYPTION_KEYS = [old]
    before = encrypt("whsec_before")

    settings.ENCRYPTION_KEYS = [new, old]
    after = encrypt("whsec_after")

    assert (decrypt(before), decrypt(after)) == ("whsec_before", "whsec_after")
    assert Fernet(new).decrypt(after.encode()) == b"whsec_after"


def test_a_key_that_was_taken_away_decrypts_nothing(settings):
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    token = encrypt("whsec_x")

    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]

    with pytest.raises(InvalidToken):
        decrypt(token)
