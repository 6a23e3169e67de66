"""A consumer's HTTP client, in process, and a real server where a test needs one."""

import json
from typing import Any

from django.test import Client

from billing.models import Account
from tests import builders


class Consumer:
    """Calls the API with an account's key. Bodies are sent as given when they are bytes."""

    def __init__(self, account: Account | None = None, **key: Any) -> None:
        self.account = account or builders.account("100")
        self.api_key, self.secret = builders.key(self.account, **key)
        self.http = Client(raise_request_exception=False)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        sent = {"Authorization": f"Bearer {self.secret}"} | {n.replace("_", "-"): v for n, v in headers.items()}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.http.generic(
            method, path, data, content_type="application/json", headers={n: v for n, v in sent.items() if v}
        )

    def get(self, path: str, **headers: str) -> Any:
        return self.call("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        return self.call("POST", path, body, **headers)

    def create(self, to: Any, **fields: Any) -> Any:
        return self.post("/v1/tasks", {"model": to.name, "input": {}, **fields})
