"""Work for tests: does what its input says, in processes of any kind."""

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from decimal import Decimal

from django.db import connection
from rest_framework import serializers

from billing.pricing import METERS
from tasks.capabilities import CapabilityError, File, Result, capability
from tests.workload.odd import ODD


class WorkInput(serializers.Serializer):
    """`how`: a method of Work, return, or odd (`output` says how).

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


@capability("test.work", meters=METERS)
class Work:
    input = WorkInput

    def bound(self, input):
        bound = input["usage"] if input["bound"] is None else input["bound"]
        return {meter: Decimal(most) if isinstance(most, str) else most for meter, most in bound.items()}

    def run(self, input, context):
        context.progress(0, "working", None)
        if input["witness"]:
            with open(input["witness"], "a") as witness:
                witness.write(f"{os.getpid()}\n")
        if input["text"]:
            context.emit(input["text"], input["usage"])
        if input["how"] == "odd":
            return ODD[input["output"]](input, context)
        if input["attempts"] is None or context.attempt <= input["attempts"]:
            getattr(self, input["how"].replace("return", "ret"))(input | {"context": context})
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

    def read(self, input):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.recv(1)

    def query(self, input):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [input["seconds"]])

    def wait(self, input):
        subprocess.run([sys.executable, "-c", f"import time; time.sleep({input['seconds']})"], check=True)

    def clean_up(self, input):
        try:
            raise RuntimeError("out of cheese")
        finally:
            time.sleep(input["seconds"])

    def collect(self, input):
        """Waits where Python drops every exception."""

        class Slow:
            def __del__(self):
                time.sleep(input["seconds"])

        Slow()
        time.sleep(input["seconds"])

    def spawn(self, input):
        """Waits for a thread of its own, which talks for ever."""

        def talk():
            while True:
                try:
                    input["context"].progress(1, "talking")
                    input["context"].emit("word ")
                except Exception as error:
                    print(f"the thread was told {type(error).__name__}", file=sys.stderr, flush=True)
                time.sleep(0.05)

        thread = threading.Thread(target=talk)
        thread.start()
        thread.join()

    def digest(self, input):
        """One C call, which lets other threads run."""
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

    def hog(self, input):
        """Holds the interpreter's lock in one C call, so that no other thread of the process runs."""
        re.match(r"(a+)+$", "a" * 60 + "b")

    def crash(self, input):
        raise RuntimeError("out of cheese")

    def die(self, input):
        os.kill(os.getpid(), signal.SIGKILL)

    def terminate(self, input):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    def leave(self, input):
        os._exit(3)

    def refuse(self, input):
        raise CapabilityError("No.", code=input["output"] or "capability_error")

    def later(self, input):
        raise CapabilityError("Not now.", code="upstream_error", retryable=True)
