"""`/v1/usage`: what the account's tasks used and were billed, summed."""

import re
from datetime import UTC, date, datetime, timedelta

from rest_framework.request import Request
from rest_framework.response import Response

from billing.statements import rows
from tasks.api import parameters
from tasks.api.endpoint import Endpoint
from tasks.exceptions import Invalid
from tasks.sql import load

GROUPS = ("day", "model", "meter", "key")
COLUMNS = (*GROUPS, "unit", "quantity", "listed_amount_credits", "billed_amount_credits", "tasks")
MOST_DAYS, DEFAULT_DAYS = 92, 30
MOST_ROWS = 5000
DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class UsageView(Endpoint):
    """The account's usage."""

    reading = ("billing:read",)
    queried = ("get", "head")

    def get(self, request: Request) -> Response:
        """Usage lines of some UTC days, `from` and `to` among them, summed by `group_by`."""
        given = parameters.read(request.query_params, {"group_by", "from", "to"}, several={"group_by"})
        first, last = _days(given)
        wanted = {"account": request.user.account_id, "by": _groups(given), "first": first, "last": last}
        found = rows(load("usage"), wanted | {"most": MOST_ROWS + 1})
        if len(found) > MOST_ROWS:
            raise Invalid(f"This makes more than {MOST_ROWS} rows: ask for fewer days or groups.", param="/group_by")
        shown = [{"object": "usage", **dict(zip(COLUMNS, row, strict=True))} for row in found]
        return Response({"object": "list", "data": shown, "next_cursor": None, "has_more": False})


def _groups(given: dict[str, str]) -> list[str]:
    wanted = given.get("group_by", "day").split(",")
    if not set(wanted) <= set(GROUPS):
        raise Invalid(f"group_by is some of {', '.join(GROUPS)}.", param="/group_by")
    return wanted


def _days(given: dict[str, str]) -> tuple[date, date]:
    """The first and the last day; without them the last so many, today among them."""
    last = _day(given, "to") or datetime.now(UTC).date()
    first = _day(given, "from") or last - timedelta(days=DEFAULT_DAYS - 1)
    if not timedelta(0) <= last - first < timedelta(days=MOST_DAYS):
        raise Invalid(f"from is not after to, and at most {MOST_DAYS} days are summed at once.", param="/from")
    return first, last


def _day(given: dict[str, str], name: str) -> date | None:
    if name not in given:
        return None
    try:
        day = date.fromisoformat(given[name]) if DAY.fullmatch(given[name]) else None
    except ValueError:
        day = None
    if day is None or not 2000 <= day.year < 2200:
        raise Invalid(f"{name} is a date: 2026-01-31.", param=f"/{name}")
    return day
