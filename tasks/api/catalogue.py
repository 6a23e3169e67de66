"""What is offered: each active deployment whose capability is installed and available, and what it costs now."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing import pricing
from billing.statements import rows
from tasks import capabilities
from tasks.capabilities.json_schema import json_schema
from tasks.sql import load


@dataclass(frozen=True)
class Offered:
    """A deployment as its clients may see it."""

    name: str
    capability: str
    resolved_model: str
    is_default: bool
    timeout: int
    max_retries: int
    ttl: int
    max_lifetime: int
    bills_partial_output: bool
    prices: dict[str, dict[str, Any]]

    @property
    def installed(self) -> capabilities.Capability | None:
        found = capabilities.get(self.capability)
        return found if found and found.available() else None

    @property
    def input_schema(self) -> dict[str, Any]:
        return json_schema(self.installed.input) if self.installed else {}

    @property
    def meters(self) -> list[dict[str, Any]]:
        """What a task may be billed for: the flat price, where there is one, and every meter of the capability."""
        reported = self.installed.meters if self.installed else frozenset()
        flat = {pricing.FLAT} & self.prices.keys()
        return [self._meter(meter) for meter in sorted(reported | flat, key=pricing.place_of)]

    def _meter(self, meter: str) -> dict[str, Any]:
        price = self.prices.get(meter, {"unit": pricing.UNITS[meter], "unit_size": 1, "credits": "0"})
        return {
            "meter": meter,
            "unit": price["unit"],
            "unit_size": price["unit_size"],
            "unit_price_credits": Decimal(price["credits"]),
        }


def offered(*, name: str | None = None, capability: str | None = None) -> list[Offered]:
    """Those of this name and capability, or all: by capability, its default first."""
    found = rows(load("catalogue"), {"name": name, "capability": capability})
    return [offer for offer in (Offered(*row) for row in found) if offer.installed]
