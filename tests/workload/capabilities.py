"""Work for tests: does what its input says, in processes of any kind."""

import os
import signal
import time

from rest_framework import serializers

from billing.pricing import METERS
from tasks.capabilities import CapabilityError, Result, capability


class WorkInput(serializers.Serializer):
    """`how`: return, sleep, busy, swallow, crash, die, refuse, later; `attempts`: how many runs do so, None for all."""

    how = serializers.CharField(default="return")
    attempts = serializers.IntegerField(default=None, allow_null=True)
    seconds = serializers.FloatField(default=0)
    output = serializers.JSONField(default=None)
    usage = serializers.DictField(default=dict)
    bound = serializers.DictField(default=None, allow_null=True)
    text = serializers.CharField(default="", allow_blank=True)
    witness = serializers.CharField(default="", allow_blank=True)


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
        if input["attempts"] is None or context.attempt <= input["attempts"]:
            getattr(self, input["how"].replace("return", "ret"))(input)
        return Result(input["output"], input["usage"])

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

    def crash(self, input):
        raise RuntimeError("out of cheese")

    def die(self, input):
        os.kill(os.getpid(), signal.SIGKILL)

    def refuse(self, input):
        raise CapabilityError("No.", code=input["output"] or "capability_error")

    def later(self, input):
        raise CapabilityError("Not now.", code="upstream_error", retryable=True)
