"""Images that a browser may be given to show: raster formats only, looked at byte by byte, never what a name says."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from tasks.capabilities.image import headers

# A browser unpacks every pixel, whatever the file's size.
MOST_PIXELS = 50_000_000
MOST_BYTES = 8 * 2**20
MOST_IMAGES = 12
# How far down they are looked for: as deep as a request may go.
MOST_DEPTH = 32
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
# How the base 64 of such files begins; shorter strings are no images.
BEGINS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
SHORTEST = 60
DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,")
GIFS = (b"GIF87a", b"GIF89a")


@dataclass(frozen=True)
class Image:
    """An image in a JSON value: where it stands, its type and size, and the data URL that shows it."""

    place: str
    content_type: str
    size: int
    url: str


def raster(content: bytes) -> str | None:
    """The media type of an image that may be shown, or None."""
    if len(content) > MOST_BYTES:
        return None
    if content[:6] in GIFS and len(content) > 10:
        pixels = int.from_bytes(content[6:8], "little") * int.from_bytes(content[8:10], "little")
        return "image/gif" if 0 < pixels <= MOST_PIXELS else None
    try:
        header = headers.read(content)
    except headers.Unreadable:
        return None
    return TYPES[header.format] if header and header.width * header.height <= MOST_PIXELS else None


def images_in(value: Any) -> tuple[Any, list[Image]]:
    """The value with each of its images named in a few words, and the images, at most MOST_IMAGES."""
    found: list[Image] = []
    return _without(value, "", 0, found), found


def _without(value: Any, place: str, depth: int, found: list[Image]) -> Any:
    if isinstance(value, str) and len(found) < MOST_IMAGES and (image := _image(value, place)):
        found.append(image)
        return f"({image.content_type}, {image.size} bytes: shown above)"
    if depth < MOST_DEPTH and isinstance(value, dict):
        return {name: _without(each, f"{place}.{name}".strip("."), depth + 1, found) for name, each in value.items()}
    if depth < MOST_DEPTH and isinstance(value, list):
        return [_without(each, f"{place}[{number}]", depth + 1, found) for number, each in enumerate(value)]
    return value


def _image(text: str, place: str) -> Image | None:
    if len(text) < SHORTEST or not (text.startswith(BEGINS) or DATA_URL.match(text)):
        return None
    encoded = text[match.end() :] if (match := DATA_URL.match(text)) else text
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    content_type = raster(content)
    if content_type is None:
        return None
    return Image(place, content_type, len(content), f"data:{content_type};base64,{base64.b64encode(content).decode()}")
