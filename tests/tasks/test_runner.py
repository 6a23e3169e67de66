"""One run, in this process: what the capability gives or does decides how it is resolved."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import OperationalError
from django.utils.timezone import now

from billing import audit, pricing
from tasks import capabilities, interrupts, lifecycle, runner
from tasks.capabilities import CapabilityError, Result
from tasks.models import Run, Task
from tasks.results import checked, clean_text, measured, readable
from tests.builders import account, assert_sound, buckets, deployment, submit

pytestmark = pytest.mark.django_db(transaction=True)


def run(task):
    assert runner.run_next(task.queue)
    task.refresh_from_db()
    return task


def run_of(task):
    return task.runs.values_list("status", "reason_resolved").get(number=task.attempt)


def test_a_result_is_stored_with_its_usage_and_charged():
    of, to = account(), deployment(prices=[("task", "1"), ("characters", "0.01")])
    work = {"output": {"text": "hé"}, "usage": {"characters": 7}, "bound": {"characters": 100}}

    task = run(submit(of, to, input=work))

    assert (task.status, task.output, task.usage) == ("succeeded", {"text": "hé"}, {"characters": "7"})
    assert task.progress == {"percent": 100, "stage": "working", "message": None}
    assert run_of(task) == ("succeeded", "completed")
    assert buckets(of) == {"available": Decimal("8.93"), "held": 0, "charged": Decimal("1.07")}
    assert_sound(of)


def test_an_empty_queue_is_no_work():
    assert runner.run_next("default") is False


def test_a_capability_that_crashes_fails_its_task_for_nothing():
    task = run(submit(input={"how": "crash"}))

    assert (task.status, task.error["code"], task.error["retryable"]) == ("failed", "capability_error", False)
    assert run_of(task) == ("failed", "failed")
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}


def test_an_output_of_a_megabyte_is_stored():
    task = run(submit(input={"output": "x" * (2**20 - 2)}))

    assert task.status == "succeeded"


def test_an_escaped_backslash_is_no_nul():
    task = run(submit(input={"output": "\\u0000"}))

    assert (task.status, task.output) == ("succeeded", "\\u0000")


def test_usage_above_the_quote_is_listed_and_not_billed():
    of, to = account(), deployment(prices=[("task", "1"), ("characters", "0.5")])
    task = run(submit(of, to, input={"usage": {"characters": 9}, "bound": {"characters": 2}}))

    lines = task.account.usage_lines.order_by("position").values_list("meter", "listed_amount", "billed_amount")

    assert [warning["code"] for warning in task.warnings] == ["usage_exceeds_quote"]
    assert list(lines) == [("task", 1, 1), ("characters", Decimal("4.5"), 1)]
    assert buckets(of) == {"available": 8, "held": 0, "charged": 2}


def test_usage_that_lists_for_more_than_can_be_written_is_cut_as_any_other():
    of, to = account(), deployment(prices=[("output_tokens", "4")])
    task = run(submit(of, to, input={"usage": {"output_tokens": 10**17}, "bound": {"output_tokens": 1}}))

    line = of.usage_lines.get()

    assert (task.status, [warning["code"] for warning in task.warnings]) == ("succeeded", ["usage_exceeds_quote"])
    assert (line.quantity, line.listed_amount, line.billed_amount) == (10**17, pricing.MOST, 4)
    assert audit.run().broken == []


def test_a_capability_does_not_warn_in_our_name():
    result = Result(None, {}, warnings=[{"code": "usage_exceeds_quote", "message": "Ours?"}])

    found = checked(capabilities.get("test.work"), result)["warnings"]

    assert found == [{"code": "warning", "message": "Ours?", "field": None}]


def test_a_result_that_the_database_refuses_is_an_internal_error(monkeypatch):
    monkeypatch.setattr(pricing, "MOST", Decimal(10) ** 30)
    to = deployment(prices=[("characters", "1000000000")])
    task = run(submit(to=to, input={"usage": {"characters": 10**17}, "bound": {}}))

    assert (task.status, task.error["code"]) == ("failed", "internal_error")
    assert run_of(task) == ("exception", "internal_error")
    assert_sound(task.account)


def test_input_that_no_longer_fits_the_capability_is_malformed():
    task = submit()
    Task.objects.filter(pk=task.pk).update(input={"seconds": "soon"})

    task = run(task)

    assert (task.status, task.error["code"]) == ("failed", "invalid_input")
    assert run_of(task) == ("exception", "malformed_payload")


def test_a_capability_that_is_not_installed_is_an_internal_error():
    task = submit()
    Task.objects.filter(pk=task.pk).update(capability="test.gone")

    task = run(task)

    assert (task.status, task.error["code"]) == ("failed", "internal_error")


@pytest.mark.parametrize(
    ("said", "code", "resolution"),
    [
        ("capability_error", "capability_error", ("failed", "failed")),
        ("invalid_input", "invalid_input", ("exception", "malformed_payload")),
        ("upstream_error", "upstream_error", ("failed", "upstream_error")),
        ("no such code", "capability_error", ("failed", "failed")),
    ],
)
def test_a_capability_that_says_no_has_failed(said, code, resolution):
    task = run(submit(input={"how": "refuse", "output": said}))

    assert (task.status, task.error) == ("failed", {"code": code, "message": "No.", "retryable": False})
    assert run_of(task) == resolution
    assert task.attempt == 1


def test_a_retryable_error_backs_off_until_no_retries_are_left(settings):
    settings.RETRY_BACKOFF_SECONDS = 100
    task = submit(to=deployment(max_retries=2), input={"how": "later"})

    waits = []
    for _ in range(2):
        task = run(task)
        waits.append((task.available_at - Run.objects.get(task=task, number=task.attempt - 1).resolved_at).seconds)
        assert (task.status, task.error) == ("queued", None)
        assert not runner.run_next(task.queue)
        Task.objects.filter(pk=task.pk).update(available_at=task.created_at)
    task = run(task)

    assert 79 <= waits[0] <= 120
    assert 319 <= waits[1] <= 480
    assert (task.status, task.attempt, task.retries_left, task.error["code"]) == ("failed", 3, 0, "upstream_error")
    assert [*task.runs.order_by("number").values_list("reason_created", "reason_resolved")] == [
        ("scheduled", "intermittent_task"),
        ("retry", "intermittent_task"),
        ("retry", "intermittent_task"),
    ]
    assert_sound(task.account)


def test_a_run_whose_lease_was_lost_meanwhile_changes_nothing(monkeypatch):
    task = submit(input={"output": "too late"})
    call = runner._call
    monkeypatch.setattr(runner, "_call", lambda claimed: [call(claimed), lifecycle.cancel(task.pk, by="test")][0])

    task = run(task)

    assert (task.status, task.output) == ("canceled", None)
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    assert_sound(task.account)


def test_progress_that_is_refused_ends_the_work(monkeypatch):
    task = submit(input={"how": "crash"})
    clean = runner.clean
    monkeypatch.setattr(runner, "clean", lambda *args: [clean(*args), lifecycle.cancel(task.pk, by="test")][0])

    task = run(task)

    assert task.status == "canceled"
    assert task.progress["stage"] is None


def test_a_resolution_is_repeated_until_the_database_has_answered(monkeypatch):
    task, succeed, away = submit(), lifecycle.succeed, [OperationalError("away"), OperationalError("away")]

    def when_it_is_back(*args, **kwargs):
        if away:
            raise away.pop()
        succeed(*args, **kwargs)

    monkeypatch.setattr(lifecycle, "succeed", when_it_is_back)
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    assert run(task).status == "succeeded"


def test_the_run_knows_its_worker_and_is_leased():
    task, seen = submit(), []

    claimed = lifecycle.claim(task.queue, worker="host:1")
    seen = Run.objects.get(task=task)

    assert (seen.worker, seen.status, seen.lease_token) == ("host:1", "running", claimed.token)
    assert 59 < (seen.lease_expires_at - seen.started_at).total_seconds() <= 60


def test_a_run_is_stopped_at_its_deadline():
    before = interrupts.signal.getsignal(interrupts.signal.SIGUSR2)
    interrupts.install()
    task = submit(input={"how": "sleep", "seconds": 5})
    Task.objects.filter(pk=task.pk).update(deadline=now() + timedelta(seconds=0.3))

    task = run(task)
    interrupts.signal.signal(interrupts.signal.SIGUSR2, before)

    assert (task.status, task.error["code"]) == ("failed", "deadline_exceeded")


def test_text_is_published_with_its_usage_and_no_more_often_than_twice_a_second():
    task = submit()
    claimed = lifecycle.claim(task.queue, worker="test")
    context = runner.RunContext(claimed, capabilities.get("test.work"))

    context.emit("a\x00", {"characters": 1})
    context.emit("b", {"characters": 2})
    held_back = Run.objects.get(task=task).partial_text
    context._text_at -= 0.5
    context.emit("c", {"characters": 3})

    row = Run.objects.get(task=task)
    assert held_back == "a\N{REPLACEMENT CHARACTER}"
    assert (row.partial_text, row.usage) == ("a\N{REPLACEMENT CHARACTER}bc", {"characters": "3"})


def speaking(task):
    """A context of the task's run, in which everything comes too soon after something else."""
    context = runner.RunContext(lifecycle.claim(task.queue, worker="test"), capabilities.get("test.work"))
    context.EVERY = context.PROGRESS_EVERY = 3600
    return context


def test_progress_in_a_loop_writes_its_stages_and_the_last_word(monkeypatch):
    context, said, progress = speaking(submit()), [], lifecycle.progress
    monkeypatch.setattr(lifecycle, "progress", lambda *args, **shown: [said.append(shown), progress(*args, **shown)])

    for stage in ("read", "write"):
        for percent in range(100):
            context.progress(percent, stage)
    context.say_the_rest()
    context.say_the_rest()

    assert [(shown["percent"], shown["stage"]) for shown in said] == [(0, "read"), (0, "write"), (99, "write")]
    assert Task.objects.get(pk=context.claimed.task_id).progress["percent"] == 99


@pytest.mark.parametrize("error", [CapabilityError("No."), RuntimeError(), interrupts.Interrupted("timeout")])
def test_what_was_said_last_is_kept_however_the_work_ends(error, monkeypatch):
    def talk(input, context):
        context.emit("a", {"characters": 1})
        context.emit("b", {"characters": 2})
        context.progress(1, "talking")
        context.progress(50, "talking", "almost")
        raise error

    monkeypatch.setattr(capabilities.get("test.work"), "run", talk)
    task = run(submit())

    assert (task.status, task.runs.get().partial_text) == ("failed", "ab")
    assert task.progress == {"percent": 50, "stage": "talking", "message": "almost"}


@pytest.mark.parametrize(("said", "shown"), [(-1, 0), (0.4, 0), (55.5, 56), (1000, 100), (None, None)])
def test_progress_is_a_whole_percent(said, shown):
    task = submit()
    context = runner.RunContext(lifecycle.claim(task.queue, worker="test"), capabilities.get("test.work"))

    context.progress(said, "st\x00ge" * 200, "message")

    shows = Task.objects.get(pk=task.pk).progress
    assert (shows["percent"], len(shows["stage"]), shows["message"]) == (shown, 500, "message")


def test_text_is_made_fit_for_the_database():
    assert clean_text("a\x00\ud800b") == "a\N{REPLACEMENT CHARACTER}?b"
    assert readable(RuntimeError("x" * 600)) == "x" * 500


def test_usage_is_exact_to_six_places():
    usage = {"characters": 0.1, "image_count": 3, "audio_seconds": Decimal("1.2345678")}

    assert measured(capabilities.get("test.work"), usage) == {
        "characters": Decimal("0.1"),
        "image_count": 3,
        "audio_seconds": Decimal("1.234568"),
    }
