"""JSON that an operator types: whatever the database or a reader of it could not hold is an error of the form."""

import json
import math
from typing import Any, NoReturn

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput

MAX_DEPTH = 32
SMALLEST, LARGEST = -(2**63), 2**64 - 1


class StrictObjectField(forms.JSONField):
    """A JSON object. What is wrong is shown again as it was typed; nothing typed is an empty object."""

    def to_python(self, value: Any) -> Any:
        if self.disabled or value is None:
            return value
        return parse(value) if value and value.strip() else {}

    def bound_data(self, data: Any, initial: Any) -> Any:
        return initial if self.disabled or data is None else InvalidJSONInput(data)


def parse(text: str) -> dict[str, Any]:
    """The object of a text. Raises ValidationError."""
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant
        )
    except RecursionError as error:
        raise ValidationError(f"It is nested deeper than {MAX_DEPTH}.") from error
    except ValueError as error:
        raise ValidationError("Enter a valid JSON.") from error
    if not isinstance(value, dict):
        raise ValidationError("Enter a JSON object.")
    _check(value, depth=0)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValidationError("A key stands twice in an object.")
    return made


def _int(digits: str) -> int:
    if len(digits) > 20 or not SMALLEST <= int(digits) <= LARGEST:
        raise ValidationError("A number does not fit into 64 bits.")
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValidationError("A number does not fit into 64 bits.")
    return number


def _constant(name: str) -> NoReturn:
    raise ValidationError(f"{name} is no number in JSON.")


def _check(value: Any, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValidationError(f"It is nested deeper than {MAX_DEPTH}.")
    match value:
        case str():
            _check_text(value)
        case dict():
            for name, below in value.items():
                _check_text(name)
                _check(below, depth=depth + 1)
        case list():
            for below in value:
                _check(below, depth=depth + 1)


def _check_text(text: str) -> None:
    if "\x00" in text:
        raise ValidationError("A text contains a NUL character.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValidationError("A text contains a lone surrogate.") from error
