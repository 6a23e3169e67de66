"""What an account's tasks cost by day and model, net of refunds: bars, and a table that adds up to the same."""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from billing.admin.screens import Table, amount, link, listing
from billing.models import Account, ApiKey
from billing.periods import period
from billing.statements import rows
from tasks.sql import load

LENGTHS = (30, 90)
# Models with a colour of their own in the bars; the others are one bar together.
COLOURS = ("#7c3aed", "#0891b2", "#d97706", "#16a34a", "#db2777", "#2563eb", "#65a30d", "#475569")
MOST_KEYS = 10
PURGED, OTHERS = "(purged tasks)", "Other models"
NOTHING = Decimal("0.0000")


@dataclass(frozen=True)
class Usage:
    """Net credits of some days: by day and model, by model, by key; and in how many charges."""

    since: date
    until: date
    by_day: dict[tuple[date, str], Decimal]
    by_model: dict[str, Decimal]
    by_key: dict[UUID | None, Decimal]
    tasks: dict[str, int]
    total: Decimal

    @property
    def days(self) -> list[date]:
        return [self.since + timedelta(days=number) for number in range((self.until - self.since).days + 1)]

    @property
    def models(self) -> list[str]:
        """The dearest first."""
        return sorted(self.by_model, key=lambda model: (-self.by_model[model], model))


def usage(account_id: UUID, *, days: int) -> Usage:
    """The last so many UTC days, today among them."""
    until = datetime.now(UTC).date()
    since = until - timedelta(days=days - 1)
    asked = period(account_id, since=since, until=until)
    range_ = {"account": account_id, "before": asked.before, "last": asked.last, "since": since, "until": until}
    by_day, by_model, by_key, tasks = _sums(), _sums(), _sums(), defaultdict(int)
    for day, model, key, net, count in rows(load("usage_net"), range_):
        named = model or PURGED
        by_day[day, named] += net
        by_model[named] += net
        by_key[key] += net
        tasks[named] += count
    return Usage(since, until, by_day, by_model, by_key, tasks, asked.change.charged)


class ShowsUsage:
    """A screen of accounts whose page has the chart, asked for when the rest of the page is there."""

    def get_urls(self) -> list[URLPattern]:
        shown = self.admin_site.admin_view(self.usage)
        return [path("<uuid:pk>/usage/", shown, name="billing_account_usage"), *super().get_urls()]

    def usage(self, request: HttpRequest, pk: UUID) -> HttpResponse:
        """Bars, the table of models and the table of keys; alone, or as a part of the account's page."""
        account = self._stated(request, pk)
        days = 90 if request.GET.get("days") == "90" else 30
        found = usage(account.pk, days=days)
        context = {
            "title": "Usage", "account": account, "original": account, "days": days, "lengths": LENGTHS,
            "usage": found, "chart": json.dumps(_bars(found)), "models": _of_models(found),
            "keys": _of_keys(account, found), "address": reverse("admin:billing_account_usage", args=[account.pk]),
        }  # fmt: skip
        part = "HX-Request" in request.headers
        template = f"admin/counterfoil/usage{'_part' if part else ''}.html"
        base = {} if part else {**self.admin_site.each_context(request), "opts": self.opts, "is_popup": False}
        return TemplateResponse(request, template, base | context)


def _bars(found: Usage) -> dict[str, Any]:
    """Stacked bars as Chart.js takes them: a set for each model, a bar for each day."""
    shown = found.models[: len(COLOURS) - 1] if len(found.models) > len(COLOURS) else found.models
    rest = found.models[len(shown) :]
    sets = [(model, [model]) for model in shown] + ([(OTHERS, rest)] if rest else [])
    return {
        "labels": [f"{day:%d %b}" for day in found.days],
        "datasets": [
            {
                "label": name,
                "backgroundColor": colour,
                "data": [float(sum(found.by_day.get((day, model), NOTHING) for model in models)) for day in found.days],
            }
            for (name, models), colour in zip(sets, COLOURS, strict=False)
        ],
    }


def _of_models(found: Usage) -> Table:
    rows_ = [[model, found.tasks[model], amount(found.by_model[model])] for model in found.models]
    total = ["All", sum(found.tasks.values()), amount(found.total)]
    return Table("", ["Model", "Charged tasks", "Credits, net of refunds"], [*rows_, total])


def _of_keys(account: Account, found: Usage) -> Table:
    """The keys that cost the most. A rerun by an operator has none."""
    dearest = sorted(found.by_key.items(), key=lambda pair: -pair[1])[:MOST_KEYS]
    names = ApiKey.objects.in_bulk([key for key, _ in dearest if key])
    rows_ = [[_key_named(names.get(key)), amount(net)] for key, net in dearest]
    return Table("", ["API key", "Credits, net of refunds"], rows_, listing("billing_apikey", account__id=account.pk))


def _key_named(key: ApiKey | None) -> Any:
    return link("billing_apikey", key.pk, key) if key else "(none: operators' reruns and purged tasks)"


def _sums() -> defaultdict[Any, Decimal]:
    return defaultdict(lambda: NOTHING)
