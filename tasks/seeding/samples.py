"""The work that seeded tasks did: what each capability makes of a few inputs, at the prices of the seeded card."""

import base64
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO
from typing import Any

from PIL import Image

from billing import pricing
from tasks import capabilities, results
from tasks.capabilities import Result, Usage
from tasks.submission import CREDITS_PER_USD, clean

SAMPLES = 40
# Prices of which every sample's amounts are exact: meter, credits, for so many units.
PRICES = (
    (pricing.FLAT, "1", 1),
    ("input_tokens", "1", 1000),
    ("output_tokens", "4", 1000),
    ("image_count", "5", 1),
    ("image_pixels", "1", 1_000_000),
    ("characters", "0.5", 1000),
)
SENTENCES = (
    "The parcel left the warehouse in Rotterdam on Monday and reached the customer two days late.",
    "Please find attached the minutes of the meeting, with the three decisions that concern your team.",
    "The screen flickers after an hour of use, and the fan is louder than it was last week.",
    "We would gladly stay here again: the room was quiet, the breakfast generous and the staff kind.",
    "Clause four limits the liability of either party to the fees paid in the twelve months before.",
    "Der Vertrag verlängert sich um ein Jahr, wenn er nicht drei Monate vorher gekündigt wird.",
    "Le rapport trimestriel montre une hausse des ventes dans toutes les régions, sauf une.",
    "El paquete llegó abierto y faltaba una de las dos piezas que había pedido.",
    "荷物は火曜日に届きましたが、箱が濡れていました。",
    "Quarterly revenue rose by seven percent, driven by renewals and a mild winter.",
)


@dataclass(frozen=True)
class Model:
    """A deployment of the seeded card: its share of the tasks, and whether its queued ones wait for an operator."""

    name: str
    capability: str
    share: float
    drained: bool = False
    bills_partial_output: bool = False


MODELS = (
    Model("reader-small", "text.analyze", 0.44),
    Model("reader-large", "text.analyze", 0.24),
    Model("reader-legal", "text.analyze", 0.10, drained=True),
    Model("rehearsal", "test.echo", 0.20, bills_partial_output=True),
    Model("pictures-fast", "image.transform", 0.015),
    Model("pictures-fine", "image.transform", 0.005, drained=True),
)


@dataclass(frozen=True)
class Sample:
    """One piece of work: what was asked, what came of it, and what it costs, in full and when it was interrupted."""

    input: dict[str, Any]
    result: Result
    quote: dict[str, Any]
    quoted: Decimal
    usage: dict[str, str]
    bill: pricing.Bill
    partial_text: str
    partial_usage: dict[str, str]
    partial_bill: pricing.Bill


class Unheard:
    """What a capability says while it works is said to nobody."""

    attempt, resolved_model, settings = 1, "", {}

    def progress(self, percent: float | None = None, stage: str | None = None, message: str | None = None) -> None:
        """Say nothing."""

    def emit(self, text: str, usage: Usage | None = None) -> None:
        """Say nothing."""


def samples(model: Model, rates: list[pricing.Rate], *, chance: random.Random) -> list[Sample]:
    """Different pieces of work for this model."""
    return [_sample(model, rates, input_) for input_ in _inputs(model.capability, chance)]


def _inputs(capability: str, chance: random.Random) -> Iterator[dict[str, Any]]:
    make = {"text.analyze": _to_read, "test.echo": _to_echo, "image.transform": _to_transform}[capability]
    return (make(number, chance) for number in range(SAMPLES))


def _text(sentences: int, chance: random.Random) -> str:
    return " ".join(chance.choice(SENTENCES) for _ in range(sentences))


def _to_read(number: int, chance: random.Random) -> dict[str, Any]:
    return {"text": _text(1 + number % 9, chance), "keywords": 3 + number % 5}


def _to_echo(number: int, chance: random.Random) -> dict[str, Any]:
    """Every thirteenth uses more than it was quoted for."""
    told, bound = 40 + 10 * number, 500
    used = bound + 100 if number % 13 == 5 else told
    usage = {"input_tokens": 20 + number, "output_tokens": used}
    return {"text": _text(2, chance), "usage": usage, "bound": {"input_tokens": 80, "output_tokens": bound}}


def _to_transform(number: int, chance: random.Random) -> dict[str, Any]:
    file = BytesIO()
    colours = [chance.randrange(256) for _ in range(3)]
    Image.new("RGB", (40 + number, 30), tuple(colours)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    return {"image": image, "operations": [{"op": "resize", "width": 40}], "format": "png"}


def _sample(model: Model, rates: list[pricing.Rate], input_: dict[str, Any]) -> Sample:
    capability = capabilities.REGISTRY[model.capability]
    cleaned = clean(capability, input_)
    most = results.measured(capability, capability.bound(cleaned))
    quoted = pricing.ceiling(most, rates)
    quote = {
        "bound": written(most),
        "rates": [vars(rate) | {"credits": str(rate.credits)} for rate in rates],
        "ceiling_credits": str(quoted),
        "bills_partial_output": model.bills_partial_output,
    }
    result = capability.run(cleaned, Unheard())
    used = results.measured(capability, result.usage)
    part = {meter: quantity // 2 for meter, quantity in used.items()} if model.bills_partial_output else {}
    return Sample(
        input_,
        result,
        quote,
        quoted,
        written(used),
        pricing.bill(used, rates, at_most=quoted),
        result.output[: len(result.output) // 2] if part else "",
        written(part),
        pricing.bill(part, [rate for rate in rates if rate.meter != pricing.FLAT], at_most=quoted),
    )


def written(usage: Mapping[str, Decimal]) -> dict[str, str]:
    """Quantities as a task keeps them."""
    return {meter: f"{quantity:f}" for meter, quantity in usage.items()}


def usd(credits_: Decimal) -> Decimal:
    return pricing.usd(credits_, credits_per_usd=CREDITS_PER_USD)
