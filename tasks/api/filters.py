"""The filters of lists."""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import django_filters
from django import forms
from django.db.models import QuerySet
from django.http import QueryDict
from rest_framework.exceptions import ValidationError

from billing.models import Transfer
from tasks.api import parameters
from tasks.api.serializers import Moment
from tasks.identifiers import first_id, parse_id
from tasks.models import Task
from tasks.statuses import Status

MOST_IDS = 100
MOST_TEXT = 255
PAGING = {"limit", "cursor", "order"}
# An id begins with the time it was made at, and lists go by the index of ids: a filter by time names a part of it, wide
# enough for every clock that made one.
CLOCKS_DIFFER = timedelta(hours=1)
METADATA = re.compile(r"metadata\[(.{1,100})\]", re.DOTALL)


class MomentField(forms.Field):
    """RFC 3339 with an offset. A `+` that a client forgot to encode arrives as a space."""

    def to_python(self, value: Any) -> Any:
        if value in self.empty_values:
            return None
        try:
            return Moment().to_internal_value(value.replace(" ", "+"))
        except ValidationError as error:
            raise forms.ValidationError([str(detail) for detail in error.detail]) from error


class MomentFilter(django_filters.Filter):
    field_class = MomentField


class TextField(forms.CharField):
    """Text as it is, as long as PostgreSQL can hold it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strip=False, max_length=MOST_TEXT, **kwargs)


class TextFilter(django_filters.Filter):
    field_class = TextField


class Filters(django_filters.FilterSet):
    """The filters of a list, beside its paging. What is not known, or stands twice, is refused."""

    beside: frozenset[str] = frozenset(PAGING)
    several: frozenset[str] = frozenset()

    @classmethod
    def apply(cls, query: QueryDict, rows: QuerySet) -> QuerySet:
        """The rows that match. Raises Invalid or ValidationError for unknown, repeated or malformed parameters."""
        known = cls.beside | cls.base_filters.keys()
        filters = cls(parameters.read(query, known, several=cls.several, free=cls.knows), rows)
        if not filters.is_valid():
            raise ValidationError({name: list(errors) for name, errors in filters.errors.items()})
        return filters.qs

    @classmethod
    def knows(cls, name: str) -> bool:
        """Whether a parameter whose name holds a name of the client's is a filter."""
        return False


class TaskFilter(Filters):
    """Several statuses or ids are separated by commas; `metadata[key]=value` names the value of a key."""

    beside = frozenset({*PAGING, "expand"})
    several = frozenset({"status", "id", "expand"})

    status = TextFilter(method="by_status")
    capability = TextFilter()
    model = TextFilter()
    client_reference = TextFilter()
    created_after = MomentFilter(method="by_created_after")
    created_before = MomentFilter(method="by_created_before")
    id = django_filters.CharFilter(method="by_id", max_length=MOST_IDS * 32)

    class Meta:
        model = Task
        fields: list[str] = []

    def by_status(self, tasks: QuerySet, _name: str, value: str) -> QuerySet:
        return tasks.filter(status__in=some_of(Status, value, "status"))

    def by_created_after(self, tasks: QuerySet, _name: str, value: datetime) -> QuerySet:
        return tasks.filter(created_at__gt=value, id__gte=first_id(value - CLOCKS_DIFFER))

    def by_created_before(self, tasks: QuerySet, _name: str, value: datetime) -> QuerySet:
        return tasks.filter(created_at__lt=value, id__lt=first_id(value + CLOCKS_DIFFER))

    def by_id(self, tasks: QuerySet, _name: str, value: str) -> QuerySet:
        wanted = value.split(",")
        if len(wanted) > MOST_IDS:
            raise ValidationError({"id": [f"At most {MOST_IDS} ids at once."]})
        if not all(1 <= len(task_id) <= MOST_TEXT for task_id in wanted):
            raise ValidationError({"id": [f"An id has 1 to {MOST_TEXT} characters."]})
        return tasks.filter(id__in=[task_id for task_id in map(parse_id, wanted) if task_id])

    def filter_queryset(self, queryset: QuerySet) -> QuerySet:
        wanted = {found[1]: value for name, value in self.data.items() if (found := METADATA.fullmatch(name))}
        if long := next((name for name, value in wanted.items() if len(value) > 500), None):
            raise ValidationError({f"metadata[{long}]": ["A value is a string of at most 500 characters."]})
        tasks = super().filter_queryset(queryset)
        return tasks.filter(metadata__contains=wanted) if wanted else tasks

    @classmethod
    def knows(cls, name: str) -> bool:
        return METADATA.fullmatch(name) is not None


class TransferFilter(Filters):
    """Several kinds are separated by commas."""

    several = frozenset({"kind"})

    task = TextFilter(method="by_task")
    kind = TextFilter(method="by_kind")
    created_after = MomentFilter(field_name="created_at", lookup_expr="gt")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")

    class Meta:
        model = Transfer
        fields: list[str] = []

    def by_task(self, transfers: QuerySet, _name: str, value: str) -> QuerySet:
        found = parse_id(value)
        return transfers.filter(task_id=found) if found else transfers.none()

    def by_kind(self, transfers: QuerySet, _name: str, value: str) -> QuerySet:
        return transfers.filter(kind__in=some_of(Transfer.Kind.values, value, "kind"))


def some_of(known: Iterable[str], given: str, name: str) -> list[str]:
    """The values that stand between the commas. Raises ValidationError for one that is not known."""
    wanted = given.split(",")
    if unknown := set(wanted) - set(known):
        raise ValidationError({name: [f"There is no {name} {sorted(unknown)[0]!r}."]})
    return wanted
