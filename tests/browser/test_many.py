"""All that match a search, acted on at once: looked at in numbers first, then started, watched and read."""

from decimal import Decimal

from tests.config.running import until

MANY = 5


def test_all_that_match_are_refunded_and_each_row_says_so(come, place, picture):
    tasks = [place.submit(ended=True, metadata={"batch": "browser"}) for _ in range(MANY)]
    person = come("billing")
    page = person.open("/admin/tasks/task/")

    page.locator("#searchbar").fill("batch=browser")
    page.locator("#searchbar").press("Enter")
    page.get_by_role("link", name="All that match").click()
    page.get_by_role("link", name="Refund").click()
    page.get_by_role("button", name="Show what would happen").click()
    page.get_by_label("Reason").fill("outage")
    page.locator("[name=number]").fill(str(MANY))
    picture(person, "many-before")
    page.get_by_role("button", name="Start").click()
    page.locator("#bulk-progress").get_by_text(f"{MANY} done, 0 refused").wait_for(timeout=60_000)
    picture(person, "many-after")

    for task in tasks:
        refunds = [transfer for transfer in task.transfers() if transfer["kind"] == "refund"]
        assert [(refund["reason"], refund["actor"]) for refund in refunds] == [("outage", "operator:billing")]
        assert sum(refund["amount"] for refund in refunds) > Decimal(0)
        assert len(task.history()) == 1
    assert until(lambda: page.locator("#bulk-rows tbody tr", has_text="done").count() == MANY)


def test_who_may_not_refund_is_not_offered_it_for_many(come):
    person = come("support")
    page = person.open("/admin/tasks/task/?q=batch%3Dbrowser")

    assert page.get_by_role("link", name="All that match").count() == 0
    assert person.status_of("/admin/tasks/bulkaction/begin/?act=refund&q=batch%3Dbrowser") == 403
