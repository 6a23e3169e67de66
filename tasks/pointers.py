"""JSON Pointers (RFC 6901) to the value that was refused, short enough to be sent back."""

from typing import Any

MOST = 500

# The way to a value: the way to what holds it, and its name or index there. It is a pointer only once it is asked for.
Path = tuple["Path", object] | None


def pointer(path: Path) -> str:
    """The pointer to the end of the way."""
    tokens = []
    while path:
        path, name = path
        tokens.append(f"/{escape(name)}")
    return shorten("".join(reversed(tokens)))


def first_error(detail: Any) -> tuple[str, str]:
    """The pointer to the first refused value in a DRF error detail, and its message."""
    if isinstance(detail, dict):
        for name, below in detail.items():
            found, message = first_error(below)
            return shorten(("" if name == "non_field_errors" else f"/{escape(name)}") + found), message
    if isinstance(detail, list) and detail:
        if not isinstance(detail[0], dict | list):
            return "", shorten(str(detail[0]))
        for index, below in enumerate(detail):
            if below:
                found, message = first_error(below)
                return shorten(f"/{index}" + found), message
    return "", shorten(str(detail))


def every_error(detail: Any, at: str = "") -> list[tuple[str, str]]:
    """The pointers to all refused values in a DRF error detail, each with a message."""
    if isinstance(detail, dict):
        places = [
            (at if name == "non_field_errors" else f"{at}/{escape(name)}", below) for name, below in detail.items()
        ]
    elif isinstance(detail, list) and any(isinstance(below, dict | list) for below in detail):
        places = [(f"{at}/{index}", below) for index, below in enumerate(detail) if below]
    else:
        return [(shorten(at), shorten(str(message))) for message in (detail if isinstance(detail, list) else [detail])]
    return [found for place, below in places for found in every_error(below, place)]


def value_at(value: Any, pointer_: str) -> Any:
    """The value that a pointer leads to. Raises LookupError where there is none."""
    for token in pointer_.split("/")[1:]:
        name = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, list) and name.isdecimal():
            value = value[int(name)]
        elif isinstance(value, dict):
            value = value[name]
        else:
            raise LookupError(pointer_)
    return value


def escape(name: object) -> str:
    """One reference token."""
    return shorten(str(name)).replace("~", "~0").replace("/", "~1")


def shorten(text: str) -> str:
    """The text, or the beginning of one that is longer than an error should be, with a sign of that."""
    return text if len(text) <= MOST else text[: MOST - 1] + "\N{HORIZONTAL ELLIPSIS}"
