"""The demo can say no, whatever is not true, and leaves nothing behind when it is cut short."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import CommandError, call_command
from django.db import DatabaseError

from config import demo
from config.demo import Delivery, Job
from config.management.commands import demo as command
from tests.config.running import ask, environment, living, manage, remove, until

ROOT = Path(__file__).resolve().parent.parent
BUCKETS = ("granted", "available", "held", "charged")


def job(title, status, *, charged, refunded="0", started="2026-01-01T00:00:00Z"):
    billing = {
        "quoted_credits": "4",
        "charged_credits": charged,
        "refunded_credits": refunded,
        "net_charged_credits": str(int(charged) - int(refunded)),
    }
    task = {
        "task_id": title,
        "status": status,
        "started_at": started,
        "billing": billing,
        "usage": {"lines": [{"billed_amount_credits": charged}]},
        "callback": {"status": "delivered"},
        "links": {"self": title},
    }
    return Job(title, status, task)


def totals(*amounts):
    return {"totals": dict(zip(BUCKETS, amounts, strict=True)), "holds": True, "checks": [], "counts": {}}


@pytest.fixture
def story():
    """What a demo ends with when all is true: 3 and 2 charged, 1 refunded, 1 for what was canceled."""
    jobs = [
        job("one", "succeeded", charged="3", refunded="1"),
        job("two", "succeeded", charged="2"),
        job("three", "failed", charged="0"),
        job("four", "canceled", charged="1"),
    ]
    receiver = demo.Receiver.__new__(demo.Receiver)
    receiver.deliveries = [Delivery(f"id-{j.id}", True, f"task.{j.status}", dict(j.task)) for j in jobs]
    receiver.close = lambda: None
    return SimpleNamespace(
        jobs=jobs, receiver=receiver, before=totals("10", "8", "0", "2"), after=totals("110", "103", "0", "7")
    )


def untrue(story):
    found = demo.verdicts(story.jobs, story.receiver, story.before, story.after)
    return [sentence for sentence, true in found.items() if not true]


def end_otherwise(story):
    story.jobs[0].expected = "canceled"


def forge(story):
    story.receiver.deliveries[1].verified = False


def tell_another_end(story):
    story.receiver.deliveries[1].type = "task.failed"


def lose_a_callback(story):
    del story.receiver.deliveries[2]


def charge_too_much(story):
    story.jobs[1].task["billing"]["quoted_credits"] = "1"


def bill_other_lines(story):
    story.jobs[1].task["usage"]["lines"].append({"billed_amount_credits": "1"})


def charge_the_failed(story):
    story.jobs[2].task["billing"]["charged_credits"] = "1"
    story.jobs[2].task["usage"]["lines"][0]["billed_amount_credits"] = "1"


def cancel_before_the_start(story):
    story.jobs[3].task["started_at"] = None


def refund_nothing(story):
    story.jobs[0].task["billing"]["refunded_credits"] = "0"


def move_more(story):
    story.after["totals"] |= {"charged": "8", "available": "102"}


def unbalance(story):
    story.after["totals"]["granted"] = "111"


def fail_the_audit(story):
    story.after["holds"] = False


LIES = {
    end_otherwise: "every task ended as expected",
    charge_too_much: "every success was charged, within its quote",
    bill_other_lines: "the billed lines add up to each charge",
    charge_the_failed: "the failed task was free",
    cancel_before_the_start: "the canceled task had started and stayed within its quote",
    refund_nothing: "one charge was refunded in part",
    forge: "every callback came with a valid signature",
    lose_a_callback: "every callback came with a valid signature",
    tell_another_end: "every callback told the end of its task",
    move_more: "the tasks' charges are what the ledger moved",
    unbalance: "granted = available + held + charged",
    fail_the_audit: "the audit holds",
}


def test_a_true_story_has_no_false_verdict(story):
    assert untrue(story) == []


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_each_verdict_notices_its_own_lie(story, lie):
    lie(story)

    assert untrue(story) == [LIES[lie]]


def test_each_verdict_has_a_lie(story):
    assert set(LIES.values()) == set(demo.verdicts(story.jobs, story.receiver, story.before, story.after))


# The command, with a service that does nothing.


@pytest.fixture
def acted(story, monkeypatch):
    """The command plays this story instead of running it."""

    @contextmanager
    def service(**_):
        yield "http://127.0.0.1:1"

    reports = iter([story.before, story.after])
    get = {job.id: job.task for job in story.jobs}.__getitem__
    for name, double in {
        "service": service,
        "Receiver": lambda secret: story.receiver,
        "Consumer": lambda url, key: SimpleNamespace(get=get),
        "submit_all": lambda *_: story.jobs,
        "watch": lambda *_: iter([story.jobs]),
        "await_callbacks": lambda *_: None,
    }.items():
        monkeypatch.setattr(demo, name, double)
    for name, double in {
        "create_account": lambda: {"api_key": "", "callback_secret": ""},
        "audit": lambda: next(reports),
        "refund_part": lambda job: None,
        "say_where": lambda *_, keep: None,
        "forbid_again": lambda: None,
    }.items():
        monkeypatch.setattr(command, name, double)
    return story


def interrupt(*_, **__):
    raise KeyboardInterrupt


def test_the_command_succeeds_with_a_true_story(acted, capsys):
    call_command("demo")

    assert capsys.readouterr().out.count("  yes  ") == len(set(LIES.values()))


@pytest.mark.parametrize("lie", [forge, charge_the_failed, fail_the_audit], ids=lambda lie: lie.__name__)
def test_the_command_fails_and_names_what_is_not_true(acted, lie, capsys):
    lie(acted)

    with pytest.raises(CommandError, match=rf"^Not true: {LIES[lie]}\.$"):
        call_command("demo")

    assert f"  NO   {LIES[lie]}\n" in capsys.readouterr().out


def test_a_stay_that_is_interrupted_ends_as_the_verdicts_were(acted, monkeypatch):
    monkeypatch.setattr(command.time, "sleep", interrupt)

    call_command("demo", keep=True)

    fail_the_audit(acted)
    monkeypatch.setattr(command, "audit", lambda: acted.after)
    with pytest.raises(CommandError, match="the audit holds"):
        call_command("demo", keep=True)


def test_an_interruption_before_the_verdicts_is_one(acted, monkeypatch, capsys):
    monkeypatch.setattr(demo, "await_callbacks", interrupt)

    with pytest.raises(KeyboardInterrupt):
        call_command("demo")

    assert "yes" not in capsys.readouterr().out


def test_lines_in_a_file_are_not_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    assert command.open_console().width == 100


@pytest.mark.django_db
def test_the_login_works_whoever_had_the_name(rf):
    get_user_model().objects.create_user("demo", password="x", is_active=False)

    user = authenticate(rf.post("/"), username="demo", password=command.let_in("demo"))

    assert user.is_superuser
    assert user.is_staff


def test_what_cannot_be_forbidden_again_does_not_hide_why(monkeypatch):
    def fail():
        raise DatabaseError("gone")

    monkeypatch.setattr(command, "activate_test_capabilities", fail)

    command.forbid_again()


# For real.


@pytest.fixture(scope="module")
def data():
    path = Path(tempfile.mkdtemp(prefix="cf-demo-"))
    yield path / "data"
    remove(path / "data")
    shutil.rmtree(path)


@contextmanager
def at_work(data):
    """A demo whose service has just become ready, and all processes of it."""
    with subprocess.Popen(
        [sys.executable, "manage.py", "demo"],
        cwd=ROOT, env=environment(data), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            log = data / "demo.log"
            until(lambda: (log.exists() and "Counterfoil is ready" in log.read_text()) or process.poll() is not None)
            yield process, [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        finally:
            process.kill()


@pytest.mark.chaos
def test_a_closed_terminal_ends_the_whole_demo_and_forbids_what_it_had_allowed(data):
    with at_work(data) as (process, family):
        process.send_signal(signal.SIGHUP)
        assert process.wait(40) == 130

    assert len(family) > 8
    assert not living(family)
    assert manage(data, "engines", "status").stdout.count(": stopped") == 2
    assert ask(data, "from tasks.models import Deployment; answer = Deployment.objects.get(name='echo').is_active") is (
        False
    )


@pytest.mark.chaos
def test_a_demo_that_is_killed_takes_everything_along(data):
    manage(data, "engines", "stop")
    (data / "demo.log").unlink()
    with at_work(data) as (process, family):
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)

    until(lambda: not living(family))
    assert manage(data, "engines", "status").stdout.count(": stopped") == 2


def test_an_external_database_is_refused_at_once(data):
    done = manage(data, "demo", DATABASE_URL="postgres://nobody@127.0.0.1:1/none")

    assert done.returncode == 1
    assert done.stderr.endswith("runs on its own database: unset DATABASE_URL.\n")
    assert done.stderr.count("\n") == 1
