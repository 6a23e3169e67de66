"""`image.transform`: resizes, crops, turns, flips, greys and converts an image; the same for the same file.

It reads PNG, JPEG and WebP of at most 16,000,000 pixels and 16,383 a side; of an animation the first picture. A fetched
file has at most 10 MiB. The image is turned upright as its EXIF data says, and loses all metadata, colour profiles
among them; pixel values stay as they are.

The output: `format`, `width`, `height`, `bytes`, `sha256` and `name` of the one artifact.

The meters: `image_count` is 1, `image_pixels` counts the pixels of the result. Inline, the quote goes by the size in
the file's header; of an image yet to be fetched nobody knows the size, and the quote goes by the most that the
operations can leave of 16,000,000 pixels, so a last resize or crop makes it small.

Refused as `invalid_input` are images beyond these sizes on the way, too; a WebP of more than 8,000,000 pixels that can
be seen through; a JPEG of more than 64 scans or in arithmetic coding; a PNG of several colour profiles; a file of more
than 20,000 parts; and a result that is larger than an artifact may be.
"""

import hashlib
from typing import Any

from django.conf import settings
from PIL import Image

from tasks import net
from tasks.capabilities import CapabilityError, Context, File, Result, Usage, capability
from tasks.capabilities.image import headers, pixels, plan
from tasks.capabilities.image.headers import Unreadable
from tasks.capabilities.image.inputs import ImageTransformInput
from tasks.capabilities.image.plan import Outside, TooLarge

MOST_BYTES = 10 * 2**20
QUALITY = 85
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}
# A picture of one pixel.
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FIRST_ONLY = {
    "code": "first_picture_only",
    "message": "The file is an animation, of which the first picture was used.",
    "field": "image",
}


@capability("image.transform", meters=["image_count", "image_pixels"])
class ImageTransform:
    input = ImageTransformInput
    example = {
        "image": DOT,
        "operations": [{"op": "resize", "width": 64, "height": 64, "fit": "fill"}],
        "format": "webp",
    }

    def bound(self, input: dict[str, Any]) -> Usage:
        header = headers.read(input["image"]) if input["image"] else None
        size = (header.width, header.height) if header else None
        return {"image_count": 1, "image_pixels": plan.most_pixels(input["operations"], size)}

    def run(self, input: dict[str, Any], context: Context) -> Result:
        context.progress(0, "reading")
        content = input["image"] if input["image"] is not None else _fetched(input["image_url"])
        context.progress(20, "decoding")
        try:
            image, came_as, more = pixels.decode(content)
            context.progress(40, "transforming")
            for operation in input["operations"]:
                image = pixels.apply(operation, image)
            context.progress(80, "encoding")
            format_ = (input["format"] or came_as).upper()
            made = pixels.encode(image, format_, input["quality"] or QUALITY)
        except (Unreadable, TooLarge, Outside) as error:
            raise CapabilityError(str(error), code="invalid_input") from error
        return _result(image, format_, _storable(made, format_), more)


def _fetched(url: str) -> bytes:
    try:
        return net.fetch(url, most=MOST_BYTES)
    except (net.ForbiddenUrl, net.Unacceptable) as error:
        raise CapabilityError(f"image_url: {error}", code="invalid_input") from error
    except net.Unreachable as error:
        raise CapabilityError(f"image_url: {error}", code="upstream_error", retryable=True) from error


def _storable(content: bytes, format_: str) -> bytes:
    """The file, if an artifact may be that large; whoever asked for it can ask for less."""
    if len(content) > settings.ARTIFACT_BYTES:
        raise CapabilityError(
            f"The image would be a {format_} file of {len(content)} bytes, and a file has at most "
            f"{settings.ARTIFACT_BYTES}: choose a smaller size, a lower quality, or JPEG or WebP for a PNG.",
            code="invalid_input",
        )
    return content


def _result(image: Image.Image, format_: str, content: bytes, more: bool) -> Result:  # noqa: FBT001
    width, height = image.size
    output = {
        "format": format_.lower(),
        "width": width,
        "height": height,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "name": f"image.{EXTENSIONS[format_]}",
    }
    return Result(
        output,
        {"image_count": 1, "image_pixels": width * height},
        warnings=[FIRST_ONLY] if more else [],
        artifacts=[File(output["name"], content, f"image/{format_.lower()}")],
    )
