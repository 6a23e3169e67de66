"""What a capability gives, as it may be stored: exact, finite, bounded JSON, or CapabilityError with the reason."""

import inspect
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

from tasks.capabilities import Capability, CapabilityError, Result

MAX_OUTPUT = 2**20
MAX_TEXT = 500
# Warnings after these are dropped.
MAX_WARNINGS = 100
# What we warn of ourselves, by these codes; a capability's warning by one of them is shown as any other.
OUR_WARNINGS = frozenset({"usage_exceeds_quote"})
NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
SMALLEST = Decimal("0.000001")


def checked(capability: Capability, result: Any) -> dict[str, Any]:
    """A run's result, frozen as it is now. Raises CapabilityError, whatever is wrong with it."""
    if not isinstance(result, Result):
        raise CapabilityError(f"The capability returned {_kind_of(result)}, not a Result.")
    try:
        return {
            "output": frozen(result.output),
            "usage": measured(capability, result.usage),
            "warnings": [_warning(warning) for warning in islice(result.warnings, MAX_WARNINGS)],
            "estimated": frozenset(result.estimated),
        }
    except CapabilityError:
        raise
    except Exception as error:
        raise CapabilityError(f"The result cannot be read: {reason(error)}") from error


def _kind_of(result: Any) -> str:
    if inspect.iscoroutine(result):
        result.close()
    return f"a {type(result).__name__}"


def frozen(output: Any) -> Any:
    """The output as it will be read again: a copy of plain JSON that nobody else can change."""
    try:
        text = json.dumps(output, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise CapabilityError(f"The output is not JSON: {reason(error)}") from error
    if size > MAX_OUTPUT:
        raise CapabilityError(f"The output exceeds {MAX_OUTPUT} bytes.")
    if NUL.search(text):
        raise CapabilityError("The output contains a NUL character.")
    return json.loads(text)


def measured(capability: Capability, usage: Any) -> dict[str, Decimal]:
    """Usage of declared meters as exact, finite, non-negative decimals with at most six places."""
    if not isinstance(usage, Mapping):
        raise CapabilityError("The capability reported usage that is no mapping of meters to numbers.")
    used = dict(usage)
    if undeclared := [meter for meter in used if not isinstance(meter, str) or meter not in capability.meters]:
        names = ", ".join(sorted(readable(meter) for meter in undeclared[:10]))
        raise CapabilityError(f"The capability reported meters it did not declare: {names}.")
    return {meter: _exact(meter, quantity) for meter, quantity in used.items()}


def _exact(meter: str, quantity: Any) -> Decimal:
    if isinstance(quantity, bool) or not isinstance(quantity, int | float | Decimal):
        raise CapabilityError(f"The capability reported usage that is no number: {meter}.")
    number = Decimal(repr(quantity)) if isinstance(quantity, float) else Decimal(quantity)
    if not (number.is_finite() and 0 <= number < 10**18):
        raise CapabilityError(f"The capability reported usage that is out of range: {meter}.")
    return number.quantize(SMALLEST).normalize()


def percent(said: Any) -> int | None:
    """A whole percent, 0 to 100."""
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float | Decimal) or said != said:  # NaN
        raise CapabilityError("The capability reported progress that is no number.")
    return round(max(0, min(100, said)))


def text(said: Any) -> str:
    """A piece of streamed text."""
    if not isinstance(said, str):
        raise CapabilityError(f"The capability streamed a {type(said).__name__}, not text.")
    return clean_text(said)


def _warning(warning: Any) -> dict[str, str | None]:
    if not isinstance(warning, Mapping):
        raise CapabilityError(f"The capability gave a {type(warning).__name__} for a warning, not a mapping.")
    field, code = warning.get("field"), readable(warning.get("code") or "warning")
    return {
        "code": "warning" if code in OUR_WARNINGS else code,
        "message": readable(warning.get("message") or ""),
        "field": None if field is None else readable(field),
    }


def reason(error: BaseException) -> str:
    """What went wrong, in words that fit where people read them."""
    said = readable(error)
    return f"{said.rstrip('.')}." if said else f"{type(error).__name__}."


def readable(text: object) -> str:
    """Text that fits where people read it, whatever it is made from."""
    try:
        return clean_text(str(text)[:MAX_TEXT])
    except Exception:
        return f"(an unreadable {type(text).__name__})"


def clean_text(text: str) -> str:
    """Text that PostgreSQL can keep: no NUL, no lone surrogates."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
