"""What `image.transform` takes: an image or where it is, and what to do with it."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema_field
from rest_framework import serializers

from tasks import net
from tasks.capabilities.image import headers, plan
from tasks.capabilities.inputs import Input, Integer, Text

MOST_OPERATIONS = 10
DATA_URL = re.compile(r"data:(?:image/(?:png|jpeg|webp))?;base64,", re.IGNORECASE)
FORMATS = ("png", "jpeg", "webp")


class Side(Integer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(min_value=1, max_value=plan.MOST_SIDE, **kwargs)


class Resize(Input):
    """To a width, a height or both; `fit` says how: inside the box, the middle that fills it, or stretched."""

    op = serializers.ChoiceField(["resize"])
    width = Side(default=None, allow_null=True)
    height = Side(default=None, allow_null=True)
    fit = serializers.ChoiceField(["contain", "cover", "fill"], default="contain")

    def validate(self, operation: dict[str, Any]) -> dict[str, Any]:
        if operation["width"] is None and operation["height"] is None:
            raise serializers.ValidationError({"width": ["Give a width, a height or both."]})
        if operation["fit"] != "contain" and None in (operation["width"], operation["height"]):
            raise serializers.ValidationError({"fit": ["Only contain goes with a width or a height alone."]})
        return operation


class Crop(Input):
    """To the part that begins so far from the left and the top."""

    op = serializers.ChoiceField(["crop"])
    left = Integer(min_value=0, max_value=plan.MOST_SIDE, default=0)
    top = Integer(min_value=0, max_value=plan.MOST_SIDE, default=0)
    width = Side()
    height = Side()


@extend_schema_field({"enum": [90, 180, 270]})
class Degrees(Integer):
    def to_internal_value(self, data: Any) -> int:
        degrees = super().to_internal_value(data)
        if degrees not in (90, 180, 270):
            raise serializers.ValidationError("Degrees are 90, 180 or 270.")
        return degrees


class Rotate(Input):
    """Clockwise."""

    op = serializers.ChoiceField(["rotate"])
    degrees = Degrees()


class Flip(Input):
    """Left with right, or top with bottom."""

    op = serializers.ChoiceField(["flip"])
    direction = serializers.ChoiceField(["horizontal", "vertical"])


class Grayscale(Input):
    op = serializers.ChoiceField(["grayscale"])


OPERATIONS: dict[str, type[Input]] = {
    "resize": Resize, "crop": Crop, "rotate": Rotate, "flip": Flip, "grayscale": Grayscale,
}  # fmt: skip


ONE_OF_THEM = PolymorphicProxySerializer("ImageOperation", [*OPERATIONS.values()], resource_type_field_name="op")


@extend_schema_field(ONE_OF_THEM)
class Operation(serializers.Field):
    """One of the operations, by its `op`."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, Mapping):
            raise serializers.ValidationError("An operation is an object.")
        op = data.get("op")
        if not isinstance(op, str) or op not in OPERATIONS:
            raise serializers.ValidationError({"op": [f"An operation is one of {', '.join(OPERATIONS)}."]})
        return OPERATIONS[op]().run_validation(data)


class Inline(Text):
    """An image in base 64, bare or as a data URL; what comes out are its bytes."""

    def to_internal_value(self, data: Any) -> bytes:  # type: ignore[override]
        text = super().to_internal_value(data)
        start = DATA_URL.match(text)
        if start is None and text[:5].lower() == "data:":
            raise serializers.ValidationError("A data URL begins with data:image/png;base64, or jpeg or webp.")
        try:
            content = base64.b64decode(text[start.end() if start else 0 :], validate=True)
        except ValueError as error:
            raise serializers.ValidationError("The image is not in base 64.") from error
        return _checked(content)


class Url(Text):
    """Where an image is to be fetched from. Nothing is looked up before the work."""

    def to_internal_value(self, data: Any) -> str:
        url = super().to_internal_value(data)
        try:
            net.check_url(url)
        except net.ForbiddenUrl as error:
            raise serializers.ValidationError(str(error)) from error
        return url


class ImageTransformInput(Input):
    image = Inline(default=None, allow_null=True, help_text="Base 64, or a data URL.")
    image_url = Url(default=None, allow_null=True)
    operations = serializers.ListField(child=Operation(), max_length=MOST_OPERATIONS, default=list)
    format = serializers.ChoiceField(FORMATS, default=None, allow_null=True, help_text="As it came, unless given.")
    quality = Integer(min_value=1, max_value=100, default=None, allow_null=True, help_text="85, unless given.")

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        if (given["image"] is None) == (given["image_url"] is None):
            raise serializers.ValidationError({"image": ["Give either image or image_url."]})
        if given["quality"] is not None and given["format"] == "png":
            raise serializers.ValidationError({"quality": ["PNG has no quality."]})
        return given


def _checked(content: bytes) -> bytes:
    """The bytes, if they begin as an image that is not too large."""
    try:
        header = headers.read(content)
        if header is None:
            raise headers.Unreadable("The image is no PNG, JPEG or WebP file.")
        plan.check((header.width, header.height))
    except (headers.Unreadable, plan.TooLarge) as error:
        raise serializers.ValidationError(str(error)) from error
    return content
