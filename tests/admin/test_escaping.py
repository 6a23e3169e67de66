"""Whatever anybody writes is text on every page: no element, no attribute, no expression, no link of theirs."""

from html.parser import HTMLParser

import pytest
from django.contrib import admin
from django.urls import reverse

from tasks.models import Task
from tests.admin.everywhere import pages
from tests.admin.hostile import HOSTILE, LINK, fields_of_text, poison
from tests.admin.people import list_url, root
from tests.admin.world import EVERY, world
from tests.builders import submit

pytestmark = pytest.mark.django_db
# What a browser or a script of ours would run, of the text that is written everywhere.
RUNS = ("<script>alert", "<b x-init", "1337")
RUN_BY = ("x-", "@", ":", "on")
LINKS = ("href", "src", "action", "formaction", "hx-get", "hx-post", "data-href")


class Attributes(HTMLParser):
    """Every attribute of a page, and every element that has none of ours."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def handle_starttag(self, tag, attrs):
        self.found += [(name, value or "") for name, value in attrs]


def wrong_with(page: str) -> list[str]:
    """What of the page is theirs to run."""
    read = Attributes()
    read.feed(page)
    ran = [f"{name}={value}" for name, value in read.found if name.startswith(RUN_BY) and "canary" in value]
    led = [f"{name}={value}" for name, value in read.found if name in LINKS and _leads_out(value)]
    return [*(text for text in RUNS if text in page), *ran, *led]


def _leads_out(address: str) -> bool:
    return ":" in address.strip().partition("/")[0].partition("?")[0] and not address.startswith("data:image/")


def test_what_anybody_writes_is_text_on_every_page():
    made, person = world(), root()
    said = person.do(made.done, "refund", reason=HOSTILE, amount="1")
    poison()

    wrong, shown = {"said": found} if (found := wrong_with(said.content.decode())) else {}, 0
    for url in dict.fromkeys(pages()):
        answer = person.get(url)
        assert answer.status_code == 200, url
        page = answer.content.decode()
        shown += "&lt;script&gt;alert" in page
        if found := wrong_with(page):
            wrong[url] = found

    assert wrong == {}
    assert shown > 30


def test_every_column_of_text_is_written():
    """A new column is written, too, or is listed as ours; rows of each model are there to write in."""
    world()

    empty = {field.model for field, count in poison().items() if not count}

    assert len(fields_of_text()) > 40
    assert empty & set(EVERY) == set()


@pytest.mark.parametrize("path", ["live", "earlier", "content"])
def test_what_anybody_writes_is_text_in_each_part_that_a_page_asks_for(path):
    made, person = world(), root()
    poison()
    addresses = {
        "live": reverse("admin:tasks_task_live", args=[made.done.pk]),
        "earlier": reverse("admin:tasks_task_earlier", args=[made.done.pk]) + "?until=2100-01-01T00:00:00Z",
        "content": reverse("admin:tasks_task_content", args=[made.done.pk, "output"]),
    }

    answer = person.get(addresses[path])
    page = b"".join(answer) if answer.streaming else answer.content

    assert answer.status_code == 200
    assert b"canary" in page
    assert "text/html" not in answer["Content-Type"] or wrong_with(page.decode()) == []


def test_what_an_address_asks_is_text():
    submit()
    person, wrong = root(), {}

    for model in admin.site._registry:
        for name in ("q", *narrowed_by(model)):
            answer = person.client.get(list_url(model), {name: HOSTILE}, follow=True)
            assert answer.status_code in (200, 400), (model, name)
            if found := wrong_with(answer.content.decode()):
                wrong[model, name] = found

    assert wrong == {}


@pytest.mark.parametrize("text", [LINK, "{% now 'Y' %}", "' OR 1=1 --", "\x00", "\U0001f4a5" * 300, "9" * 400])
@pytest.mark.parametrize("name", ["q", "p", "o", "created_from", "account"])
def test_a_list_takes_any_address(name, text):
    answer = root().client.get(list_url(Task), {name: text}, follow=True)

    assert answer.status_code in (200, 400)


def narrowed_by(model):
    filters = admin.site._registry[model].list_filter
    return [getattr(each, "parameter_name", None) or str(each) for each in filters if not isinstance(each, tuple)]


@pytest.mark.parametrize("bad", ["<b x-init=canary>", '<a href="javascript:alert()">', '<p @click="canary()">', "1337"])
def test_what_is_wrong_with_a_page_would_be_found(bad):
    assert wrong_with(f"<main>{bad}</main>")


def test_what_a_login_says_is_text(client):
    answer = client.post("/admin/login/", {"username": HOSTILE, "password": "wrong", "next": LINK})

    assert wrong_with(answer.content.decode()) == []
