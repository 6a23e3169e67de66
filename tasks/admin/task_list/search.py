"""What the search box of tasks understands: an id or how one begins, in any spelling, a client reference,
`key=value` of the metadata, or a part of an account's name. The first of these that is there is meant.
"""

import re
from dataclasses import dataclass
from functools import reduce
from operator import or_
from uuid import UUID

from django.db.models import Q

from tasks.admin.found import accounts_named
from tasks.identifiers import PREFIX
from tasks.models import Task

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
PUBLIC, HEX = re.compile(rf"[0-7][{ALPHABET}]{{0,25}}"), re.compile(r"[0-9a-f]{1,32}")
DASHED = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{0,4}){1,3}(-[0-9a-f]{0,12})?")
# An id without its prefix is told from other words by how all of them begin until the year 2248.
SOONEST = 6
METADATA = re.compile(r"([^=]{1,100})=(.*)", re.DOTALL)
NOBODY = Q(pk__in=[])
Span = tuple[UUID, UUID]


@dataclass(frozen=True)
class Understood:
    """What a term was taken for, as a condition, and what knows the tasks that meet it."""

    condition: Q
    spans: tuple[Span, ...] = ()
    pairs: tuple[dict[str, str], ...] = ()
    reference: str | None = None
    accounts: tuple[UUID, ...] | None = None


def understood(term: str) -> Understood:
    """The first meaning that something has; without one, a part of a name that nobody has."""
    term = term.strip()
    if "\x00" in term:
        return Understood(NOBODY)
    if (spans := id_spans(term)) and _some(_within(spans)):
        return Understood(_within(spans), spans=tuple(spans))
    if _some(Q(client_reference=term)):
        return Understood(Q(client_reference=term), reference=term)
    if pairs := metadata_of(term):
        condition = reduce(or_, (Q(metadata__contains=pair) for pair in pairs))
        return Understood(condition, pairs=tuple(pairs))
    accounts = tuple(accounts_named(term))
    return Understood(Q(account__in=accounts), accounts=accounts)


def _some(condition: Q) -> bool:
    return bool(Task.objects.filter(condition).order_by().values("pk")[:1])


def metadata_of(term: str) -> list[dict[str, str]]:
    """The pairs that `key=value` may mean: as it is typed, and without the spaces around its equals sign."""
    pair = METADATA.fullmatch(term.strip())
    meant = [(pair[1], pair[2]), (pair[1].strip(), pair[2].strip())] if pair else []
    return [{key: value} for key, value in dict.fromkeys(meant)]


def id_spans(text: str) -> list[Span]:
    """The first and the last id that begin so, for each spelling that it may be."""
    text = text.strip().lower()
    prefixed = text.startswith(f"{PREFIX}_")
    digits = text.removeprefix(f"{PREFIX}_")
    if prefixed:
        return [_public_span(digits)] if PUBLIC.fullmatch(digits) else [_span(0, 128)] if not digits else []
    if DASHED.fullmatch(digits):
        return [_hex_span(digits.replace("-", ""))]
    plausible = len(digits) in (26, 32) or (len(digits) >= SOONEST and digits.startswith("0"))
    spans = [_public_span(digits)] if plausible and PUBLIC.fullmatch(digits) else []
    return [*spans, *([_hex_span(digits)] if plausible and HEX.fullmatch(digits) else [])]


def _public_span(digits: str) -> Span:
    value = 0
    for digit in digits:
        value = value << 5 | ALPHABET.index(digit)
    return _span(value, 5 * (26 - len(digits)))


def _hex_span(digits: str) -> Span:
    return _span(int(digits, 16), 4 * (32 - len(digits)))


def _span(value: int, open_bits: int) -> Span:
    first = value << open_bits
    return UUID(int=first), UUID(int=first | (1 << open_bits) - 1)


def _within(spans: list[Span]) -> Q:
    condition = Q()
    for span in spans:
        condition |= Q(pk__range=span)
    return condition
