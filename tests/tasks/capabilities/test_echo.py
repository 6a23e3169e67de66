"""`test.echo`: alone, through the real runner, and in a process that it crashes."""

import signal
import subprocess
import sys
import time
from decimal import Decimal

import pytest
from django.conf import settings
from django.utils.timezone import now

from billing.models import UsageLine
from billing.pricing import FLAT, METERS
from tasks import capabilities, lifecycle, runner
from tasks.capabilities.test_echo import CODES
from tasks.exceptions import Invalid, UnsupportedCapability
from tasks.models import Run, Task
from tasks.statuses import ErrorCode
from tests.builders import account, assert_sound, buckets, deployment, submit
from tests.faults.processes import environment
from tests.tasks.capabilities.spoken import Listener, bound, run


@pytest.fixture(autouse=True)
def enabled(settings):
    settings.ENABLE_TEST_CAPABILITIES = True


def echo(of=None, *, prices=(("characters", "0.5"), (FLAT, "2")), **input):
    """A task of test.echo that has run."""
    fields = {"bills_partial_output": input.pop("bills_partial_output", False)}
    task = submit(of or account(), deployment(capability="test.echo", prices=prices, **fields), input=input)
    assert runner.run_next(task.queue)
    task.refresh_from_db()
    return task


@pytest.mark.parametrize(
    ("input", "output"),
    [
        ({}, None),
        ({"text": "abc"}, "abc"),
        ({"text": " "}, " "),
        ({"text": "abc", "output": {"n": [1, None]}}, {"n": [1, None]}),
        ({"text": "abc", "output": None}, None),
        ({"output": False}, False),
    ],
)
def test_the_output_is_what_was_given_or_the_text(input, output):
    assert run("test.echo", **input).output == output


def test_text_and_usage_come_step_by_step():
    listener = Listener()

    result = run("test.echo", listener, text="abcde", steps=3, usage={"characters": 5, "audio_seconds": "1.50"})

    assert [text for text, _ in listener.pieces] == ["a", "bc", "de"]
    assert [usage["characters"] for _, usage in listener.pieces] == [1, 3, 5]
    assert [usage["audio_seconds"] for _, usage in listener.pieces] == [Decimal("0.5"), 1, Decimal("1.5")]
    assert [round(percent) for percent, _ in listener.stages] == [33, 67, 100]
    assert result.usage == {"characters": 5, "audio_seconds": Decimal("1.5")}


def test_with_no_steps_it_is_silent():
    listener = Listener()

    result = run("test.echo", listener, text="abc", steps=0)

    assert (listener.stages, listener.pieces, result.output) == ([], [], "abc")


@pytest.mark.parametrize("steps", [0, 1, 10])
def test_it_takes_its_time(steps):
    started = time.monotonic()

    run("test.echo", seconds=0.2, steps=steps)

    assert 0.2 <= time.monotonic() - started < 1


def test_the_bound_is_the_usage_unless_it_is_given():
    assert bound("test.echo", usage={"characters": "2.5"}) == {"characters": Decimal("2.5")}
    assert bound("test.echo", usage={"characters": 5}, bound={"characters": 3}) == {"characters": 3}
    assert bound("test.echo", usage={"characters": 5}, bound={}) == {}


def test_it_may_report_every_meter():
    assert capabilities.get("test.echo").meters == set(METERS)


def test_it_knows_every_error_code():
    assert set(CODES) == set(ErrorCode)


@pytest.mark.parametrize(
    ("debug", "enabled", "refused"),
    [(False, False, True), (True, False, False), (False, True, False)],
)
def test_a_crash_takes_a_setting(settings, debug, enabled, refused):
    settings.DEBUG, settings.ENABLE_TEST_CAPABILITIES = debug, enabled
    said = None
    try:
        bound("test.echo", fail="crash")
    except Invalid as error:
        said = (error.param, "ENABLE_TEST_CAPABILITIES" in error.message)

    assert said == (("/input/fail", True) if refused else None)


@pytest.mark.django_db(transaction=True)
def test_it_succeeds_and_is_charged_for_what_it_was_told_to_use():
    every = {meter: str(number) for number, meter in enumerate(METERS, 1)}
    prices = [(meter, "0.1") for meter in (FLAT, *METERS)]

    task = echo(prices=prices, text="abc", usage=every)

    assert (task.status, task.output, task.usage) == ("succeeded", "abc", every)
    lines = UsageLine.objects.filter(task_id=task.pk).order_by("position").values_list("meter", "quantity")
    assert list(lines) == [(FLAT, 1), *((meter, Decimal(number)) for meter, number in every.items())]
    assert buckets(task.account) == {"available": Decimal("4.4"), "held": 0, "charged": Decimal("5.6")}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("code", CODES)
def test_it_fails_with_the_code_that_it_was_told(code):
    task = echo(fail=code, usage={"characters": 2})

    assert task.status == "failed"
    assert task.error == {"code": code, "message": "Told to fail.", "retryable": False}
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}


@pytest.mark.django_db(transaction=True)
def test_a_retryable_failure_is_tried_again_until_no_retries_are_left():
    task = echo(fail="upstream_error_retryable")
    assert (task.status, task.attempt, task.runs.get(number=1).reason_resolved) == ("queued", 2, "intermittent_task")

    for _ in range(task.max_retries):
        Task.objects.filter(pk=task.pk).update(available_at=task.created_at)
        assert runner.run_next(task.queue)
    task.refresh_from_db()

    assert (task.status, task.error["code"], task.attempt) == ("failed", "upstream_error", 3)
    assert_sound(task.account)


@pytest.mark.django_db(transaction=True)
def test_usage_above_the_bound_is_charged_up_to_the_quote():
    task = echo(usage={"characters": 8}, bound={"characters": 2})

    assert [warning["code"] for warning in task.warnings] == ["usage_exceeds_quote"]
    assert buckets(task.account) == {"available": 7, "held": 0, "charged": 3}


@pytest.mark.django_db(transaction=True)
def test_what_was_streamed_before_a_timeout_is_billed_where_the_deployment_says_so():
    task = echo(text="abcd", usage={"characters": 4}, fail="timeout", bills_partial_output=True)

    partial = task.runs.get()
    assert (partial.partial_text, partial.usage) == ("abcd", {"characters": "4"})
    assert (task.status, task.error["code"], task.output) == ("failed", "timeout", "abcd")
    assert buckets(task.account) == {"available": 8, "held": 0, "charged": 2}


@pytest.mark.django_db(transaction=True)
def test_a_crash_takes_its_process_and_leaves_what_was_streamed(enabled):
    to = deployment(capability="test.echo", queue="crash", max_retries=0)
    task = submit(account(), to, input={"fail": "crash", "text": "last words", "usage": {"characters": 10}})

    died = subprocess.run(
        [sys.executable, "-c", RUN_ONE], cwd=settings.BASE_DIR, env=environment(DEBUG="true"), capture_output=True
    )

    assert died.returncode == -signal.SIGKILL, died.stderr
    left = Run.objects.get(task=task)
    assert (left.status, left.partial_text, left.usage) == ("running", "last words", {"characters": "10"})
    Run.objects.update(lease_expires_at=now())
    assert lifecycle.give_up(task.pk)
    task.refresh_from_db()
    assert task.error["code"] == "worker_lost"
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}


RUN_ONE = "import django; django.setup(); from tasks.runner import run_next; run_next('crash')"


@pytest.mark.django_db(transaction=True)
def test_it_takes_no_task_while_the_setting_is_off_even_from_an_active_deployment(settings):
    to = deployment(capability="test.echo")
    settings.DEBUG = settings.ENABLE_TEST_CAPABILITIES = False

    with pytest.raises(UnsupportedCapability):
        submit(to=to)
