"""What requests and answers look like: the request's validation, and the schema and oracle of the task object."""

from datetime import UTC
from typing import Any

from django.utils.dateparse import parse_datetime
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from tasks import net
from tasks.capabilities import test_echo
from tasks.capabilities.inputs import Input, Integer, Text

OUTCOMES = [test_echo.SUCCEEDED, *test_echo.CODES]


class Moment(serializers.DateTimeField):
    """RFC 3339 with an offset, between the years 2000 and 2200."""

    def to_internal_value(self, value: Any) -> Any:
        try:
            moment = parse_datetime(value) if isinstance(value, str) else None
            if moment is None or moment.tzinfo is None or not 2000 <= moment.year < 2200:
                raise ValueError(value)
            return moment.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise serializers.ValidationError("This is an RFC 3339 date-time with an offset.") from error


@extend_schema_field(
    {"type": "object", "additionalProperties": {"type": "string", "maxLength": 500}, "maxProperties": 50}
)
class MetadataField(serializers.Field):
    """Up to 50 keys of up to 100 characters; values are strings of up to 500."""

    def to_internal_value(self, data: Any) -> dict[str, str]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("This is an object of strings.")
        if len(data) > 50:
            raise serializers.ValidationError("Metadata has at most 50 keys.")
        for name, value in data.items():
            if not 1 <= len(name) <= 100:
                raise serializers.ValidationError({name: ["A key has 1 to 100 characters."]})
            if not isinstance(value, str) or len(value) > 500:
                raise serializers.ValidationError({name: ["A value is a string of at most 500 characters."]})
        return data

    def to_representation(self, value: dict[str, str]) -> dict[str, str]:
        return value


@extend_schema_field({"type": "object", "additionalProperties": True})
class InputField(serializers.Field):
    """An object; the capability's own serializer checks what is in it."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise serializers.ValidationError("This is an object.")
        return data

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        return value


class CallbackRequest(Input):
    """Where the task's end is told, signed with the account's secret."""

    url = Text(max_length=2048, help_text="`http` or `https`, on port 80 or 443 of a public address.")

    def validate_url(self, value: str) -> str:
        try:
            net.check_url(value)
        except net.ForbiddenUrl as error:
            raise serializers.ValidationError(str(error)) from error
        return value


class CreateTask(Input):
    """What to do, with what, and within what bounds. `capability` or `model` is needed."""

    capability = Text(required=False, max_length=100, help_text="What to do; its default deployment does it.")
    model = Text(required=False, max_length=64, help_text="The deployment that does it.")
    input = InputField()
    metadata = MetadataField(required=False, default=dict)
    callback = CallbackRequest(required=False, allow_null=True, default=None)
    client_reference = Text(
        required=False, allow_null=True, default=None, max_length=255, help_text="A name of yours, to find it by."
    )
    priority = Integer(
        required=False, default=5, min_value=0, max_value=9, help_text="Higher goes first among your own tasks."
    )
    timeout = Integer(
        required=False,
        allow_null=True,
        default=None,
        min_value=1,
        help_text="Seconds that one run may take, within the deployment's.",
    )
    max_retries = Integer(
        required=False,
        allow_null=True,
        default=None,
        min_value=0,
        help_text="How often a run is tried again that was lost or failed upstream, within the deployment's.",
    )
    deadline = Moment(
        required=False, allow_null=True, default=None, help_text="Final by then, or failed. RFC 3339 with an offset."
    )
    not_before = Moment(
        required=False, allow_null=True, default=None, help_text="Not started earlier. RFC 3339 with an offset."
    )
    test_outcome = serializers.ChoiceField(
        OUTCOMES,
        required=False,
        allow_null=True,
        default=None,
        help_text="With a test key only: how the task ends, `succeeded` or with this error code.",
    )


class ReasonedRequest(Input):
    """Why; the reason of a cancellation is shown in the task."""

    reason = Text(required=False, allow_null=True, default=None, max_length=500)


class Nothing(Input):
    """A request without fields."""
