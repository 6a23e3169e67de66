"""A rate card's prices: what is in force, what comes, and how new versions are written.

A price never changes. Of two that begin at the same moment the later written one counts, so one that has not begun yet
is withdrawn by writing another over it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from billing.exceptions import ChangedSince, Refusal
from billing.models import Price, RateCard
from billing.pricing import UNITS


class NotToCome(Refusal):
    code, status = "price_in_force", 409
    message = "This price has begun, or another was written over it: it is not withdrawn. Write a new version."


@dataclass(frozen=True)
class New:
    """What `unit_size` units of a meter are to cost."""

    credits: Decimal
    unit_size: int


def in_force(card_id: UUID, *, at: datetime | None = None) -> dict[str, Price]:
    """The price of each meter now, or at a later moment as far as it is known."""
    begun = Price.objects.filter(rate_card_id=card_id, effective_from__lte=at or Now())
    return {price.meter: price for price in _latest_first(begun).distinct("meter")}


def versions(card_id: UUID) -> list[Price]:
    """Every version of every meter, of each the latest first; one that another was written over comes after it."""
    return list(_latest_first(Price.objects.filter(rate_card_id=card_id)))


def written(card_id: UUID) -> str:
    """What changes with every version that is written."""
    ids = Price.objects.filter(rate_card_id=card_id).order_by("pk").values_list("pk", flat=True)
    return hashlib.sha256("".join(map(str, ids)).encode()).hexdigest()


@transaction.atomic
def write_versions(
    card_id: UUID, prices: Mapping[str, New], *, effective_from: datetime | None, seen: str
) -> list[Price]:
    """New versions of these meters' prices, from that moment or from now on.

    `seen` is what was `written` when they were decided on. Raises ChangedSince when somebody has written since.
    """
    _lock(card_id)
    if written(card_id) != seen:
        raise ChangedSince("somebody else has written prices of this card since you looked. Look again.")
    return _write(card_id, prices, effective_from)


@transaction.atomic
def withdraw(price_id: UUID) -> Price:
    """Write what is in force until then over a price that has not begun. Raises NotToCome."""
    price = Price.objects.get(pk=price_id)
    _lock(price.rate_card_id)
    same = Price.objects.filter(rate_card=price.rate_card_id, meter=price.meter)
    if not to_come(price, same.filter(effective_from=price.effective_from)):
        raise NotToCome
    before = _latest_first(same.filter(effective_from__lt=price.effective_from)).first()
    kept = New(before.credits, before.unit_size) if before else New(Decimal(0), 1)
    return _write(price.rate_card_id, {price.meter: kept}, price.effective_from)[0]


def to_come(price: Price, same: Iterable[Price]) -> bool:
    """Whether the price will be in force, as far as is known; `same` are those of its meter that begin with it."""
    begun = Price.objects.filter(pk=price.pk, effective_from__lte=Now()).exists()
    return not begun and max(same, key=lambda each: each.created_at).pk == price.pk


def _write(card_id: UUID, prices: Mapping[str, New], effective_from: datetime | None) -> list[Price]:
    when = {"effective_from": effective_from} if effective_from else {}
    return [
        Price.objects.create(
            rate_card_id=card_id, meter=meter, unit=UNITS[meter], unit_size=new.unit_size, credits=new.credits, **when
        )
        for meter, new in prices.items()
    ]


def _lock(card_id: UUID) -> None:
    RateCard.objects.select_for_update(no_key=True).get(pk=card_id)


def _latest_first(prices: QuerySet[Price]) -> QuerySet[Price]:
    return prices.order_by("meter", "-effective_from", "-created_at")
