"""Every page of the menu, as it is on a desk and on a telephone, by day and by night."""

import re

import pytest

from tasks.admin.navigation import MENU
from tests.browser.person import NARROW, WIDE

LISTS = [screen.replace("_", "/", 1) for _, items in MENU for _, _, screen in items]
PAGES = ["/admin/", *(f"/admin/{path}/" for path in LISTS)]
FORMS = [
    "/admin/billing/account/add/", "/admin/billing/ratecard/add/",
    "/admin/tasks/deployment/add/", "/admin/auth/user/add/", "/admin/auth/group/add/", "/admin/password_change/",
]  # fmt: skip
WIDTHS = "() => [document.documentElement.scrollWidth, window.innerWidth]"


def looked_at(person, picture, name):
    """The widths at which the page is wider than its window, after a look at all four of it."""
    wide = []
    for size in (WIDE, NARROW):
        person.page.set_viewport_size(size)
        for theme in ("light", "dark"):
            person.wear(theme)
            picture(person, f"{name}-{theme}-{size['width']}")
        needed, given = person.page.evaluate(WIDTHS)
        wide += [f"{name}: {needed} px in {given}"] if needed > given else []
    return wide


def named(path):
    return re.sub(r"\W+", "-", path.strip("/")) or "home"


@pytest.mark.parametrize("path", PAGES)
def test_a_list_and_its_first_row_fit(come, picture, path):
    person = come("root")
    page = person.open(path)

    wide = looked_at(person, picture, named(path))
    page.set_viewport_size(WIDE)
    first = page.locator("#result_list tbody a[href*='/change/']").first
    if first.count():
        first.click()
        page.wait_for_url("**/change/**")
        wide += looked_at(person, picture, f"{named(path)}-one")

    assert wide == []


@pytest.mark.parametrize("path", FORMS)
def test_a_form_fits(come, picture, path):
    person = come("root")
    person.open(path)

    assert looked_at(person, picture, named(path)) == []


@pytest.mark.parametrize("group", ["operator", "billing", "support"])
def test_a_menu_leads_only_where_its_reader_may_go(come, group):
    person = come(group)
    page = person.open("/admin/")

    links = {link.get_attribute("href") for link in page.locator("#nav-sidebar a[href^='/admin/']").all()}

    assert len(links) > 10
    assert {path: person.status_of(path) for path in links} == dict.fromkeys(links, 200)
