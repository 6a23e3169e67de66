"""Somebody in front of a browser: what they do with it, and everything that goes wrong in it meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Response

from tests.browser.place import PASSWORD, Known, Place

WIDE, NARROW = {"width": 1400, "height": 1000}, {"width": 390, "height": 844}
# A page that is left ends what it was asking for.
LEFT = "net::ERR_ABORTED"


class Person:
    """One window of one user, who is logged in unless nobody is named."""

    def __init__(self, place: Place, chromium: Browser, name: str, *, size: dict[str, int] = WIDE) -> None:
        self.place, self.name, self.wrong, self.expected = place, name, [], 0
        if name and name not in place.sessions:
            self._log_in_once(chromium)
        self.window = chromium.new_context(viewport=size, storage_state=place.sessions.get(name))
        self.page = self._watched(self.window.new_page())

    def _log_in_once(self, chromium: Browser) -> None:
        window = chromium.new_context()
        page = self._watched(window.new_page())
        page.goto(f"{self.place.url}/admin/")
        self.log_in(page, self.name, PASSWORD)
        page.wait_for_selector("#nav-sidebar", state="attached")
        self.place.sessions[self.name] = window.storage_state()
        window.close()

    def log_in(self, page: Page, name: str, password: str) -> None:
        page.get_by_label("Username").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()

    def _watched(self, page: Page) -> Page:
        page.set_default_timeout(10_000)
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._note(page, f"error: {error}"))
        page.on("requestfailed", self._miss)
        page.on("request", self._look)
        page.on("response", self._judge)
        return page

    def _note(self, page: Page, what: str) -> None:
        self.wrong.append(f"{self.name} at {page.url}: {what}")

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning") and not (self.expected and "Failed to load resource" in said.text):
            self._note(said.page, f"{said.type}: {said.text}")

    def _miss(self, request: Request) -> None:
        if request.failure != LEFT:
            self._note(self.page, f"failed: {request.url} {request.failure}")

    def _look(self, request: Request) -> None:
        if not request.url.startswith((self.place.url, "data:", "blob:")):
            self._note(self.page, f"asked another host: {request.url}")

    def _judge(self, response: Response) -> None:
        if response.status >= 400 and response.status != self.expected:
            self._note(self.page, f"{response.status} of {response.url}")

    @contextmanager
    def expecting(self, status: int) -> Iterator[None]:
        """What is refused on purpose, which the console tells, too."""
        self.expected = status
        yield
        self.page.wait_for_load_state("networkidle")
        self.expected = 0

    def leave(self) -> list[str]:
        """Close the window; what went wrong in it."""
        self.window.close()
        return self.wrong

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.place.url}{path}")
        return self.page

    def wear(self, theme: str) -> None:
        """Turn the page light or dark, by the shortcut that unfold has for it."""
        for _ in range(2):
            if theme in (self.page.evaluate("document.documentElement.className") or "light"):
                return
            self.page.keyboard.press("Control+e")

    def find(self, task: Known) -> Page:
        """Open a task as one does who was sent its id: by the list's search."""
        self.open("/admin/tasks/task/")
        box = self.page.locator("#searchbar")
        box.fill(task.name)
        box.press("Enter")
        self.page.locator("#result_list").get_by_role("link", name=task.name).click()
        self.page.wait_for_url(f"**/{task.pk}/change/**")
        return self.page

    def offered(self) -> set[str]:
        """The titles of the acts that the page offers."""
        menu = self.page.locator(".task-acts, #object-tools, .object-tools").first
        if not menu.count():
            return set()
        self._unfold_acts()
        found = self.page.locator("a[href*='?ids=']:visible")
        return {text.strip().split("\n")[-1].strip() for text in found.all_inner_texts()}

    def _unfold_acts(self) -> None:
        closed = self.page.locator("li", has_text="More acts").filter(has=self.page.get_by_text("chevron_right"))
        if closed.count() and not self.page.locator("nav a[href*='?ids=']:visible").count():
            closed.locator("a").first.click()

    def act(self, title: str, *, reason: str = "because", **fields: Any) -> str:
        """Do an act of the row whose page is open; what the answer tells."""
        self.ask(title)
        return self.confirm(title, reason=reason, **fields)

    def ask(self, title: str) -> None:
        """Open the page that asks."""
        self._unfold_acts()
        self.page.locator("a[href*='?ids=']:visible", has_text=title).first.click()
        self.page.get_by_label("Reason").wait_for()

    def confirm(self, title: str, *, reason: str = "because", **fields: Any) -> str:
        for name, value in fields.items():
            self._fill(self.page.locator(f"[name={name}]"), value)
        self.page.get_by_label("Reason").fill(reason)
        self.page.get_by_role("button", name=title, exact=True).click()
        self.page.wait_for_load_state()
        return self.told()

    def _fill(self, field: Locator, value: Any) -> None:
        if isinstance(value, bool):
            field.set_checked(value)
        elif field.evaluate("each => each.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(str(value))

    def told(self) -> str:
        """What the page says happened."""
        return "\n".join(self.page.locator("#main ul.flex.flex-col.gap-4.mb-6 > li").all_inner_texts()).strip()

    def status_of(self, path: str) -> int:
        """The status of an address that is typed instead of clicked."""
        return self.window.request.get(f"{self.place.url}{path}", max_redirects=0).status
