"""What a file says that it is, and how large: read from its first bytes, before any decoder sees it.

Decoders make room for an image as soon as they have read its size, so the size is looked at first. Only what the
decoders then confirm is worked on. They also go over the whole image for every scan of a JPEG, which may be a few bytes
long, and over every part of a file one by one, unpacking each profile: all of these are counted first.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

# Cameras and optimisers make about ten scans; parts of a kilobyte each would be ten thousand in 10 MiB.
MOST_SCANS = 64
MOST_PARTS = 20_000

PNG = b"\x89PNG\r\n\x1a\n"
# The JPEG markers with a size: start of frame, except those numbers that mean tables or extensions.
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# The frames that are read: baseline and progressive. In arithmetic coding no bytes at all make a scan of slow pixels.
READ = {0xC0, 0xC1, 0xC2}
END, SCAN = 0xD9, 0xDA
# A marker with a segment: none that stands alone, and no byte of a scan.
SEGMENT = re.compile(rb"\xff([^\x00\x01\xd0-\xd8\xff])", re.DOTALL)


class Unreadable(ValueError):
    """The file is no image that can be worked on; the message says why."""


@dataclass(frozen=True)
class Header:
    """The format, by Pillow's name, and the size in pixels, not yet turned upright."""

    format: str
    width: int
    height: int


def read(content: bytes) -> Header | None:
    """The header of a PNG, JPEG or WebP file, or None for anything else.

    Raises Unreadable for a file that would keep a decoder busy for no image's sake.
    """
    for format_, size_of in READERS.items():
        try:
            size = size_of(content)
        except IndexError:
            return None
        if size and all(size):
            return Header(format_, *size)
    return None


def _png(content: bytes) -> tuple[int, int] | None:
    if not content.startswith(PNG) or content[12:16] != b"IHDR" or len(content) < 24:
        return None
    _count(_chunks(content))
    if list(_chunks(content)).count(b"iCCP") > 1:  # each is unpacked
        raise Unreadable("A PNG has one colour profile, and this one more.")
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def _chunks(content: bytes) -> Iterator[bytes]:
    at = len(PNG)
    while at < len(content) and (kind := content[at + 4 : at + 8]) != b"IEND":
        yield kind
        at += 12 + int.from_bytes(content[at : at + 4])


def _jpeg(content: bytes) -> tuple[int, int] | None:
    """The size in the last frame header before the first scan: the one that counts for a decoder."""
    if content[:3] != b"\xff\xd8\xff":
        return None
    _count(_segments(content))
    size, scans = None, 0
    for marker, at in _segments(content):
        if marker == SCAN:
            scans += 1
        elif marker in FRAMES and not scans:
            if marker not in READ:
                raise Unreadable("A JPEG is read if it is baseline or progressive, and this one is neither.")
            size = int.from_bytes(content[at + 5 : at + 7]), int.from_bytes(content[at + 3 : at + 5])
    if scans > MOST_SCANS:
        raise Unreadable(f"A JPEG has at most {MOST_SCANS} scans, and this one {scans}.")
    return size


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Each marker up to the end of the image, those between its scans too, and where what it holds begins."""
    at = 2
    while (found := SEGMENT.search(content, at)) and found[1][0] != END:
        at = found.end()
        yield found[1][0], at
        at += int.from_bytes(content[at : at + 2])


def _count(parts: Iterator[object]) -> None:
    if next(islice(parts, MOST_PARTS, None), None) is not None:
        raise Unreadable(f"The file consists of more than {MOST_PARTS} parts.")


def _webp(content: bytes) -> tuple[int, int] | None:
    if content[:4] != b"RIFF" or content[8:12] != b"WEBP" or len(content) < 30:
        return None
    match content[12:16]:
        case b"VP8X":
            return int.from_bytes(content[24:27], "little") + 1, int.from_bytes(content[27:30], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(content[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = content[26:28], content[28:30]
            return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF
    return None


READERS = {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}
