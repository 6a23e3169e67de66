"""What inputs have in common: nothing unknown, and JSON's own types instead of what could be turned into them."""

import math
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers


class Input(serializers.Serializer):
    """A serializer that refuses every field it does not have, by its name."""

    def to_internal_value(self, data: Any) -> Any:
        known = {name for name, field in self.fields.items() if not field.read_only}
        if isinstance(data, Mapping) and (unknown := [name for name in data if name not in known]):
            raise serializers.ValidationError({unknown[0]: ["This field is not known."]})
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A string, kept as it is."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Integer(serializers.IntegerField):
    """A number without a fraction."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return super().to_internal_value(data)


class Number(serializers.FloatField):
    """A number; NaN and the infinities are none."""

    def to_internal_value(self, data: Any) -> float:
        if not isinstance(data, int | float) or isinstance(data, bool):
            self.fail("invalid")
        try:
            number = super().to_internal_value(data)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.fail("invalid")
        return number
