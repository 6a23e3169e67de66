"""A whole service with 100,000 tasks, and people who use its admin in a real browser."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.chromium import found
from tests.browser.person import Person
from tests.browser.place import PASSWORD, Place
from tests.config.running import Up, ask, manage, remove

# Fewer will do while a test is being written.
SEEDED = os.environ.get("BROWSER_TASKS", "100000")
PEOPLE = """
from django.contrib.auth.models import Group, User
for name in ("operator", "billing", "support"):
    user = User.objects.create_user(name, password={password!r}, is_staff=True)
    user.groups.add(Group.objects.get(name=name.capitalize()))
User.objects.create_superuser("root", password={password!r})
User.objects.create_user("locked", password={password!r}, is_staff=True)
from django.conf import settings
answer = settings.DATABASES["default"]["HOST"]
"""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(500))


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """The service, its rows, and an account of which the tests know the key."""
    data = tmp_path_factory.mktemp("browser")
    quick = {"STOP_SECONDS": "0.5", "CALLBACK_SCHEDULE": "0,0.2", "SWEEP_SECONDS": "1"}
    up = Up(data, "--workers", "1", ENABLE_TEST_CAPABILITIES="true", CALLBACK_ALLOWED_NETWORKS="127.0.0.0/8", **quick)
    try:
        up.ready(within=120)
        seeded = manage(data, "seed_tasks", SEEDED, "--anyway", within=400, ENABLE_TEST_CAPABILITIES="true")
        assert seeded.returncode == 0, seeded.stderr
        made = json.loads(manage(data, "create_account", "Northwind", "--credits", "1000", "--json").stdout)
        with Place(up, made["account_id"], made["api_key"], ask(data, PEOPLE.format(password=PASSWORD))) as place:
            yield place
    finally:
        up.stop()
        up.finish()
        remove(data)


@pytest.fixture(scope="session")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def come(place, chromium) -> Callable[..., Person]:
    """Somebody with a window of their own. At the end, nothing may have gone wrong in any of them."""
    came: list[Person] = []

    def enter(name: str, **window) -> Person:
        came.append(Person(place, chromium, name, **window))
        return came[-1]

    yield enter
    wrong = [said for person in came for said in person.leave()]
    assert wrong == []


@pytest.fixture
def picture() -> Callable[[Person, str], None]:
    """Keeps what a person sees, in the folder that SCREENSHOTS names."""
    folder = os.environ.get("SCREENSHOTS")

    def keep(person: Person, name: str) -> None:
        if folder:
            person.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep
