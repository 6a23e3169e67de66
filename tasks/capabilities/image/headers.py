"""What a file says that it is, and how large: read from its first bytes, before any decoder sees it.

Decoders make room for an image as soon as they have read its size, so the size is looked at first. Only what the
decoders then confirm is worked on.
"""

from dataclasses import dataclass

PNG = b"\x89PNG\r\n\x1a\n"
# The JPEG markers with a size: start of frame, except those numbers that mean tables or extensions.
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = {0x01, *range(0xD0, 0xD9)}
END, SCAN = 0xD9, 0xDA


@dataclass(frozen=True)
class Header:
    """The format, by Pillow's name, and the size in pixels, not yet turned upright."""

    format: str
    width: int
    height: int


def read(content: bytes) -> Header | None:
    """The header of a PNG, JPEG or WebP file, or None for anything else."""
    for format_, size_of in READERS.items():
        try:
            size = size_of(content)
        except (IndexError, ValueError):
            return None
        if size and all(size):
            return Header(format_, *size)
    return None


def _png(content: bytes) -> tuple[int, int] | None:
    if not content.startswith(PNG) or content[12:16] != b"IHDR" or len(content) < 24:
        return None
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def _jpeg(content: bytes) -> tuple[int, int] | None:
    """The size in the last frame header before the first scan: the one that counts for a decoder."""
    if content[:3] != b"\xff\xd8\xff":
        return None
    size, at = None, 2
    while True:
        at = content.index(b"\xff", at)
        while content[at] == 0xFF:
            at += 1
        marker, at = content[at], at + 1
        if marker in (SCAN, END):
            return size
        if marker in ALONE or marker == 0:
            continue
        if marker in FRAMES:
            size = int.from_bytes(content[at + 5 : at + 7]), int.from_bytes(content[at + 3 : at + 5])
        at += int.from_bytes(content[at : at + 2])


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
