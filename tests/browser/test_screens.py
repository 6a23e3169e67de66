"""What moves on a screen: themes, menus, filters, calendars, the search for a page, and a home that renews itself."""

from tests.browser.person import NARROW


def test_a_theme_is_chosen_in_the_menu_and_kept(come):
    person = come("support")
    page = person.open("/admin/tasks/run/")

    page.locator("#nav-sidebar").get_by_text("support").last.click()
    page.get_by_text("Dark", exact=True).click()
    page.reload()

    assert "dark" in page.locator("html").get_attribute("class")


def test_a_narrow_window_has_its_menu_behind_a_button(come):
    person = come("support", size=NARROW)
    page = person.open("/admin/tasks/run/")
    menu = page.locator("#nav-sidebar")
    hidden = not menu.is_visible()

    page.get_by_text("dock_to_right").locator("visible=true").click()
    menu.get_by_role("link", name="Receivers").click()

    page.wait_for_url("**/admin/tasks/receiver/")
    assert hidden


def test_a_page_is_found_by_its_name(come):
    person = come("support")
    page = person.open("/admin/tasks/run/")

    page.keyboard.press("Control+k")
    page.locator("#search-input-command").fill("Deployments")
    page.locator("#search-input-command").press("End")
    page.locator("#command-results li").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")

    page.wait_for_url("**/admin/tasks/deployment/")


def test_a_date_and_a_time_are_picked(come):
    person = come("billing")
    page = person.open("/admin/billing/ratecard/add/")
    page.locator("[name=name]").fill("one more card")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url("**/versions/")

    for icon, choice in (("#calendarlink0", ".calendar td a"), ("#clocklink0", ".timelist a")):
        page.locator(icon).click()
        page.locator(choice).locator("visible=true").last.click()

    values = page.locator("[name^=effective_from]").evaluate_all("all => all.map(each => each.value)")
    assert all(values)


def test_a_list_is_filtered_by_its_form(come):
    person = come("support")
    page = person.open("/admin/tasks/task/")

    page.get_by_text("Filters").first.click()
    page.locator("#filter-form [name=status]").select_option("failed")
    page.locator("#filter-form").get_by_role("button", name="Apply").click()
    page.wait_for_url("**status=failed**")

    told = page.locator("#result_list tbody tr").all_inner_texts()
    assert told
    assert all("failed" in row.lower() for row in told)


def test_a_home_renews_its_numbers_without_being_loaded_again(come, place):
    person = come("support")
    page = person.open("/admin/")
    page.evaluate("window.stayed = true")

    with page.expect_response(
        lambda answer: "window=" in answer.url and answer.request.resource_type == "xhr"
    ) as first:
        place.submit(ended=True)
    with page.expect_response(lambda answer: "window=" in answer.url and answer.request.resource_type == "xhr"):
        pass

    assert first.value.status == 200
    assert page.evaluate("window.stayed") is True
    assert page.locator("#home canvas").first.is_visible()
