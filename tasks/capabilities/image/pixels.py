"""Decode, change, encode; in memory that is bounded, and without trust in the file.

The bound is 16,000,000 pixels at four bytes, 64 MB a copy. The worst that was measured, noise written as WebP at
quality 100, is a process of 490 MB, 30 of them before the image; a worker has some 70 more. Most of it is libwebp's
own, so that what can be seen through, which costs it more, has half the pixels there.
"""

import warnings
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any

from PIL import Image, ImageFile

from tasks.capabilities.image import headers, plan
from tasks.capabilities.image.headers import Unreadable

# Pillow's own guards, as well as ours.
Image.MAX_IMAGE_PIXELS = plan.MOST_PIXELS
ImageFile.LOAD_TRUNCATED_IMAGES = False

ORIENTATION = 0x0112
UPRIGHT = {
    2: [Image.Transpose.FLIP_LEFT_RIGHT],
    3: [Image.Transpose.ROTATE_180],
    4: [Image.Transpose.FLIP_TOP_BOTTOM],
    5: [Image.Transpose.TRANSPOSE],
    6: [Image.Transpose.ROTATE_270],
    7: [Image.Transpose.TRANSVERSE],
    8: [Image.Transpose.ROTATE_90],
}
# We turn clockwise, Pillow the other way.
TURNS = {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
FLIPS = {"horizontal": Image.Transpose.FLIP_LEFT_RIGHT, "vertical": Image.Transpose.FLIP_TOP_BOTTOM}
WHITE = SOLID = 255
MOST_SEEN_THROUGH = 8_000_000


def decode(content: bytes) -> tuple[Image.Image, str, bool]:
    """The first picture, upright, as L, LA, RGB or RGBA; the file's format; whether there are more pictures.

    Raises Unreadable, whatever a decoder makes of the file, or TooLarge.
    """
    header = headers.read(content)
    if header is None:
        raise Unreadable("The file is no PNG, JPEG or WebP image.")
    plan.check((header.width, header.height))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(content, header)
    except (Unreadable, MemoryError):
        raise
    except Exception as error:
        raise Unreadable("The image is damaged, or not one that can be read.") from error


def apply(operation: Mapping[str, Any], image: Image.Image) -> Image.Image:
    """The image after the operation. Raises TooLarge or Outside."""
    size = plan.after(operation, image.size)
    match operation["op"]:
        case "resize":
            box = _middle(image.size, size) if operation["fit"] == "cover" else (0, 0, *image.size)
            return _resized(image, size, box)
        case "crop":
            left, top = operation["left"], operation["top"]
            return image.crop((left, top, left + size[0], top + size[1]))
        case "rotate":
            return image.transpose(TURNS[operation["degrees"]])
        case "flip":
            return image.transpose(FLIPS[operation["direction"]])
    return image.convert("LA" if image.has_transparency_data else "L")


def encode(image: Image.Image, format_: str, quality: int) -> bytes:
    """The file: the same for the same pixels, without metadata. JPEG has no transparency and gets a white ground.

    Raises TooLarge.
    """
    image.info = {}
    out = BytesIO()
    if format_ == "PNG":
        image.save(out, "PNG", compress_level=6)
    elif format_ == "WEBP":
        _check_seen_through(image)
        image.save(out, "WEBP", quality=quality, method=4)
    else:
        _on_white(image).save(out, "JPEG", quality=quality, subsampling="4:2:0")
    return out.getvalue()


def _decode(content: bytes, header: headers.Header) -> tuple[Image.Image, str, bool]:
    with Image.open(BytesIO(content), formats=[header.format]) as file:
        if file.size != (header.width, header.height):
            raise Unreadable("The file says two things about its size.")
        more = bool(getattr(file, "is_animated", False))
        file.load()
        if file.size != (header.width, header.height):
            raise Unreadable("The file says two things about its size.")
        turns = UPRIGHT.get(_orientation(file), [])
        image = _plain(file)
    for turn in turns:
        image = image.transpose(turn)
    return image, header.format, more


def _orientation(file: Image.Image) -> Any:
    """Which way is up; metadata that cannot be read says nothing."""
    with suppress(Exception):
        return file.getexif().get(ORIENTATION)
    return None


def _plain(file: Image.Image) -> Image.Image:
    """The pixels in one of the four ways that are worked on, at eight bits a channel."""
    if file.mode.startswith("I"):
        return file.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if file.mode in ("L", "LA", "RGB", "RGBA") and "transparency" not in file.info:
        return file.copy()
    if file.has_transparency_data:
        return file.convert("RGBA")
    return file.convert("L" if file.mode == "1" else "RGB")


def _resized(image: Image.Image, size: plan.Size, box: tuple[float, float, float, float]) -> Image.Image:
    """The box at that size. Pillow goes width first, and a tall image is very large for a moment when it is widened."""
    if size[0] * (box[3] - box[1]) > plan.MOST_PIXELS:
        image = image.resize((image.width, size[1]), Image.Resampling.LANCZOS, box=(0, box[1], image.width, box[3]))
        box = (box[0], 0, box[2], size[1])
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def _middle(size: tuple[int, int], box: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest middle part that has the proportions of the box."""
    scale = min(size[0] / box[0], size[1] / box[1])
    width, height = min(size[0], box[0] * scale), min(size[1], box[1] * scale)
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


def _check_seen_through(image: Image.Image) -> None:
    """libwebp takes forty bytes for each pixel that may be seen through."""
    if image.width * image.height <= MOST_SEEN_THROUGH or image.mode not in ("LA", "RGBA"):
        return
    if image.getchannel("A").histogram()[SOLID] < image.width * image.height:
        raise plan.TooLarge(
            f"A WebP that can be seen through has at most {MOST_SEEN_THROUGH} pixels, and this one "
            f"{image.width} x {image.height}: PNG and JPEG may be larger."
        )


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image
    plain = image.mode[:-1]
    ground = Image.new(plain, image.size, WHITE if plain == "L" else (WHITE,) * 3)
    ground.paste(image.convert(plain), mask=image.getchannel("A"))
    return ground
