"""The filters of a task list."""

from typing import Any

import django_filters
from django import forms
from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError

from tasks.api.serializers import Moment
from tasks.identifiers import parse_id
from tasks.models import Task
from tasks.statuses import Status

MOST_IDS = 100
BESIDE_FILTERS = {"limit", "cursor", "order", "expand"}


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
        super().__init__(strip=False, max_length=255, **kwargs)


class TextFilter(django_filters.Filter):
    field_class = TextField


class TaskFilter(django_filters.FilterSet):
    """Several statuses or ids are separated by commas. What is not known is refused."""

    status = TextFilter(method="by_status")
    capability = TextFilter()
    model = TextFilter()
    client_reference = TextFilter()
    created_after = MomentFilter(field_name="created_at", lookup_expr="gt")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")
    id = django_filters.CharFilter(method="by_id", max_length=MOST_IDS * 32)

    class Meta:
        model = Task
        fields: list[str] = []

    def by_status(self, tasks: QuerySet, _name: str, value: str) -> QuerySet:
        wanted = value.split(",")
        if unknown := set(wanted) - set(Status):
            raise ValidationError({"status": [f"There is no status {sorted(unknown)[0]!r}."]})
        return tasks.filter(status__in=wanted)

    def by_id(self, tasks: QuerySet, _name: str, value: str) -> QuerySet:
        wanted = value.split(",")
        if len(wanted) > MOST_IDS:
            raise ValidationError({"id": [f"At most {MOST_IDS} ids at once."]})
        return tasks.filter(id__in=[task_id for task_id in map(parse_id, wanted) if task_id])

    @classmethod
    def apply(cls, params: Any, tasks: QuerySet) -> QuerySet:
        """The tasks that match. Raises ValidationError for unknown or malformed parameters."""
        if unknown := [name for name in params if name not in cls.base_filters and name not in BESIDE_FILTERS]:
            raise ValidationError({unknown[0]: ["This parameter is not known."]})
        filters = cls(params, tasks)
        if not filters.is_valid():
            raise ValidationError({name: list(errors) for name, errors in filters.errors.items()})
        return filters.qs
