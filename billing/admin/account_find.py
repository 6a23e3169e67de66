"""How an operator finds accounts: the questions a list is narrowed by, and what its search box takes."""

import re
from collections.abc import Iterable
from functools import reduce
from operator import and_
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.postgres.search import SearchQuery, SearchVector
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now, TruncMonth
from django.http import HttpRequest

from billing.credentials import PREFIX
from billing.models import WORDS, Account, ApiKey

KEY = re.compile(r"cf_(live|test)_")
HEX = re.compile(r"[0-9a-f]{8,32}")
WORD = re.compile(r"\w+")
# How many keys the beginning of one may mean, and words a search asks for.
KEYS, MOST_WORDS = 100, 8

THIS_MONTH = TruncMonth(Now(), output_field=Account._meta.get_field("month"))
QUESTIONS = {
    "low": ("Low balance", Q(low_since__isnull=False)),
    "exhausted": ("Nothing left to pay with", Q(exhausted=True, is_active=True, twin_of__isnull=True)),
    "credit": ("Lives on credit", Q(in_credit=True)),
    "capped": ("Monthly cap nearly used, 90 % or more", Q(near_cap=True, month=THIS_MONTH)),
    "disabled": ("Disabled", Q(is_active=False)),
    "test": ("Test accounts", Q(twin_of__isnull=False)),
}


class NeedFilter(admin.SimpleListFilter):
    """One question; each is answered from an index of its own."""

    title, parameter_name = "which accounts", "need"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, str]]:
        return [(name, asked) for name, (asked, _) in QUESTIONS.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(QUESTIONS[self.value()][1]) if self.value() in QUESTIONS else queryset


def found(accounts: QuerySet[Account], term: str) -> QuerySet[Account]:
    """Accounts of this id or its beginning, of the key that begins so, or with names whose words begin so."""
    term = term.strip().replace("\x00", "")
    if not term:
        return accounts
    if KEY.match(term):
        return accounts.filter(pk__in=_with_key(term[:PREFIX]))
    asked = Q(pk__in=named(term).values("pk"))
    digits = term.lower().replace("-", "")
    if HEX.fullmatch(digits):
        asked |= Q(pk__range=(UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))))
    return accounts.filter(asked)


def named(name: str) -> QuerySet[Account]:
    """Accounts in whose names words begin like each of these; none without a word."""
    words = [SearchQuery(f"'{word}':*", config=WORDS, search_type="raw") for word in WORD.findall(name)[:MOST_WORDS]]
    if not words:
        return Account.objects.none()
    return Account.objects.alias(words=SearchVector("name", config=WORDS)).filter(words=reduce(and_, words))


def _with_key(beginning: str) -> list[UUID]:
    keys = ApiKey.objects.filter(prefix__startswith=beginning).order_by(F("prefix"))
    return list(keys.values_list("account_id", flat=True)[:KEYS])
