"""Real requests and answers, as the OpenAPI document and the guide show them."""

import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).with_name("examples.json")


def read() -> dict[str, Any]:
    """The examples, by name."""
    return json.loads(EXAMPLES.read_text())


def of_code(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    """An error with this code."""
    told = {"code": code, "message": message, "retryable": retryable}
    return {"error": told | {"request_id": "req_4bf92f3577b34da6a3ce929d0e0e4736", "param": None, "details": None}}
