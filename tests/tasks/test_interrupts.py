"""The watch beside the work, in this process's main thread."""

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from django.db import connection

from tasks import interrupts
from tasks.interrupts import Interrupted, Watch

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _installed(settings):
    settings.HEARTBEAT_SECONDS, settings.INTERRUPT_GRACE_SECONDS = 0.02, 10
    before, hook = signal.getsignal(signal.SIGUSR2), sys.unraisablehook
    interrupts.install()
    yield
    signal.signal(signal.SIGUSR2, before)
    sys.unraisablehook, interrupts._leaving = hook, False


def always():
    return math.inf


def lost():
    return None


def watch(renew, *, timeout=60, left=math.inf, abandon=None):
    return Watch(renew, timeout=timeout, left=left, abandon=abandon)


def sleep():
    time.sleep(5)


def loop():
    until = time.monotonic() + 5
    while time.monotonic() < until:
        pass


def wait():
    threading.Event().wait(5)


def swallow_exceptions():
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            time.sleep(0.01)
        except Exception:
            continue


def read():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


def query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(5)")


def run_a_program():
    subprocess.run([sys.executable, "-c", "import time; time.sleep(5)"])


def clean_up():
    try:
        raise ValueError("something to clean up")
    finally:
        time.sleep(5)


def collect():
    class Slow:
        def __del__(self):
            time.sleep(5)

    Slow()
    time.sleep(5)


WORKS = [sleep, loop, wait, swallow_exceptions, read, query, run_a_program, clean_up, collect]


@pytest.mark.parametrize("work", WORKS)
def test_a_lost_lease_interrupts_the_work_at_once(work):
    started = time.monotonic()

    with pytest.raises(Interrupted) as caught:
        watch(lost)(work)

    assert caught.value.why == "lost"
    assert time.monotonic() - started < 3
    connection.close()
    connection.ensure_connection()


@pytest.mark.parametrize("work", WORKS)
def test_the_end_of_its_worker_interrupts_the_work(work):
    with interrupts.at_work():
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(Interrupted) as caught:
            watch(always)(work)
        interrupts._leaving = False

    assert caught.value.why == "shutdown"
    connection.close()


def test_work_that_begins_after_its_worker_was_told_to_end_does_not_begin():
    began = []

    with interrupts.at_work():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="shutdown"):
            watch(always)(began.append, True)
        assert interrupts.leaving()
        interrupts._leaving = False

    assert began == []


def test_a_deadline_that_is_moved_meanwhile_is_heeded():
    moved = time.monotonic() + 0.4

    with pytest.raises(Interrupted, match="deadline"):
        watch(lambda: moved - time.monotonic(), left=0.05)(sleep)

    assert 0 <= time.monotonic() - moved < 2


def test_the_deadline_comes_even_while_nobody_can_be_asked():
    def away():
        raise OSError("away")

    with pytest.raises(Interrupted, match="deadline"):
        watch(away, left=0.1)(sleep)


def test_a_thread_that_interrupted_work_leaves_behind_ends_the_process_after_the_run():
    over = threading.Event()

    def spawn():
        thread = threading.Thread(target=over.wait)
        thread.start()
        thread.join()

    with pytest.raises(Interrupted):
        watch(lost)(spawn)
    over.set()

    assert interrupts.leaving()


def test_the_timeout_interrupts_the_work():
    with pytest.raises(Interrupted) as caught:
        watch(always, timeout=0.1)(sleep)

    assert caught.value.why == "timeout"


def test_work_that_ends_in_time_gives_its_result():
    assert watch(always)(lambda a, b: a + b, 1, 2) == 3


def test_work_that_fails_by_itself_raises_its_own_error():
    with pytest.raises(ZeroDivisionError):
        watch(always)(lambda: 1 / 0)


def test_whatever_comes_out_of_interrupted_work_is_the_interruption():
    def turn_it_into_something_else():
        try:
            time.sleep(5)
        finally:
            raise ValueError("as a clean-up might")

    with pytest.raises(Interrupted, match="lost"):
        watch(lost)(turn_it_into_something_else)


def test_work_that_swallows_the_interruption_and_returns_keeps_its_result():
    def stubborn():
        try:
            time.sleep(5)
        except BaseException:
            return "done anyway"

    assert watch(lost)(stubborn) == "done anyway"


def test_a_renewal_that_fails_is_no_answer():
    asked = []

    def away():
        asked.append(True)
        raise OSError("away")

    watch(away)(lambda: [time.sleep(0.01) for _ in range(10)])

    assert len(asked) > 1


def test_work_is_asked_once():
    interruptions = []

    def clean_up():
        for _ in range(5):
            try:
                time.sleep(0.05)
            except Interrupted:
                interruptions.append(True)

    watch(lost)(clean_up)

    assert interruptions == [True]


def test_who_asked_before_the_work_was_armed_is_heard():
    early, ran = watch(always), []
    early.pending = early.asked = "timeout"

    with pytest.raises(Interrupted, match="timeout"):
        early(ran.append, True)

    assert ran == []


def test_a_signal_between_two_runs_interrupts_nobody():
    watch(always)(time.sleep, 0)

    signal.raise_signal(signal.SIGUSR2)

    assert watch(always)(lambda: "next") == "next"


def test_an_interruption_that_comes_as_the_work_ends_never_reaches_the_next(settings):
    """A storm: each run is asked to stop about when it ends, a little earlier or later each time."""
    ended = []

    for number in range(300):
        length = 0.002 + number % 30 / 20_000
        try:
            ended.append(watch(always, timeout=0.0025)(lambda length=length: time.sleep(length)))
        except Interrupted:
            ended.append("interrupted")
        assert watch(always)(lambda: [sum(range(2000)), "next"][1]) == "next"

    assert {None, "interrupted"} == set(ended)


def test_a_hundred_short_runs_that_are_interrupted_leave_the_next_alone():
    for _ in range(100):
        short = watch(always, timeout=0.002)
        with contextlib.suppress(Interrupted):
            short(lambda: [time.sleep(0.001) for _ in range(3)])
        assert watch(always)(lambda: "next") == "next"
