"""The document as pages, in a real browser that says what it does not like."""

import shutil
import subprocess

import pytest

from tasks.api.operations import OPERATIONS

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

HEADLESS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr"]


def seen(address):
    """The page as it stands after its scripts have run, and what they said on the console."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    assert browser, "The group `browser` needs chromium."
    done = subprocess.run(
        [browser, *HEADLESS, "--virtual-time-budget=10000", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def test_the_pages_show_every_operation_and_the_console_stays_empty(service):
    page, said = seen(f"{service.url}/docs/")

    assert said == []
    for operation in OPERATIONS.values():
        assert operation.summary in page


def test_what_a_page_says_on_the_console_would_be_found():
    _, said = seen("data:text/html,<script>console.error('boo')</script>")

    assert "boo" in said[0]
