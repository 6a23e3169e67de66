"""The browser that the machine has."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")


def found() -> str:
    """The path of the first of them."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    assert path, f"The group `browser` needs one of {', '.join(NAMES)}."
    return path
