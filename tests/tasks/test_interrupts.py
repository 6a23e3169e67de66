"""The watch beside the work, in this process's main thread."""

import contextlib
import signal
import threading
import time

import pytest

from tasks import interrupts
from tasks.interrupts import Interrupted, Watch

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _installed(settings):
    settings.HEARTBEAT_SECONDS, settings.INTERRUPT_GRACE_SECONDS = 0.02, 10
    before = signal.getsignal(signal.SIGUSR2)
    interrupts.install()
    yield
    signal.signal(signal.SIGUSR2, before)


def always():
    return True


def lost():
    return False


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


@pytest.mark.parametrize("work", [sleep, loop, wait, swallow_exceptions])
def test_a_lost_lease_interrupts_the_work_at_once(work):
    started = time.monotonic()

    with pytest.raises(Interrupted) as caught:
        Watch(lost, timeout=60)(work)

    assert caught.value.why == "lost"
    assert time.monotonic() - started < 1


def test_the_timeout_interrupts_the_work():
    with pytest.raises(Interrupted) as caught:
        Watch(always, timeout=0.1)(sleep)

    assert caught.value.why == "timeout"


def test_work_that_ends_in_time_gives_its_result():
    assert Watch(always, timeout=60)(lambda a, b: a + b, 1, 2) == 3


def test_work_that_fails_by_itself_raises_its_own_error():
    with pytest.raises(ZeroDivisionError):
        Watch(always, timeout=60)(lambda: 1 / 0)


def test_whatever_comes_out_of_interrupted_work_is_the_interruption():
    def turn_it_into_something_else():
        try:
            time.sleep(5)
        finally:
            raise ValueError("as a clean-up might")

    with pytest.raises(Interrupted, match="lost"):
        Watch(lost, timeout=60)(turn_it_into_something_else)


def test_work_that_swallows_the_interruption_and_returns_keeps_its_result():
    def stubborn():
        try:
            time.sleep(5)
        except BaseException:
            return "done anyway"

    assert Watch(lost, timeout=60)(stubborn) == "done anyway"


def test_a_renewal_that_fails_is_no_answer():
    asked = []

    def away():
        asked.append(True)
        raise OSError("away")

    Watch(away, timeout=60)(lambda: [time.sleep(0.01) for _ in range(10)])

    assert len(asked) > 1


def test_work_is_asked_once():
    interruptions = []

    def clean_up():
        for _ in range(5):
            try:
                time.sleep(0.05)
            except Interrupted:
                interruptions.append(True)

    Watch(lost, timeout=60)(clean_up)

    assert interruptions == [True]


def test_who_asked_before_the_work_was_armed_is_heard():
    watch, ran = Watch(always, timeout=60), []
    watch.pending = watch.asked = "timeout"

    with pytest.raises(Interrupted, match="timeout"):
        watch(ran.append, True)

    assert ran == []


def test_a_signal_between_two_runs_interrupts_nobody():
    Watch(always, timeout=60)(time.sleep, 0)

    signal.raise_signal(signal.SIGUSR2)

    assert Watch(always, timeout=60)(lambda: "next") == "next"


def test_a_hundred_short_runs_that_are_interrupted_leave_the_next_alone():
    for _ in range(100):
        watch = Watch(always, timeout=0.002)
        with contextlib.suppress(Interrupted):
            watch(lambda: [time.sleep(0.001) for _ in range(3)])
        assert Watch(always, timeout=60)(lambda: "next") == "next"
