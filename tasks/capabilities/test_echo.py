"""`test.echo`: does as it is told, for integration tests and demos.

It takes `seconds`, in `steps`. After each step it reports progress and streams the next piece of `text` with the usage
so far; with 0 steps it is silent. At the end it fails as `fail` says, or its output is `output`, or the text when no
output was given, or null. `usage` is what it will have used; `bound` is what the quote goes by, `usage` unless given.
"""

import json
import os
import re
import signal
import time
from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_DOWN, Decimal
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.pricing import METERS
from tasks.capabilities import CapabilityError, Context, Result, Usage, capability
from tasks.capabilities.inputs import Input, Integer, Number, Text

NAME = "test.echo"
SUCCEEDED = "succeeded"
MAX_BYTES = 64 * 2**10
# What `error.code` can be; capabilities do not import statuses.
CODES = (
    "capability_error",
    "invalid_input",
    "upstream_error",
    "timeout",
    "expired",
    "deadline_exceeded",
    "worker_lost",
    "dependency_failed",
    "internal_error",
)
RETRYABLE = "upstream_error_retryable"
CRASH = "crash"
PLACES = Decimal("0.000001")
MOST = Decimal(10) ** 12 - 1
QUANTITY = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


def allowed() -> bool:
    """Whether live keys may use what exists for tests only."""
    return settings.DEBUG or settings.ENABLE_TEST_CAPABILITIES


A_QUANTITY = {
    "anyOf": [
        {"type": "number", "minimum": 0, "exclusiveMaximum": 10**12},
        {"type": "string", "pattern": f"^{QUANTITY.pattern}$"},
    ]
}


@extend_schema_field(A_QUANTITY)
class QuantityField(serializers.Field):
    """A number or a decimal string, from 0, below a trillion, with at most six places."""

    default_error_messages = {"invalid": "A quantity is 0 or more, below 10^12, with at most six decimal places."}

    def to_internal_value(self, data: Any) -> Decimal:
        number = isinstance(data, int | float) and not isinstance(data, bool) and abs(data) < 10**12
        text = str(data) if number else data
        if not isinstance(text, str) or not QUANTITY.fullmatch(text):
            self.fail("invalid")
        return Decimal(text)


@extend_schema_field({"type": "object", "propertyNames": {"enum": list(METERS)}, "additionalProperties": A_QUANTITY})
class UsageField(serializers.DictField):
    """Quantities by meter."""

    child = QuantityField()

    def to_internal_value(self, data: Any) -> dict[str, Decimal]:
        if isinstance(data, Mapping) and (unknown := [meter for meter in data if meter not in METERS]):
            raise serializers.ValidationError({meter: ["There is no such meter."] for meter in unknown})
        return super().to_internal_value(data)


class EchoInput(Input):
    seconds = Number(min_value=0, max_value=600, default=0)
    steps = Integer(min_value=0, max_value=1000, default=1)
    text = Text(max_length=MAX_BYTES, allow_blank=True, default="", help_text="At most 64 KiB of UTF-8.")
    output = serializers.JSONField(required=False, allow_null=True)
    usage = UsageField(default=dict)
    bound = UsageField(default=None, allow_null=True)
    fail = serializers.ChoiceField([*CODES, RETRYABLE, CRASH], default=None, allow_null=True)

    def validate_text(self, text: str) -> str:
        if len(text.encode()) > MAX_BYTES:
            raise serializers.ValidationError(f"The text exceeds {MAX_BYTES} bytes of UTF-8.")
        return text

    def validate_output(self, output: Any) -> Any:
        try:
            json.dumps(output, allow_nan=False)
        except ValueError as error:
            raise serializers.ValidationError("NaN and Infinity are not JSON.") from error
        return output

    def validate_fail(self, fail: str | None) -> str | None:
        if fail == CRASH and not allowed():
            raise serializers.ValidationError("To crash takes DEBUG or ENABLE_TEST_CAPABILITIES.")
        return fail


@capability(NAME, meters=METERS, available=allowed)
class Echo:
    input = EchoInput
    example = {"seconds": 2, "steps": 4, "text": "Four steps, half a second each.", "usage": {"output_tokens": 8}}

    def bound(self, input: dict[str, Any]) -> Usage:
        return input["usage"] if input["bound"] is None else input["bound"]

    def run(self, input: dict[str, Any], context: Context) -> Result:
        started, seconds, steps, text = time.monotonic(), input["seconds"], input["steps"], input["text"]
        for step in range(1, steps + 1):
            _sleep_until(started + seconds * step / steps)
            context.progress(100 * step / steps, "working", f"Step {step} of {steps}.")
            context.emit(_piece(text, step, steps), _so_far(input["usage"], step, steps))
        _sleep_until(started + seconds)
        _end_as(input["fail"])
        return Result(input.get("output", text or None), input["usage"])


def rehearsal(capability_: str, bound: Mapping[str, str], *, outcome: str | None) -> dict[str, Any]:
    """An input that stands for a test of another capability: half of what the quote bounds, a second's half of work,
    and the outcome that was asked for.
    """
    said = f"This is a test: {capability_} did not run."
    return {
        "seconds": 0.5,
        "steps": 2,
        "text": said,
        "output": {"test": True, "capability": capability_, "message": said},
        "usage": {meter: _half(Decimal(quantity)) for meter, quantity in bound.items()},
        "fail": told(outcome),
    }


def told(outcome: str | None) -> str | None:
    """What `fail` says for an outcome: nothing for a success."""
    return None if outcome == SUCCEEDED else outcome


def _half(quantity: Decimal) -> str:
    """Half of it, in whole units where there is room for one, within the places of a quantity."""
    half = min(quantity, (quantity / 2).to_integral_value(ROUND_CEILING))
    return f"{min(half, MOST).quantize(PLACES, ROUND_DOWN):f}"


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _piece(text: str, step: int, steps: int) -> str:
    return text[len(text) * (step - 1) // steps : len(text) * step // steps]


def _so_far(usage: Usage, step: int, steps: int) -> Usage:
    """Each quantity's part, rounded down to the places that it was given with."""
    return {meter: (quantity * step / steps).quantize(quantity, ROUND_DOWN) for meter, quantity in usage.items()}


def _end_as(fail: str | None) -> None:
    if fail == CRASH:
        os.kill(os.getpid(), signal.SIGKILL)
    if fail == RETRYABLE:
        raise CapabilityError("Told to fail, and to be tried again.", code="upstream_error", retryable=True)
    if fail:
        raise CapabilityError("Told to fail.", code=fail)
