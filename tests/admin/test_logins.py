"""Who gets in: tries are counted by name and address, sessions end, and nobody is led elsewhere."""

from urllib.parse import urlencode

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import reverse

from config.logins import client_address
from tests.admin.people import history, list_url, member, page_url, root, told

pytestmark = pytest.mark.django_db
LOGIN = "/admin/login/"
RIGHT, WRONG = "correct horse battery", "wrong"


@pytest.fixture(autouse=True)
def _quick_hashes(settings):
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture
def ann():
    return User.objects.create_superuser("ann", "ann@example.com", RIGHT)


def log_in(password, *, name="ann", address="192.0.2.1", client=None, **more):
    return (client or Client()).post(LOGIN, {"username": name, "password": password, **more}, REMOTE_ADDR=address)


def lock_out(settings, **by):
    return [log_in(WRONG, **by) for _ in range(settings.AXES_FAILURE_LIMIT)][-1]


def test_who_tries_too_often_is_told_when_to_try_again(ann, settings):
    answers = [log_in(WRONG) for _ in range(settings.AXES_FAILURE_LIMIT)]

    assert [answer.status_code for answer in answers] == [200] * (settings.AXES_FAILURE_LIMIT - 1) + [429]
    assert answers[-1]["Retry-After"] == "900"
    assert "no-store" in answers[-1]["Cache-Control"]
    assert "for 15 minutes" in answers[-1].content.decode()


def test_the_right_password_does_not_end_a_lock(ann, settings):
    lock_out(settings)

    answer = log_in(RIGHT)

    assert answer.status_code == 429
    assert "_auth_user_id" not in answer.client.session


def test_a_lock_is_of_one_name_from_one_address(ann, settings):
    User.objects.create_superuser("bob", password=RIGHT)

    lock_out(settings)

    assert log_in(RIGHT, name="bob").status_code == 302
    assert log_in(RIGHT, address="192.0.2.2").status_code == 302


def test_another_browser_does_not_end_a_lock(ann, settings):
    for number in range(settings.AXES_FAILURE_LIMIT):
        log_in(WRONG, client=Client(headers={"User-Agent": f"browser {number}"}))

    assert log_in(RIGHT).status_code == 429


def test_a_lock_ends_in_time_though_somebody_knocks_on(ann, settings, time_machine):
    time_machine.move_to("2030-01-01 12:00", tick=False)
    lock_out(settings)
    time_machine.move_to("2030-01-01 12:14", tick=False)
    assert log_in(WRONG).status_code == 429

    time_machine.move_to("2030-01-01 12:15:01", tick=False)

    assert log_in(RIGHT).status_code == 302


def test_a_lock_is_logged_without_the_password(ann, settings, caplog):
    lock_out(settings)

    assert "Locking out" in caplog.text
    assert "192.0.2.1" in caplog.text
    assert WRONG not in caplog.text


def test_what_is_kept_of_a_try_has_no_password(ann):
    log_in(RIGHT + WRONG)

    kept = str(AccessAttempt.objects.values().get())

    assert RIGHT not in kept


def test_operators_see_who_is_locked_out_and_unlock(ann, settings):
    lock_out(settings)
    attempt, person = AccessAttempt.objects.get(), member("Operator")
    pages = [person.get(url).content.decode() for url in (list_url(attempt), page_url(attempt))]

    answer = person.do(attempt, "unlock")

    assert all("192.0.2.1" in page and "locked" in page for page in pages)
    assert told(answer) == ["ann from 192.0.2.1: Unlocked ann from 192.0.2.1."]
    assert history(attempt) == ["Unlocked ann from 192.0.2.1. Reason: because"]
    assert log_in(RIGHT).status_code == 302


@pytest.mark.parametrize("group", ["Billing", "Support"])
def test_others_do_not_unlock(ann, settings, group):
    lock_out(settings)

    answer = member(group).do(AccessAttempt.objects.get(), "unlock")

    assert answer.status_code == 403
    assert AccessAttempt.objects.exists()


def test_logins_are_listed(ann):
    log_in(RIGHT)
    person = root()

    pages = [person.get(list_url(AccessLog)), person.get(page_url(AccessLog.objects.get(username="ann")))]

    assert all("192.0.2.1" in page.content.decode() for page in pages)


@pytest.mark.parametrize(
    ("proxies", "forwarded", "address"),
    [
        (0, "198.51.100.7", "192.0.2.1"),
        (1, "198.51.100.7", "198.51.100.7"),
        (1, "203.0.113.9, 198.51.100.7", "198.51.100.7"),
        (2, "203.0.113.9, 198.51.100.7, 10.0.0.1", "198.51.100.7"),
        (1, "", "192.0.2.1"),
        (1, "<script>", "192.0.2.1"),
        (1, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        (1, "::ffff:198.51.100.7", "198.51.100.7"),
    ],
)
def test_an_address_is_believed_from_as_many_proxies_as_there_are(settings, proxies, forwarded, address):
    settings.TRUSTED_PROXIES = proxies
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}

    request = RequestFactory().get(LOGIN, headers=headers, REMOTE_ADDR="192.0.2.1")

    assert client_address(request) == address


@pytest.mark.parametrize("to", ["https://example.com/", "//example.com/", "javascript:alert(1)", "/\\example.com"])
def test_a_login_leads_nowhere_else(ann, to):
    answer = log_in(RIGHT, next=to)

    assert answer.url == reverse("admin:index")


def test_a_session_is_new_after_a_login(ann):
    client = Client()
    client.session.save()
    client.get(LOGIN)

    before = client.session.session_key
    log_in(RIGHT, client=client)

    assert client.session.session_key != before


def test_a_new_password_ends_other_sessions(ann):
    here, there = Client(), Client()
    log_in(RIGHT, client=here)
    log_in(RIGHT, client=there)
    new = "another fine staple"

    changed = here.post(
        reverse("admin:password_change"), {"old_password": RIGHT, "new_password1": new, "new_password2": new}
    )

    assert changed.status_code == 302
    assert here.get("/admin/").status_code == 200
    assert there.get("/admin/").status_code == 302


@pytest.mark.parametrize("weak", ["short", "12345678901234", "1qaz2wsx3edc", "ann@example.com"])
def test_a_weak_password_is_refused(ann, weak):
    client = Client()
    log_in(RIGHT, client=client)

    answer = client.post(
        reverse("admin:password_change"), {"old_password": RIGHT, "new_password1": weak, "new_password2": weak}
    )

    assert answer.status_code == 200
    assert answer.context["form"].errors["new_password2"]


def test_nobody_is_logged_out_by_a_link(ann):
    client = Client()
    log_in(RIGHT, client=client)

    assert client.get("/admin/logout/").status_code == 405
    assert client.get("/admin/").status_code == 200
    assert client.post("/admin/logout/").status_code == 200
    assert client.get("/admin/").status_code == 302


def test_cookies_are_for_this_host_and_not_for_scripts(ann):
    client = Client()
    client.get(LOGIN)
    log_in(RIGHT, client=client)

    assert set(client.cookies) >= {"session", "csrf"}
    assert all(cookie["httponly"] and not cookie["domain"] for cookie in client.cookies.values())
    assert (client.cookies["session"]["samesite"], client.cookies["csrf"]["samesite"]) == ("Lax", "Strict")
    assert client.cookies["session"]["max-age"] == 12 * 3600


@pytest.mark.parametrize("name", ["\x00", "a" * 10_000, "<script>alert(1)</script>", "{{7*7}}", "\ud800"])
def test_any_name_may_be_tried(name):
    fields = urlencode({"username": name.encode(errors="surrogatepass"), "password": WRONG})

    answer = Client().post(LOGIN, fields, content_type="application/x-www-form-urlencoded")

    assert answer.status_code == 200
    assert "<script>alert" not in answer.content.decode()
