"""The door: the form lets in, and shuts for a while on whoever tries passwords."""

from tests.browser.place import PASSWORD


def test_a_login_leads_in_and_a_logout_out(come):
    person = come("")
    page = person.open("/admin/tasks/task/")

    person.log_in(page, "support", "wrong")
    refused = page.get_by_text("Please enter the correct username and password").inner_text()
    person.log_in(page, "support", PASSWORD)
    page.wait_for_url("**/admin/tasks/task/")
    page.locator("#nav-sidebar").get_by_text("support").last.click()
    page.get_by_role("button", name="Log out").click()
    page.get_by_text("Thanks for spending").wait_for()

    assert refused
    assert person.status_of("/admin/tasks/task/") == 302


def test_who_tries_too_often_reads_for_how_long(come, place, picture):
    person = come("")
    page = person.open("/admin/")

    with person.expecting(429):
        for _ in range(5):
            person.log_in(page, "locked", "wrong")
            page.wait_for_load_state()
        page.get_by_text("for 15 minutes").wait_for()
    picture(person, "locked")
    root = come("root")
    root.open("/admin/axes/accessattempt/").get_by_role("link", name="locked", exact=True).click()
    told = root.act("Unlock", reason="it was me")

    assert told == "locked from 127.0.0.1: Unlocked locked from 127.0.0.1."
    person.open("/admin/login/")
    person.log_in(page, "locked", PASSWORD)
    page.locator("#nav-sidebar").wait_for()
