"""What a browser may do with our pages, and that nothing of ours asks for more."""

import hashlib
import re
from pathlib import Path

import pytest
import unfold
from django.conf import settings
from django.contrib.staticfiles import finders
from django.urls import reverse

from tests.admin.people import root

pytestmark = pytest.mark.django_db
OURS = settings.BASE_DIR / "templates"
UNFOLDS = Path(unfold.__file__).parent / "templates"
STRICT = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "connect-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "object-src 'none'",
}
# Of unfold's templates that ours replace, as they were when ours were written: look again when one has changed.
REPLACED = {
    "admin/actions.html": "b5332aace8e69192",
    "admin/index.html": "9fdb849b7da18ccd",
    "admin/object_history.html": "276be0d3eb1c5eaa",
    "unfold/components/progress.html": "be8c8b49f94ad3cc",
    "unfold/components/table.html": "0736f61f48778f7d",
    "unfold/helpers/command.html": "ae6ce324d8536613",
    "unfold/helpers/empty_results.html": "5f4727a37a99da76",
    "unfold/helpers/header_title.html": "b126ed2ab9ca1680",
    "unfold/helpers/welcomemsg.html": "e8eab02522ba2319",
    "unfold/layouts/skeleton.html": "66af9f0bb45f98ba",
}
# What a policy without 'unsafe-inline' would refuse, what would run in spite of it, and what leaves escaping off.
INLINE = {
    "a script in the page": r"<script(?![^>]*\ssrc=)",
    "a handler": r"""\son[a-z]+\s*=\s*["']""",
    "a style in the page": r"<style\b",
    "a style attribute": r"""(?<![\w:-])style\s*=\s*["']""",
    "a link that runs": r"javascript:",
    "another host": r"""(?:src|href|action)\s*=\s*["'](?:https?:)?//""",
    "text that is not escaped": r"\|\s*safe\b|autoescape\s+off|\|\s*safeseq\b",
    "an expression of data": r"""\s(?:x-|@|:)[\w:.-]*=(?:"[^"]*\{\{|'[^']*\{\{)""",
}
# The theme there is a setting of ours, not data.
REASONED = {("unfold/layouts/skeleton.html", "an expression of data")}


def templates():
    return sorted(str(path.relative_to(OURS)) for path in OURS.rglob("*.html"))


@pytest.mark.parametrize("name", templates())
def test_a_template_has_nothing_inline_and_escapes_all(name):
    text = (OURS / name).read_text()

    found = {what for what, pattern in INLINE.items() if re.search(pattern, text)}

    assert found == {what for template, what in REASONED if template == name}


@pytest.mark.parametrize("what", INLINE)
def test_what_is_inline_would_be_found(what):
    bad = {
        "a script in the page": "<script>x()</script>",
        "a handler": '<a onclick="x()">',
        "a style in the page": "<style>a{}</style>",
        "a style attribute": '<p style="color: red">',
        "a link that runs": '<a href="javascript:x()">',
        "another host": '<img src="//example.com/x.png">',
        "text that is not escaped": "{{ note|safe }}",
        "an expression of data": "<p x-data=\"{ a: '{{ name }}' }\">",
    }

    assert re.search(INLINE[what], bad[what])


def test_no_module_of_ours_calls_anything_safe():
    modules = [path for app in ("billing", "config", "tasks") for path in (settings.BASE_DIR / app).rglob("*.py")]

    assert len(modules) > 100
    assert not [path for path in modules if re.search(r"mark_safe|SafeString\(|__html__", path.read_text())]


@pytest.mark.parametrize("name", REPLACED)
def test_a_template_of_unfold_is_replaced_as_it_was_read(name):
    now = hashlib.sha256((UNFOLDS / name).read_bytes()).hexdigest()

    assert now.startswith(REPLACED[name]), f"unfold's {name} has changed: compare it with ours"


def test_every_template_of_unfold_that_ours_replace_is_listed():
    replaced = {name for name in templates() if (UNFOLDS / name).exists()}

    assert replaced == set(REPLACED)


@pytest.mark.parametrize("page", ["admin:login", "admin:index", "admin:tasks_task_changelist", "admin:jsi18n"])
def test_a_page_says_what_it_may(page):
    answer = root().get(reverse(page))

    assert set(answer["Content-Security-Policy"].split("; ")) == STRICT
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == answer["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in answer["Permissions-Policy"]


@pytest.mark.parametrize("page", ["admin:login", "admin:index", "admin:tasks_task_changelist"])
def test_a_page_is_not_kept(page):
    assert "no-store" in root().get(reverse(page))["Cache-Control"]


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/openapi.json", "/v1/nowhere"])
def test_an_answer_of_the_api_is_no_page(client, path):
    answer = client.get(path)

    assert answer["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'; sandbox"


@pytest.mark.parametrize("headers", [{"X-Request-Id": "x" * 200}, {"Host": "elsewhere.example"}])
def test_a_refused_request_is_answered_with_a_policy(client, headers):
    answers = [client.get(path, headers=headers) for path in ("/v1/tasks", "/admin/login/")]

    assert {answer.status_code for answer in answers} <= {400, 401}
    assert all("default-src 'none'" in answer["Content-Security-Policy"] for answer in answers)


def test_what_a_page_names_is_here():
    person = root()
    pages = [person.get(reverse(name)).content.decode() for name in ("admin:index", "admin:tasks_task_changelist")]

    named = {
        address for page in pages for address in re.findall(r'<(?:script|link|img)[^>]*\s(?:src|href)="([^"]*)"', page)
    }

    assert len(named) > 8
    for address in named:
        assert address.startswith(("/static/", reverse("admin:jsi18n"))), address
        if address.startswith("/static/"):
            assert finders.find(address.removeprefix("/static/")), address


def test_a_stylesheet_names_only_what_is_here():
    sheets = [finders.find(name) for name in ("unfold/css/styles.css", "counterfoil/theme.css", "counterfoil/admin.css",
        "unfold/fonts/inter/styles.css", "unfold/fonts/material-symbols/styles.css")]  # fmt: skip

    named = {
        address for sheet in sheets for address in re.findall(r"url\(\s*['\"]?([^)'\"]+)", Path(sheet).read_text())
    }

    assert named
    assert not [address for address in named if "//" in address.partition("data:")[0]]


def test_alpine_is_the_build_that_needs_no_eval():
    text = Path(finders.find("counterfoil/alpine/alpine.js")).read_text()

    assert hashlib.sha256(text.encode()).hexdigest().startswith("0d18d7f8d7910e2e")
    assert not re.search(r"new Function\(|AsyncFunction|\beval\(", text)
