"""What is offered and what it costs: the catalogue's and the quotes' JSON, field by field."""

from rest_framework import serializers

from billing.pricing import METERS, UNITS
from tasks.api.schema import Constant, Credits, Dollars, Quantity


class PriceSerializer(serializers.Serializer):
    """What `unit_size` units of a meter cost now."""

    meter = serializers.ChoiceField(choices=list(UNITS))
    unit = serializers.CharField()
    unit_size = serializers.IntegerField(min_value=1)
    unit_price_credits = Quantity()


class DeploymentSerializer(serializers.Serializer):
    """What a client names as `model`. Times are seconds; `input_schema` is JSON Schema, draft 2020-12."""

    object = Constant("deployment")
    name = serializers.CharField()
    capability = serializers.CharField()
    resolved_model = serializers.CharField()
    is_default = serializers.BooleanField()
    input_schema = serializers.DictField()
    meters = PriceSerializer(many=True)
    bills_partial_output = serializers.BooleanField()
    timeout = serializers.IntegerField()
    max_retries = serializers.IntegerField()
    ttl = serializers.IntegerField()
    max_lifetime = serializers.IntegerField()


class DeploymentListSerializer(serializers.Serializer):
    """Everything that is offered; there is one page."""

    object = Constant("list")
    data = DeploymentSerializer(many=True)
    next_cursor = serializers.CharField(allow_null=True)
    has_more = serializers.BooleanField()


class QuoteLineSerializer(serializers.Serializer):
    """What the most of a meter would list for."""

    meter = serializers.ChoiceField(choices=list(UNITS), source="rate.meter")
    quantity = Quantity()
    unit = serializers.CharField(source="rate.unit")
    listed_amount_credits = Credits(source="listed")
    unit_price_credits = Quantity(source="rate.credits")
    unit_size = serializers.IntegerField(source="rate.unit_size")


class QuoteBoundSerializer(serializers.Serializer):
    """The most of each meter that a task may use; a meter that is not here is not used."""

    def get_fields(self) -> dict[str, serializers.Field]:
        return {meter: Quantity(required=False) for meter in METERS}


class QuoteSerializer(serializers.Serializer):
    """The most that a task would be charged, `ceiling_credits`, and how that comes about: the lines add up to it."""

    object = Constant("quote")
    capability = serializers.CharField()
    model = serializers.CharField()
    resolved_model = serializers.CharField()
    ceiling_credits = Credits()
    ceiling_credits_usd_reference = Dollars()
    currency = Constant("USD")
    bound = QuoteBoundSerializer()
    lines = QuoteLineSerializer(many=True)
    bills_partial_output = serializers.BooleanField()
