"""The body: strict JSON of at most 1 MiB, refused with a pointer to what is wrong in it."""

import json
import math
from typing import Any, NoReturn

from rest_framework.parsers import BaseParser

from tasks.api import bodies
from tasks.api.errors import InvalidJson
from tasks.exceptions import Invalid
from tasks.pointers import Path, pointer

MAX_DEPTH = 32
SMALLEST, LARGEST = -(2**63), 2**64 - 1


class Twice(dict[str, Any]):
    """An object in which a key stands twice; `key` is that key."""

    key = ""


class Huge:
    """A number outside 64 bits."""


class StrictJSONParser(BaseParser):
    """Parses `application/json`. Raises InvalidJson (400), PayloadTooLarge (413), Invalid (422), Unavailable."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        return parse(bodies.take(stream, who=parser_context["request"].user.api_key_id))


def parse(raw: bytes) -> Any:
    """The value of a body. An empty one is an empty object."""
    try:
        value = json.loads(
            raw.decode() or "{}",
            object_pairs_hook=_object,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_constant,
        )
    except RecursionError as error:
        raise Invalid(f"The body is nested deeper than {MAX_DEPTH}.", param="") from error
    except ValueError as error:
        raise InvalidJson from error
    _check(value, None, 0)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    twice = Twice(made)
    twice.key = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return twice


def _int(digits: str) -> int | Huge:
    return int(digits) if len(digits) <= 20 and SMALLEST <= int(digits) <= LARGEST else Huge()


def _float(digits: str) -> float | Huge:
    number = float(digits)
    return number if math.isfinite(number) else Huge()


def _constant(name: str) -> NoReturn:
    raise ValueError(name)


def _check(value: Any, path: Path, depth: int) -> None:
    """Refuse what a database or another client could not hold, with the pointer to the first of it."""
    if depth > MAX_DEPTH:
        raise Invalid(f"The body is nested deeper than {MAX_DEPTH}.", param=pointer(path))
    match value:
        case Twice():
            raise Invalid("This key stands twice.", param=pointer((path, _printable(value.key))))
        case Huge():
            raise Invalid("This number does not fit into 64 bits.", param=pointer(path))
        case str():
            _check_text(value, path)
        case dict():
            for name, below in value.items():
                _check_text(name, (path, name))
                _check(below, (path, name), depth + 1)
        case list():
            for index, below in enumerate(value):
                _check(below, (path, index), depth + 1)


def _check_text(text: str, path: Path) -> None:
    if "\x00" in text:
        raise Invalid("Text contains a NUL character.", param=_printable(pointer(path)))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Invalid("Text contains a lone surrogate.", param=_printable(pointer(path))) from error


def _printable(text: str) -> str:
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
