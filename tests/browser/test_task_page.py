"""The page of one task follows it without a reload, and leaves alone what somebody has opened on it."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


def deferred(place):
    """A task that nobody starts meanwhile."""
    return place.submit(not_before=(datetime.now(UTC) + timedelta(hours=1)).isoformat())


def page_of(task):
    return f"/admin/tasks/task/{task.pk}/change/"


def test_a_page_follows_its_task_to_the_end(come, place):
    task = place.submit(input={"seconds": 8, "steps": 8, "text": "word " * 900, "usage": {"characters": 100}})
    page = come("operator").open(page_of(task))
    page.locator("#task-technical > summary").click()
    page.evaluate("document.getElementById('task-chain').untouched = true")
    answers = []
    page.on("response", lambda answer: answers.append(answer.status) if "/live/" in answer.url else None)

    expect(page.locator("#task-head")).to_contain_text(re.compile("succeeded", re.I), timeout=60_000)

    assert page.locator("#task-technical").evaluate("each => each.open")
    assert page.evaluate("document.getElementById('task-chain').untouched")
    expect(page.locator("#task-money")).to_contain_text("characters")
    expect(page.locator("#task-live")).not_to_have_attribute("hx-get", re.compile(""))
    seen = len(answers)
    page.wait_for_timeout(3000)
    assert len(answers) == seen
    assert set(answers) <= {200, 204}


def test_acts_change_with_the_task(come, place):
    task = deferred(place)
    watcher, actor = come("operator"), come("root")
    watcher.open(page_of(task))
    before = watcher.offered()
    watcher.page.locator("#task-head .task-sentence").click()

    actor.open(page_of(task))
    actor.act("Cancel task", reason="duplicate")
    expect(watcher.page.locator("#task-head")).to_contain_text("Canceled by root: duplicate")

    assert "Cancel task" in before
    assert "Cancel task" not in watcher.offered()
    assert "Rerun task" in watcher.offered()


def test_what_is_folded_opens_and_what_is_copied_is_said_to_be(come, place):
    task = place.submit(ended=True, input={"seconds": 0, "output": {"rows": list(range(400))}})
    page = come("operator").open(page_of(task))
    text = page.locator("#text-output")
    folded = text.bounding_box()["height"]

    page.locator("#fold-output > summary").click()
    page.locator("[data-copy-of=text-read]").click()

    assert text.bounding_box()["height"] > folded
    expect(page.locator("[data-copy-of=text-read]")).to_have_text("check")


def test_a_page_whose_reader_was_logged_out_asks_to_log_in(come, place):
    task = deferred(place)
    person = come("operator")
    page = person.open(page_of(task))

    person.window.clear_cookies()

    page.wait_for_url("**/admin/login/**")
