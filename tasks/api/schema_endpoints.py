"""A webhook endpoint, field by field."""

from typing import Any

from rest_framework import serializers

from tasks import net
from tasks.api.schema import Constant, TimestampField
from tasks.api.serializers import MetadataField
from tasks.capabilities.inputs import Input, Text
from tasks.identifiers import ENDPOINT, public_id
from tasks.models.endpoint import EVENTS


class EndpointId(serializers.CharField):
    """An endpoint's id, as clients know it."""

    def to_representation(self, value: Any) -> str:
        return public_id(value, prefix=ENDPOINT)


class CreateWebhookEndpoint(Input):
    """Whom to tell, and of what. The account's callback secret signs."""

    url = Text(max_length=2048, help_text="`http` or `https`, on port 80 or 443 of a public address.")
    events = serializers.ListField(
        child=serializers.ChoiceField(choices=EVENTS),
        allow_empty=False,
        max_length=len(EVENTS),
        help_text="The events that it is told of, each by its name.",
    )
    description = Text(required=False, allow_null=True, default=None, max_length=500, help_text="A note of yours.")
    metadata = MetadataField(required=False, default=dict)

    def validate_url(self, value: str) -> str:
        try:
            net.check_url(value)
        except net.ForbiddenUrl as error:
            raise serializers.ValidationError(str(error)) from error
        return value

    def validate_events(self, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise serializers.ValidationError("An event is named once.")
        return value


class WebhookEndpointSerializer(serializers.Serializer):
    """A URL that is told of the account's events."""

    object = Constant("webhook_endpoint")
    endpoint_id = EndpointId(source="pk")
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField(choices=EVENTS))
    description = serializers.CharField(allow_null=True)
    metadata = MetadataField()
    created_at = TimestampField()


class WebhookEndpointListSerializer(serializers.Serializer):
    """All endpoints of the account; `has_more` is false."""

    object = Constant("list")
    data = WebhookEndpointSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)
    has_more = serializers.BooleanField()
