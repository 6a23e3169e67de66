"""Each act on a task, as whoever may do it does it: by clicks, and ending in its rows."""

from decimal import Decimal

import pytest

from tests.browser.place import Known
from tests.config.running import until

OF_OPERATORS = {"Cancel task", "Pause task", "Resume task", "Rerun task", "Rerun free of charge", "Redeliver callback",
    "Extend deadline", "Change priority", "Delete content"}  # fmt: skip
MAY = {
    "root": OF_OPERATORS | {"Refund"},
    "operator": OF_OPERATORS,
    "billing": {"Cancel task", "Rerun task", "Rerun free of charge", "Refund"},
    "support": set(),
}
ADDRESSES = {
    "Cancel task": "cancel", "Pause task": "pause", "Resume task": "resume", "Rerun task": "rerun",
    "Rerun free of charge": "rerun_free", "Redeliver callback": "redeliver", "Extend deadline": "extend_deadline",
    "Change priority": "change_priority", "Delete content": "delete_content", "Refund": "refund",
}  # fmt: skip
CALLED = {"callback": {"url": "http://127.0.0.1:9/closed"}}


@pytest.fixture(scope="module")
def waiting(place):
    """Deferred for a day, so that nobody starts it."""
    return lambda: place.submit(not_before=place.in_a_day())


def acts_of(task: Known, kind: str) -> list[dict]:
    return [event for event in task.events() if event["type"] == kind]


@pytest.mark.parametrize("who", ["operator", "billing"])
def test_cancel(come, waiting, who):
    task, person = waiting(), come(who)

    person.find(task)
    told = person.act("Cancel task", reason="duplicate")

    assert told == f"{task.name}: Canceled."
    assert task.status() == "canceled"
    assert task.events()[-1]["actor"] == f"operator:{who}"
    assert [transfer["kind"] for transfer in task.transfers()] == ["hold", "release"]
    assert task.history() == [f"{who}: Canceled. Reason: duplicate"]


def test_pause_and_resume(come, waiting):
    task, person = waiting(), come("operator")

    person.find(task)
    person.act("Pause task", reason="look first")
    paused = task.row()["paused_at"]
    person.act("Resume task", reason="looked")

    assert paused
    assert task.row()["paused_at"] is None
    assert task.history() == ["operator: Paused. Reason: look first", "operator: Resumed. Reason: looked"]


def test_extend_the_deadline(come, waiting):
    task, person = waiting(), come("operator")
    before = task.row()["deadline"]

    person.find(task)
    person.act("Extend deadline", minutes=90)

    assert round((task.row()["deadline"] - before).total_seconds()) >= 5400
    assert len(task.history()) == 1


def test_change_the_priority(come, waiting):
    task, person = waiting(), come("operator")

    person.find(task)
    person.act("Change priority", priority="9")

    assert task.row()["priority"] == 9
    assert len(task.history()) == 1


@pytest.mark.parametrize("who", ["operator", "billing"])
@pytest.mark.parametrize(("title", "waived"), [("Rerun task", False), ("Rerun free of charge", True)])
def test_rerun(come, place, who, title, waived):
    task, person = place.submit(ended=True), come(who)

    person.find(task)
    told = person.act(title, reason="the customer asked")

    again = place.row("SELECT * FROM tasks_task WHERE rerun_of_id = %s", task.pk)
    assert "Submitted again" in told
    assert again["waived"] is waived
    assert len(task.history()) == 1


def test_refund_of_all_that_is_left(come, place):
    task, person = place.submit(ended=True), come("billing")
    charged = sum(transfer["amount"] for transfer in task.transfers() if transfer["kind"] == "capture")

    person.find(task)
    told = person.act("Refund", reason="wrong answer")

    refund = task.transfers()[-1]
    assert (refund["kind"], refund["amount"], refund["actor"]) == ("refund", charged, "operator:billing")
    assert refund["reason"] == "wrong answer"
    assert f"Refunded {charged}" in told
    assert [event["actor"] for event in acts_of(task, "task.refunded")] == ["operator:billing"]
    assert len(task.history()) == 1


def test_refund_of_a_part_shows_the_balance_after(come, place):
    task, person = place.submit(ended=True), come("billing")
    before = place.row("SELECT available FROM billing_account WHERE id = %s", place.account_id)["available"]

    person.find(task)
    person.ask("Refund")
    person.page.locator("[name=amount]").fill("0.0002")
    person.page.locator("#facts").get_by_text(f"{before + Decimal('0.0002'):,}").wait_for()
    person.confirm("Refund")

    after = place.row("SELECT available FROM billing_account WHERE id = %s", place.account_id)["available"]
    assert after == before + Decimal("0.0002")
    assert task.transfers()[-1]["amount"] == Decimal("0.0002")


def test_redeliver(come, place):
    task, person = place.submit(ended=True, **CALLED), come("operator")
    owed = "SELECT id, status, attempt_count FROM tasks_callback WHERE task_id = %s"
    until(lambda: place.row(owed, task.pk)["status"] == "failed")

    person.find(task)
    told = person.act("Redeliver callback", reason="they are back")

    assert told == f"{task.name}: Its callback is due again."
    assert task.history() == ["operator: Its callback is due again. Reason: they are back"]


def test_delete_the_content(come, place):
    task, person = place.submit(ended=True), come("operator")

    person.find(task)
    person.act("Delete content", sure=True)

    assert (task.row()["input"], task.row()["output"]) == ({}, None)
    assert len(task.history()) == 1


@pytest.mark.parametrize("who", MAY)
def test_a_page_offers_what_its_reader_may_do_and_the_address_of_the_rest_is_refused(come, place, waiting, who):
    ended, queued, person = place.submit(ended=True, **CALLED), waiting(), come(who)

    person.find(ended)
    of_ended = person.offered()
    person.find(queued)
    of_queued = person.offered()

    assert of_ended | of_queued == MAY[who] - {"Resume task"}
    for title, address in ADDRESSES.items():
        status = person.status_of(f"/admin/tasks/task/{address}/?ids={ended.pk}")
        assert status == (200 if title in MAY[who] else 403), title
    assert ended.history() == queued.history() == []


def test_without_a_reason_nothing_is_done(come, waiting):
    task, person = waiting(), come("operator")

    person.find(task)
    person.ask("Cancel task")
    person.page.get_by_role("button", name="Cancel task", exact=True).click()
    person.page.get_by_text("This field is required.").first.wait_for()

    assert task.status() == "queued"
    assert task.history() == []


def test_of_two_refunds_at_once_one_wins_and_the_other_is_told(come, place):
    task, first, second = place.submit(ended=True), come("billing"), come("root")
    for person in (first, second):
        person.find(task)
        person.ask("Refund")

    told = first.confirm("Refund", reason="one"), second.confirm("Refund", reason="two")

    refunds = [transfer for transfer in task.transfers() if transfer["kind"] == "refund"]
    assert [transfer["reason"] for transfer in refunds] == ["one"]
    assert "Refunded" in told[0]
    assert "Refunded" not in told[1]
    assert "left" in second.page.locator("#main").inner_text()
    assert len(task.history()) == 1
