"""Pictures for tests, as files and as a client sends them."""

import base64
import random
import struct
import zlib
from io import BytesIO

from PIL import Image


def picture(width=40, height=30, mode="RGB", seed=1):
    """A picture in which no two places look the same."""
    dice = random.Random(seed)
    small = Image.frombytes("RGB", (3, 3), dice.randbytes(27)).resize((width, height), Image.Resampling.BICUBIC)
    return small.convert(mode)


def saved(image=None, kind="PNG", **options):
    out = BytesIO()
    (image or picture()).save(out, kind, **options)
    return out.getvalue()


def inline(content):
    return base64.b64encode(content).decode()


def opened(content):
    image = Image.open(BytesIO(content))
    image.load()
    return image


def chunk(kind, data):
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, *, depth=8, colour=2, body=b"", before=b""):
    """A PNG whose header promises this size, whatever its body holds."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = chunk(b"IHDR", head) + before + chunk(b"IDAT", body or zlib.compress(b"\x00" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data
