"""Whatever a capability gives, raises or says, its own task ends by it, its process goes on, and the log says why."""

import logging
import sys

import pytest

from tasks import runner
from tasks.identifiers import public_id
from tasks.models import Run
from tests.builders import account, assert_sound, buckets, deployment, submit
from tests.workload.odd import CUT, ODD

pytestmark = pytest.mark.django_db(transaction=True)


def run(task):
    assert runner.run_next(task.queue)
    task.refresh_from_db()
    return task


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd not in CUT])
def test_what_cannot_be_is_the_capability_s_error(odd, caplog):
    caplog.set_level(logging.WARNING)
    of, to = account(), deployment()
    task = run(submit(of, to, input={"how": "odd", "output": odd}))

    after = run(submit(of, to))

    assert (task.status, task.error["code"], task.output, task.attempt) == ("failed", "capability_error", None, 1)
    assert 0 < len(task.error["message"]) <= 500
    assert "a capability" in caplog.text
    assert after.status == "succeeded"
    assert buckets(of) == {"available": 9, "held": 0, "charged": 1}
    assert_sound(of)


@pytest.mark.parametrize("odd", CUT)
def test_what_is_too_much_is_cut(odd):
    of, to = account(), deployment()
    asked = {"how": "odd", "output": odd}

    task = run(submit(of, to, input=asked))

    assert (task.status, task.output, task.input) == ("succeeded", "done", asked)
    assert len(task.warnings) == CUT[odd][1]
    assert all(len(str(value)) <= 500 for warning in task.warnings for value in warning.values())
    assert len(str(task.progress["stage"])) <= 500
    assert_sound(of)


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ("undeclared", "The capability reported meters it did not declare: bananas."),
        ("NaN used", "The capability reported usage that is out of range: characters."),
        ("digits used", "The capability reported usage that is no number: characters."),
        ("a coroutine", "The capability returned a coroutine, not a Result."),
        ("a set", "The output is not JSON: Object of type set is not JSON serializable."),
        ("a megabyte and one", "The output exceeds 1048576 bytes."),
        ("a gigabyte of text", "The streamed text exceeds 1048576 bytes."),
        ("KeyboardInterrupt", "The capability ended unexpectedly: KeyboardInterrupt."),
        ("MemoryError", "The capability ended unexpectedly: MemoryError."),
        ("an unprintable error", "The capability ended unexpectedly: Unprintable."),
        ("words per cent", "The capability reported progress that is no number."),
    ],
)
def test_the_error_names_the_reason(odd, why):
    task = run(submit(input={"how": "odd", "output": odd}))

    assert task.error["message"] == why


def test_streamed_text_never_fills_the_row():
    task = run(submit(input={"how": "odd", "output": "a gigabyte of text, whatever it is told"}))

    assert task.error["message"] == "As much as that."
    assert 0 < len(Run.objects.get(task=task).partial_text) <= 2**20


def test_the_log_has_the_traceback_and_the_task(capsys, monkeypatch):
    (log,) = (handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler)
    monkeypatch.setattr(log, "stream", sys.stderr)

    task = run(submit(input={"how": "crash"}))

    said = capsys.readouterr().err
    assert "RuntimeError: out of cheese" in said
    assert "in crash" in said
    assert public_id(task.pk) in said
