"""Refunds of many tasks: which are chosen, what each gets, what is said of it, and that a batch gives once."""

import re
from decimal import Decimal
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from billing import audit
from billing.models import Transfer
from tasks import lifecycle, refunds
from tasks.identifiers import public_id
from tasks.models import Task, TaskEvent
from tasks.statuses import ErrorCode
from tests.builders import account, assert_sound, buckets, claim, deployment, submit

pytestmark = pytest.mark.django_db

WHY = ("--reason", "outage of Tuesday", "--by", "ann")


def charged(of, to, *, characters="2", **fields) -> Task:
    """A task that was charged a credit for each character, or nothing for none."""
    task = submit(of, to, input={"bound": {"characters": 100}}, **fields)
    lifecycle.succeed(claim(task), output=None, usage={"characters": Decimal(characters)}, warnings=[])
    return task


@pytest.fixture
def of():
    return account("1000")


@pytest.fixture
def to():
    return deployment(prices=[("characters", "1")])


def run(*words, to) -> tuple[list[str], int]:
    """What the command says of this deployment's tasks, without the key, and its exit code."""
    out, code = StringIO(), 0
    try:
        call_command("refund", "--filter", f"model={to.name}", *WHY, *words, "--yes", stdout=out)
    except SystemExit as ended:
        code = ended.code
    key, *said = out.getvalue().splitlines()
    assert re.fullmatch(r"key [0-9a-f-]{36}", key)
    return said, code


def given(task) -> list[Decimal]:
    return list(Transfer.objects.filter(task_id=task.pk, kind="refund").order_by("id").values_list("amount", flat=True))


def test_the_whole_of_each_charge_is_given_back_once_for_a_key(of, to):
    one, other = charged(of, to), charged(of, to, characters="3")
    lifecycle.refund(other.pk, Decimal(1), key="before", reason="x", by="test")
    key = str(uuid4())

    first, again = run("--key", key, to=to), run("--key", key, to=to)

    names = [public_id(task.pk) for task in (one, other)]
    assert first == ([
        f"1/2 {names[0]}: refunded 2.0000",
        f"2/2 {names[1]}: refunded 2.0000",
        "refunded 4.0000 credits; 2 tasks: 2 refunded, 0 already, 0 nothing charged, 0 refused",
    ], 0)  # fmt: skip
    assert again == ([
        f"1/2 {names[0]}: already 2.0000",
        f"2/2 {names[1]}: already 2.0000",
        "refunded 0.0000 credits; 2 tasks: 0 refunded, 2 already, 0 nothing charged, 0 refused",
    ], 0)  # fmt: skip
    assert buckets(of) == {"available": 1000, "held": 0, "charged": 0}
    refund = Transfer.objects.get(task_id=one.pk, kind="refund")
    assert (refund.reason, refund.actor) == ("outage of Tuesday", "operator:ann")
    assert TaskEvent.objects.filter(type="task.refunded").count() == 3
    assert_sound(of)


@pytest.mark.parametrize(
    ("characters", "percent", "expected"),
    [("3", "50", "1.5"), ("0.0001", "50", None), ("0.0003", "50", "0.0002"), ("0.0005", "50", "0.0002"),
     ("7", "33.3333", "2.3333"), ("100", "100", "100"), ("9.9999", "12.5", "1.25")],
)  # fmt: skip
def test_a_percentage_is_rounded_half_to_even_to_four_places(of, to, characters, percent, expected):
    task = charged(of, to, characters=characters)

    said, code = run("--percent", percent, to=to)

    assert given(task) == ([Decimal(expected)] if expected else [])
    assert code == (0 if expected else 1)
    assert expected or "rounds to nothing" in said[0]


def test_what_refuses_one_task_is_said_and_stops_no_other(of, to):
    spent, free, fine, small = (charged(of, to, characters=used) for used in ("2", "0", "2", "1"))
    lifecycle.refund(spent.pk, key="before", reason="x", by="test")

    said, code = run("--amount", "1.5", to=to)

    assert [row.partition(": ")[2] for row in said[:4]] == [
        f"refused: {refunds.ALL_REFUNDED}",
        "nothing charged",
        "refunded 1.5000",
        "refused: A refund never exceeds what was charged and not yet refunded.",
    ]
    assert (given(free), given(fine), given(small), code) == ([], [Decimal("1.5")], [], 1)


def test_what_is_refunded_already_is_refused_and_not_a_failure_of_the_others(of, to):
    spent, fine = charged(of, to), charged(of, to)
    lifecycle.refund(spent.pk, key="before", reason="x", by="test")

    said, code = run(to=to)

    assert [row.partition(": ")[2] for row in said[:2]] == [
        f"refused: {refunds.ALL_REFUNDED}",
        "refunded 2.0000",
    ]
    assert (given(fine), code) == ([2], 1)


def test_the_same_key_with_another_share_is_refused(of, to):
    task, key = charged(of, to), str(uuid4())
    run("--key", key, "--amount", "1", to=to)

    said, code = run("--key", key, "--amount", "0.5", to=to)

    assert "refused: This key belongs to another transfer." in said[0]
    assert (given(task), code) == ([1], 1)


def test_another_key_is_another_refund(of, to):
    task = charged(of, to)

    run("--percent", "25", to=to)
    run("--percent", "25", to=to)

    assert given(task) == [Decimal("0.5"), Decimal("0.5")]


@pytest.mark.parametrize("share", [(), ("--percent", "50"), ("--amount", "1"), ("--amount", "1.5")])
def test_a_dry_run_tells_what_the_run_does_and_writes_nothing(of, to, share):
    charged(of, to)
    charged(of, to, characters="0")
    lifecycle.refund(charged(of, to).pk, Decimal(1), key="before", reason="x", by="test")
    lifecycle.refund(charged(of, to).pk, key="all before", reason="x", by="test")
    before = (Transfer.objects.count(), TaskEvent.objects.count(), buckets(of))

    foretold, code = run(*share, "--dry-run", to=to)

    assert (code, (Transfer.objects.count(), TaskEvent.objects.count(), buckets(of))) == (0, before)
    told, _ = run(*share, to=to)
    assert [f"{number}/4 {row}" for number, row in enumerate(foretold[:-1], 1)] == told[:-1]
    assert foretold[-1] == "would refund " + told[-1].removeprefix("refunded ")


def test_a_dry_run_shows_the_first_rows_and_counts_all(of, to, monkeypatch):
    monkeypatch.setattr(refunds, "PAGE", 5)
    for _ in range(12):
        charged(of, to)

    said, _ = run("--dry-run", to=to)

    assert len(said) == 11
    assert said[-1].startswith("would refund 24.0000 credits; 12 tasks: 12 refunded,")


def test_without_yes_nothing_is_done(of, to):
    task, out = charged(of, to), StringIO()

    with pytest.raises(CommandError, match=r"Nothing was done\. To do it: the same with --key [0-9a-f-]{36} --yes"):
        call_command("refund", "--filter", f"model={to.name}", *WHY, stdout=out)

    assert "would refund 2.0000 credits" in out.getvalue()
    assert given(task) == []


def test_pages_reach_every_task_once(of, to, monkeypatch):
    monkeypatch.setattr(refunds, "PAGE", 2)
    tasks = [charged(of, to) for _ in range(5)]

    said, _ = run(to=to)

    assert [row.split()[0] for row in said[:-1]] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert [given(task) for task in tasks] == [[2]] * 5


@pytest.mark.django_db(transaction=True)
def test_filters_choose(of, to):
    old = charged(of, to, metadata={"run": "a", "of": "x"}, client_reference="r-1")
    new = charged(account("1000"), to, metadata={"run": "b"})
    failed = submit(of, to)
    lifecycle.fail(claim(failed), code=ErrorCode.TIMEOUT, message="")
    here = f"model={to.name}"

    def found(*filters):
        return list(refunds.chosen([here, *filters]).order_by("pk"))

    assert found() == [old, new, failed]
    assert found(f"id={public_id(old.pk)}", f"id={new.pk}") == [old, new]
    assert found(f"account={of.pk}") == [old, failed]
    assert found("capability=test.work", "status=succeeded") == [old, new]
    assert found("capability=test.echo") == []
    assert found("status=failed", "error=timeout") == [failed]
    assert found("metadata.run=a") == [old]
    assert found("metadata.run=a", "metadata.run=b") == [old, new]
    assert found("metadata.run=a", "metadata.of=y") == []
    assert found("client_reference=r-1") == [old]
    assert found(f"created_after={new.created_at.isoformat()}") == [new, failed]
    assert found(f"created_before={new.created_at.isoformat()}") == [old]
    assert found("completed_after=2001-01-01", "completed_before=2002-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ([], "Name at least one filter: id, account,"),
        (["colour=red"], "There is no filter 'colour'; there are id,"),
        (["status"], "'status' is not NAME=VALUE"),
        (["status="], "'status=' is not NAME=VALUE"),
        (["client_reference=\udcff"], "bytes that are not UTF-8"),
        (["model=a\x00"], "a NUL"),
        (["status=done"], "'done' is no status"),
        (["account=acme"], "'acme' is no account"),
        (["id=7"], "'7' is no id"),
        (["created_after=yesterday"], "'yesterday' is no created_after"),
    ],
)
def test_a_filter_nobody_can_follow_is_refused_clearly(filters, says):
    words = [word for text in filters for word in ("--filter", text)]

    with pytest.raises(CommandError, match=re.escape(says)):
        call_command("refund", *words, *WHY, "--yes")


@pytest.mark.parametrize(
    "words",
    [
        ("--percent", "0"), ("--percent", "100.1"), ("--percent", "NaN"), ("--percent", "1.00001"),
        ("--amount", "-1"), ("--amount", "0.00001"), ("--amount", "1e30"), ("--amount", "some"),
        ("--amount", "1", "--percent", "1"), ("--reason", "  "), ("--by", ""), ("--key", "mine"),
    ],
)  # fmt: skip
def test_what_is_no_share_reason_or_key_is_refused(words):
    with pytest.raises(CommandError):
        call_command("refund", "--filter", "model=x", *WHY, *words, "--yes")


def test_a_refund_that_somebody_else_gave_meanwhile_is_told_as_refused(of, to):
    task = charged(of, to)
    batch = refunds.Batch(uuid4(), refunds.Share(percent=Decimal(60)), reason="x", by="operator:ann")
    rows = batch._pages(Task.objects.filter(pk=task.pk))
    found = next(rows)
    lifecycle.refund(task.pk, Decimal(1), key="meanwhile", reason="x", by="test")

    row = batch._refund(*found)

    assert (row.outcome, row.why) == ("refused", "A refund never exceeds what was charged and not yet refunded.")
    assert given(task) == [1]


@pytest.mark.django_db(transaction=True)
def test_the_books_of_a_batch_are_sound(of, to):
    for _ in range(3):
        charged(of, to)

    run("--percent", "33.3333", to=to)
    run(to=to)

    assert audit.run().broken == []
    assert buckets(of) == {"available": 1000, "held": 0, "charged": 0}
