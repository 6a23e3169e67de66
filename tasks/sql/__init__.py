"""The few statements that are SQL on purpose, one a file, each with its reason on top."""

from functools import cache
from pathlib import Path


@cache
def load(name: str) -> str:
    """The text of `<name>.sql`."""
    return (Path(__file__).parent / f"{name}.sql").read_text()
