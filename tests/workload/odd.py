"""What capabilities must not do: each act misbehaves in its own way, given the input and the context of its run."""

import asyncio
import itertools
import sys
from collections import UserDict
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

from tasks.capabilities import CapabilityError, File, Result


class Unreadable:
    """Says no whenever it is looked at."""

    def __str__(self):
        raise RuntimeError("unreadable")

    __repr__ = __bool__ = __len__ = __iter__ = __eq__ = __str__
    __hash__ = None


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("unprintable")


class Quitting(Exception):
    def __str__(self):
        sys.exit("while it is printed")


class NoSuper(CapabilityError):
    def __init__(self):
        """Forgets its code, its message and whether it can be retried."""


class Hostile(UserDict):
    def __iter__(self):
        raise KeyboardInterrupt


def gives(output=None, usage=None, **more):
    return lambda input, context: Result(output, {} if usage is None else usage, **more)


def is_(value):
    return lambda input, context: value() if callable(value) else value


def raises(error):
    def act(input, context):
        raise error() if callable(error) else error

    return act


def says(*words, **more):
    """Streams this."""

    def act(input, context):
        context.emit(*words, **more)
        return Result(None)

    return act


def shows(*progress):
    def act(input, context):
        context.progress(*progress)
        return Result(None)

    return act


def floods(input, context):
    while True:
        context.emit("x" * 2**19)


def floods_and_swallows(input, context):
    for _ in range(2**6):
        try:
            context.emit("x" * 2**19)
        except Exception:
            continue
    raise CapabilityError("As much as that.")


async def promise():
    return Result(None)


def generator():
    yield Result(None)


def nested(depth):
    output = []
    for _ in range(depth):
        output = [output]
    return output


def ring():
    output = [1]
    output.append(output)
    return output


def alias(error, **fields):
    """An error whose fields are not what they should be."""
    for name, value in fields.items():
        setattr(error, name, value)
    return error


ODD = {
    "no result": is_({"output": 1}),
    "nothing": is_(None),
    "a coroutine": is_(promise),
    "a generator": is_(generator),
    "something like a result": is_(SimpleNamespace(output=1, usage={}, warnings=(), estimated=frozenset())),
    # the output
    "a set": gives({1, 2}),
    "an object": gives(object()),
    "no number": gives(float("nan")),
    "infinity": gives(float("inf")),
    "a NUL": gives({"text": ["a\x00b"]}),
    "a NUL in a key": gives({"\x00": 1}),
    "a lone surrogate": gives("\ud800"),
    "a lone surrogate in a key": gives({"\udfff": 1}),
    "a megabyte and one": gives("x" * (2**20 - 1)),
    "a ring": lambda input, context: Result(ring()),
    "ten thousand levels": lambda input, context: Result(nested(10_000)),
    "a long number": gives(10**5000),
    "keys of bytes": gives({b"a": 1}),
    "keys of tuples": gives({(1, 2): 1}),
    # the usage
    "undeclared": gives(None, {"bananas": 1}),
    "the flat price": gives(None, {"task": 2}),
    "meters of no name": gives(None, {1: 1, "bananas": 1}),
    "NaN used": gives(None, {"characters": Decimal("NaN")}),
    "a signaling NaN used": gives(None, {"characters": Decimal("sNaN")}),
    "a float NaN used": gives(None, {"characters": float("nan")}),
    "infinity used": gives(None, {"characters": float("inf")}),
    "less than nothing used": gives(None, {"characters": -1}),
    "more than there is used": gives(None, {"characters": 10**18}),
    "much more than there is used": gives(None, {"characters": Decimal("1e999999")}),
    "a long number used": gives(None, {"characters": 10**5000}),
    "words used": gives(None, {"characters": "many"}),
    "digits used": gives(None, {"characters": "5"}),
    "yes used": gives(None, {"characters": True}),
    "usage that is unreadable": gives(None, Hostile(characters=1)),
    "nothing used": gives(None, {"characters": None}),
    "a list used": gives(None, ["characters"]),
    # the warnings
    "a warning of words": gives(warnings=["careful"]),
    "a warning that is a number": gives(warnings=7),
    "warnings that are unreadable": gives(warnings=Unreadable()),
    "estimated what cannot be": gives(estimated=[[]]),
    # the files
    "no file": gives(artifacts=["a.txt"]),
    "a name that leads up": gives(artifacts=[File("../a.txt", b"x")]),
    "a hidden name": gives(artifacts=[File(".a", b"x")]),
    "a name of another line": gives(artifacts=[File("a\n", b"x")]),
    "no name": gives(artifacts=[File("", b"x")]),
    "a long name": gives(artifacts=[File("a" * 101, b"x")]),
    "one name twice": gives(artifacts=[File("a", b"x"), File("a", b"y")]),
    "a header for a type": gives(artifacts=[File("a", b"x", "text/html\r\nX: y")]),
    "no type": gives(artifacts=[File("a", b"x", "html")]),
    "no content": gives(artifacts=[File("a", None)]),
    "text for content": gives(artifacts=[File("a", "x")]),
    "a file that is not there": gives(artifacts=[File("a", Path("/nonexistent"))]),
    "a folder": gives(artifacts=[File("a", Path("/"))]),
    "too many files": gives(artifacts=[File(f"a{n}", b"") for n in range(101)]),
    "too large a file": gives(artifacts=[File("a", Path("/dev/zero"))]),
    "files that are unreadable": gives(artifacts=Unreadable()),
    # what it raises
    "KeyboardInterrupt": raises(KeyboardInterrupt),
    "SystemExit": raises(SystemExit),
    "GeneratorExit": raises(GeneratorExit),
    "MemoryError": lambda input, context: Result(bytearray(2**62)),
    "CancelledError": raises(asyncio.CancelledError),
    "a bare BaseException": raises(BaseException),
    "an unprintable error": raises(Unprintable),
    "an error that quits when it is printed": raises(Quitting),
    "a long error": raises(lambda: RuntimeError("x" * 2**20)),
    "a NUL error": raises(lambda: RuntimeError("\x00")),
    "a refusal without words": raises(NoSuper),
    "a refusal of an unreadable": raises(lambda: CapabilityError(Unreadable())),
    "a refusal of NUL": raises(lambda: CapabilityError("\x00\ud800" * 2**10)),
    "a refusal with a list for a code": raises(lambda: alias(CapabilityError("No."), code=[])),
    "a refusal that may be retried, perhaps": raises(lambda: alias(CapabilityError("No."), retryable=Unreadable())),
    "an endless recursion": lambda input, context: ODD["an endless recursion"](input, context),
    # what it says meanwhile
    "no text": says(5),
    "bytes": says(b"bytes"),
    "a gigabyte of text": floods,
    "a gigabyte of text, whatever it is told": floods_and_swallows,
    "undeclared meanwhile": says("a", {"bananas": 1}),
    "NaN used meanwhile": says("a", {"characters": float("nan")}),
    "words used meanwhile": says("a", "many"),
    "NaN per cent": shows(float("nan")),
    "words per cent": shows("half"),
    "a stage that is unreadable": shows(1, Unreadable()),
}

# What is cut to what we keep.
CUT = {
    "endless warnings": (gives("done", warnings=({"code": "w"} for _ in itertools.count())), 100),
    "odd warnings": (gives("done", warnings=[{"code": 1, "message": Unprintable(), "field": ["a"]}]), 1),
    "infinity per cent": (lambda input, context: [shows(float("inf"))(input, context), Result("done")][1], 0),
    "a long stage": (lambda input, context: [shows(-(10**400), "x" * 10**6)(input, context), Result("done")][1], 0),
    "an input that it changes": (lambda input, context: Result("done") if not input.clear() else None, 0),
}
ODD |= {name: act for name, (act, _) in CUT.items()}
