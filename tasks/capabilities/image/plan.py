"""How large an image becomes, step by step: the same arithmetic for the quote, before the work, and for the work."""

from collections.abc import Iterable, Mapping
from typing import Any

Size = tuple[int, int]

MOST_PIXELS = 16_000_000
MOST_SIDE = 16_383  # WebP has no more


class TooLarge(ValueError):
    """A step would make an image that is larger than there may be."""


class Outside(ValueError):
    """A crop reaches beyond the image."""


def check(size: Size) -> Size:
    """The size, if an image may be that large. Raises TooLarge."""
    width, height = size
    if width * height > MOST_PIXELS:
        raise TooLarge(f"An image has at most {MOST_PIXELS} pixels, and this one {width} x {height}.")
    if max(size) > MOST_SIDE:
        raise TooLarge(f"An image has at most {MOST_SIDE} pixels a side, and this one {width} x {height}.")
    return size


def after(operation: Mapping[str, Any], size: Size) -> Size:
    """The size that the operation leaves. Raises TooLarge or Outside."""
    match operation["op"]:
        case "resize":
            return check(_resized(operation, size))
        case "crop":
            if operation["left"] + operation["width"] > size[0] or operation["top"] + operation["height"] > size[1]:
                raise Outside(f"The crop reaches beyond the image, which is {size[0]} x {size[1]} there.")
            return operation["width"], operation["height"]
        case "rotate" if operation["degrees"] != 180:
            return size[1], size[0]
    return size


def most_pixels(operations: Iterable[Mapping[str, Any]], size: Size | None) -> int:
    """How many pixels the result has at most; without a size, that of whatever image there may be.

    A photograph may lie on its side until it is decoded, so both ways round are counted.
    """
    if size is None:
        return _most_of_any(operations)
    return max(_pixels(operations, size), _pixels(operations, size[::-1]))


def _resized(operation: Mapping[str, Any], size: Size) -> Size:
    width, height = operation["width"], operation["height"]
    if width and height and operation["fit"] != "contain":
        return width, height
    scale = min(wanted / had for wanted, had in zip((width, height), size, strict=True) if wanted)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _pixels(operations: Iterable[Mapping[str, Any]], size: Size) -> int:
    """The pixels of the result, or none where the work will be refused."""
    try:
        for operation in operations:
            size = after(operation, size)
    except ValueError:
        return 0
    return size[0] * size[1]


def _most_of_any(operations: Iterable[Mapping[str, Any]]) -> int:
    most = MOST_PIXELS
    for operation in operations:
        if operation["op"] == "crop":
            most = min(most, operation["width"] * operation["height"])
        if operation["op"] == "resize":
            whole = operation["width"] and operation["height"]
            most = min(MOST_PIXELS, operation["width"] * operation["height"]) if whole else MOST_PIXELS
    return most
