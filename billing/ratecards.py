"""A rate card's prices: what is in force, what comes, and how new versions are written.

A price never changes. Of two that begin at the same moment the later written one counts. One that has not begun may be
withdrawn: then it never begins, and what was written before it counts again.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from billing.exceptions import ChangedSince, Refusal
from billing.models import Price, PriceWithdrawal, RateCard
from billing.pricing import UNITS
from billing.statements import one

# A quote that is under way may see a price this long before it begins for whoever withdraws it.
MARGIN = timedelta(minutes=1)


class NotToCome(Refusal):
    code, status = "price_in_force", 409
    message = "This price has begun, begins within a minute or was withdrawn before: it is not withdrawn. Write one."


class FromThePast(Refusal):
    message = "A price never begins in the past: what was quoted before keeps its price."


@dataclass(frozen=True)
class New:
    """What `unit_size` units of a meter are to cost."""

    credits: Decimal
    unit_size: int


def in_force(card_id: UUID, *, at: datetime | None = None) -> dict[str, Price]:
    """The price of each meter now, or at a later moment as far as it is known."""
    begun = _standing(card_id).filter(effective_from__lte=at or Now())
    return {price.meter: price for price in _latest_first(begun).distinct("meter")}


def after(card_id: UUID, moment: datetime) -> list[Price]:
    """What comes into force later than this moment, each meter's by time."""
    later = _latest_first(_standing(card_id).filter(effective_from__gt=moment))
    return sorted(later.distinct("meter", "effective_from"), key=lambda price: (price.meter, price.effective_from))


def clock() -> datetime:
    """The time that decides which price is in force: the database's."""
    (moment,) = one("SELECT now()", {}) or ()
    return moment


def versions(card_id: UUID) -> list[Price]:
    """Every version of every meter, of each the latest first; one that another was written over comes after it."""
    return list(_latest_first(Price.objects.filter(rate_card_id=card_id).select_related("withdrawal")))


def written(card_id: UUID) -> str:
    """What changes with every version that is written or withdrawn."""
    ids = _standing(card_id).order_by("pk").values_list("pk", flat=True)
    return hashlib.sha256("".join(map(str, ids)).encode()).hexdigest()


@transaction.atomic
def write_versions(
    card_id: UUID, prices: Mapping[str, New], *, effective_from: datetime | None, seen: str
) -> list[Price]:
    """New versions of these meters' prices, from that moment or from now on.

    `seen` is what was `written` when they were decided on. Raises ChangedSince when somebody has written since,
    and FromThePast.
    """
    _lock(card_id)
    if written(card_id) != seen:
        raise ChangedSince("somebody else has written prices of this card since you looked. Look again.")
    if effective_from and effective_from < clock():
        raise FromThePast
    return _write(card_id, prices, effective_from)


@transaction.atomic
def withdraw(price_id: UUID, *, by: str, reason: str) -> PriceWithdrawal:
    """Let a price that has not begun never begin. Raises NotToCome."""
    price = Price.objects.get(pk=price_id)
    _lock(price.rate_card_id)
    if not to_come(price):
        raise NotToCome
    return PriceWithdrawal.objects.create(price=price, actor=by, reason=reason)


def to_come(price: Price) -> bool:
    """Whether the price can be withdrawn still."""
    return _standing(price.rate_card_id).filter(pk=price.pk, effective_from__gt=Now() + MARGIN).exists()


def instead(price: Price) -> Price | None:
    """What is in force when this price would begin, if it is withdrawn."""
    begun = _standing(price.rate_card_id).filter(meter=price.meter, effective_from__lte=price.effective_from)
    return _latest_first(begun.exclude(pk=price.pk)).first()


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


def _standing(card_id: UUID) -> QuerySet[Price]:
    """The prices of a card that nobody withdrew."""
    return Price.objects.filter(rate_card_id=card_id, withdrawal=None)
