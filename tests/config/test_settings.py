"""Settings that cannot be meant are refused at the start, in a sentence."""

import os
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from config.processes import BASE_DIR
from config.public_url import public_url


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CALLBACK_ALLOWED_NETWORKS", "10.0.0.1/8", "CALLBACK_ALLOWED_NETWORKS: 10.0.0.1/8 has host bits set"),
        ("CALLBACK_ALLOWED_NETWORKS", "everything", "CALLBACK_ALLOWED_NETWORKS"),
        ("ENCRYPTION_KEYS", "notfernet", "ENCRYPTION_KEYS: each is a Fernet key"),
        ("DATABASE_URL", "sqlite:///x.db", "DATABASE_URL must name a PostgreSQL database"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(name, value, words):
    secrets = {"SECRET_KEY": "x" * 60, "ENCRYPTION_KEYS": "A" * 43 + "="}
    environment = os.environ | secrets | {name: value}

    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize(
    ("given", "kept", "origin"),
    [
        ("HTTPS://Tasks.Example.COM/", "https://tasks.example.com", "https://tasks.example.com"),
        (" https://tasks.example.com:443 ", "https://tasks.example.com", "https://tasks.example.com"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://[::1]:8443/tasks/", "https://[::1]:8443/tasks", "https://[::1]:8443"),
    ],
)
def test_the_public_address_is_kept_as_browsers_write_it(given, kept, origin):
    assert public_url(given) == (kept, origin)


@pytest.mark.parametrize("given", ["tasks.example.com", "ftp://x", "https://", "https://x:port", "https://me:it@x", ""])
def test_a_public_address_that_is_none_is_refused(given):
    with pytest.raises(ImproperlyConfigured, match="PUBLIC_URL"):
        public_url(given)
