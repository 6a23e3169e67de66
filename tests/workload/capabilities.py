"""Work for tests: does what its input says, in processes of any kind."""

import os
import re
import signal
import sys
import time
from decimal import Decimal
from pathlib import Path

from rest_framework import serializers

from billing.pricing import METERS
from tasks.capabilities import CapabilityError, File, Result, capability


class WorkInput(serializers.Serializer):
    """`how`: return, sleep, busy, swallow, crash, quit, die, refuse, later, odd (`output` says how).

    `attempts`: how many runs do so before one returns; None for all.
    """

    how = serializers.CharField(default="return")
    attempts = serializers.IntegerField(default=None, allow_null=True)
    seconds = serializers.FloatField(default=0)
    output = serializers.JSONField(default=None, allow_null=True)
    usage = serializers.DictField(default=dict)
    bound = serializers.DictField(default=None, allow_null=True)
    text = serializers.CharField(default="", allow_blank=True)
    witness = serializers.CharField(default="", allow_blank=True)
    files = serializers.DictField(default=dict, help_text="Names and texts.")


ODD = {
    "no result": {"output": 1},
    "a set": Result({1, 2}),
    "an object": Result(object()),
    "no number": Result(float("nan")),
    "infinity": Result(float("inf")),
    "a NUL": Result({"text": ["a\x00b"]}),
    "a NUL in a key": Result({"\x00": 1}),
    "a lone surrogate": Result("\ud800"),
    "a megabyte and one": Result("x" * (2**20 - 1)),
    "a ring": Result(ring := [1]),
    "a long number": Result(10**5000),
    "undeclared": Result(None, {"bananas": 1}),
    "the flat price": Result(None, {"task": 2}),
    "NaN used": Result(None, {"characters": Decimal("NaN")}),
    "infinity used": Result(None, {"characters": float("inf")}),
    "less than nothing used": Result(None, {"characters": -1}),
    "no file": Result(None, artifacts=["a.txt"]),
    "a name that leads up": Result(None, artifacts=[File("../a.txt", b"x")]),
    "a hidden name": Result(None, artifacts=[File(".a", b"x")]),
    "a name of another line": Result(None, artifacts=[File("a\n", b"x")]),
    "no name": Result(None, artifacts=[File("", b"x")]),
    "a long name": Result(None, artifacts=[File("a" * 101, b"x")]),
    "one name twice": Result(None, artifacts=[File("a", b"x"), File("a", b"y")]),
    "a header for a type": Result(None, artifacts=[File("a", b"x", "text/html\r\nX: y")]),
    "no type": Result(None, artifacts=[File("a", b"x", "html")]),
    "no content": Result(None, artifacts=[File("a", None)]),
    "text for content": Result(None, artifacts=[File("a", "x")]),
    "a file that is not there": Result(None, artifacts=[File("a", Path("/nonexistent"))]),
    "a folder": Result(None, artifacts=[File("a", Path("/"))]),
    "too many files": Result(None, artifacts=[File(f"a{n}", b"") for n in range(101)]),
    "too large a file": Result(None, artifacts=[File("a", Path("/dev/zero"))]),
    "more than there is used": Result(None, {"characters": 10**18}),
    "words used": Result(None, {"characters": "many"}),
}
ring.append(ring)


@capability("test.work", meters=METERS)
class Work:
    input = WorkInput

    def bound(self, input):
        return input["usage"] if input["bound"] is None else input["bound"]

    def run(self, input, context):
        context.progress(0, "working", None)
        if input["witness"]:
            with open(input["witness"], "a") as witness:
                witness.write(f"{os.getpid()}\n")
        if input["text"]:
            context.emit(input["text"], input["usage"])
        if input["how"] == "odd":
            return ODD[input["output"]]
        if input["attempts"] is None or context.attempt <= input["attempts"]:
            getattr(self, input["how"].replace("return", "ret"))(input)
        files = [File(name, text.encode(), "text/plain; charset=utf-8") for name, text in input["files"].items()]
        return Result(input["output"], input["usage"], artifacts=files)

    def ret(self, input):
        time.sleep(input["seconds"])

    sleep = ret

    def busy(self, input):
        until = time.monotonic() + input["seconds"]
        while time.monotonic() < until:
            pass

    def swallow(self, input):
        until = time.monotonic() + input["seconds"]
        while time.monotonic() < until:
            try:
                time.sleep(0.05)
            except BaseException:
                continue

    def hog(self, input):
        """Holds the interpreter's lock in one C call, so that no other thread of the process runs."""
        re.match(r"(a+)+$", "a" * 60 + "b")

    def crash(self, input):
        raise RuntimeError("out of cheese")

    def quit(self, input):
        sys.exit(3)

    def die(self, input):
        os.kill(os.getpid(), signal.SIGKILL)

    def refuse(self, input):
        raise CapabilityError("No.", code=input["output"] or "capability_error")

    def later(self, input):
        raise CapabilityError("Not now.", code="upstream_error", retryable=True)
