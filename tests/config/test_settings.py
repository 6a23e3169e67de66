"""Settings that cannot be meant are refused at the start, in a sentence."""

import os
import subprocess
import sys

import pytest

from config.processes import BASE_DIR


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
