"""Lists narrowed to a time: from a moment on and before another, as a number elsewhere counts the rows."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.dateparse import parse_datetime

from billing.admin.screens import when

# How the two ends of a time are asked for.
ENDS = {"from": "gte", "to": "lt"}


class Span(admin.ListFilter):
    """A filter that an address asks for; a list offers to leave it, and nothing where nobody asked."""

    name = ""
    column = ""
    only = Q()
    parameter_names: tuple[str, ...] = ()

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        given = {end: params.pop(f"{self.name}_{end}", [""])[-1] for end in ENDS}
        self.bounds = {end: _moment(text) for end, text in given.items() if text}

    def expected_parameters(self) -> list[str]:
        return list(self.parameter_names)

    def has_output(self) -> bool:
        return bool(self.bounds)

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        anywhen = changelist.get_query_string(remove=self.expected_parameters())
        yield {"selected": False, "query_string": anywhen, "display": "Any time"}
        chosen = " ".join(f"{end} {when(moment)}" for end, moment in self.bounds.items())
        yield {"selected": True, "query_string": "", "display": chosen}

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        bounds = {f"{self.column}__{ENDS[end]}": moment for end, moment in self.bounds.items()}
        return queryset.filter(self.only, **bounds) if bounds else queryset


def span(name: str, title: str, column: str, *, only: Q = Q()) -> type[Span]:  # noqa: B008 - a Q is never changed
    """The filter `<name>_from` and `<name>_to` of this column, among the rows that `only` leaves."""
    names = tuple(f"{name}_{end}" for end in ENDS)
    told = {"name": name, "title": title, "column": column, "only": only, "parameter_names": names}
    return type(f"{name.title()}Span", (Span,), told)


def _moment(text: str) -> datetime:
    """ISO 8601; without an offset it is UTC."""
    try:
        moment = parse_datetime(text)
        if moment is None:
            raise IncorrectLookupParameters(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise IncorrectLookupParameters(text) from error
