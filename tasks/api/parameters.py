"""The parameters of a query: each known, none empty, each once. Several values stand between commas, or one by one."""

from collections.abc import Callable, Collection

from django.http import QueryDict

from tasks.exceptions import Invalid
from tasks.pointers import pointer


def _nothing(_name: str) -> bool:
    return False


def read(
    query: QueryDict,
    known: Collection[str],
    *,
    several: Collection[str] = (),
    free: Callable[[str], bool] = _nothing,
) -> dict[str, str]:
    """The parameters by name, several values joined by commas. One with a `free` name may be empty. Raises Invalid."""
    for name, values in query.lists():
        if wrong := _wrong_with(name, values, several=name in several, free=free(name), known=name in known):
            printable = name.replace("\x00", "\N{REPLACEMENT CHARACTER}")
            raise Invalid(wrong, param=pointer((None, printable)))
    return {name: ",".join(values) for name, values in query.lists()}


def _wrong_with(name: str, values: list[str], *, known: bool, several: bool, free: bool) -> str | None:
    if not (known or free):
        return "This parameter is not known."
    if len(values) > 1 and not several:
        return "This parameter stands twice."
    if not (all(values) or free):
        return "This parameter is empty."
    return "Text contains a NUL character." if "\x00" in name + "".join(values) else None
