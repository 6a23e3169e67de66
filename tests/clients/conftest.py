"""A whole service, by `up`, for clients that know its address and a key."""

import json
from dataclasses import dataclass

import pytest

from tests.config.running import Up, manage, remove


@dataclass(frozen=True)
class Service:
    """A running service, and an account of it."""

    up: Up
    key: str
    secret: str
    test_key: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.up.port}"


@pytest.fixture(scope="package")
def service(tmp_path_factory):
    data = tmp_path_factory.mktemp("service")
    quick = {"STOP_SECONDS": "0.5", "CALLBACK_SCHEDULE": "0,0.2,0.2"}
    up = Up(data, "--workers", "2", ENABLE_TEST_CAPABILITIES="true", CALLBACK_ALLOWED_NETWORKS="127.0.0.0/8", **quick)
    try:
        up.ready()
        made = json.loads(manage(data, "create_account", "Acme", "--credits", "100", "--json").stdout)
        yield Service(up, made["api_key"], made["callback_secret"], made["test_api_key"])
    finally:
        up.stop()
        up.finish()
        remove(data)
