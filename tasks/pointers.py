"""JSON Pointers (RFC 6901) to the value a serializer refused."""

from typing import Any


def first_error(detail: Any) -> tuple[str, str]:
    """The pointer to the first refused value in a DRF error detail, and its message."""
    if isinstance(detail, dict):
        for name, below in detail.items():
            pointer, message = first_error(below)
            return ("" if name == "non_field_errors" else f"/{escape(name)}") + pointer, message
    if isinstance(detail, list) and detail:
        if not isinstance(detail[0], dict | list):
            return "", str(detail[0])
        for index, below in enumerate(detail):
            if below:
                pointer, message = first_error(below)
                return f"/{index}" + pointer, message
    return "", str(detail)


def escape(name: object) -> str:
    """One reference token."""
    return str(name).replace("~", "~0").replace("/", "~1")
