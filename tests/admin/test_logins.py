"""Who gets in: tries are counted by name and address, sessions end, and nobody is led elsewhere."""

from datetime import timedelta
from urllib.parse import urlencode

import pytest
from axes.models import AccessAttempt, AccessLog
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.checks import Tags, run_checks
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from config.logins import client_address
from tasks import sweep
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


def test_one_password_for_many_names_locks_the_address_and_no_other(ann, settings):
    settings.LOGIN_ADDRESS_TRIES = 6
    names = [f"name{number}" for number in range(6)]

    tried = [log_in(WRONG, name=name).status_code for name in names]
    here, elsewhere = log_in(RIGHT), log_in(RIGHT, address="192.0.2.2")

    assert tried == [200] * 6
    assert (here.status_code, elsewhere.status_code) == (429, 302)
    page = root().get(list_url(AccessAttempt)).content.decode()
    assert "name5" in page
    assert "may try again" not in page


def test_an_address_is_free_again_in_time(ann, settings, time_machine):
    settings.LOGIN_ADDRESS_TRIES = 2
    time_machine.move_to("2030-01-01 12:00", tick=False)
    for name in ("bob", "eve"):
        log_in(WRONG, name=name)

    time_machine.move_to("2030-01-01 12:15:01", tick=False)

    assert log_in(RIGHT).status_code == 302


def test_guesses_of_the_old_password_lock_and_are_kept_by_no_browser(ann, settings):
    client = Client()
    log_in(RIGHT, client=client)
    new = "another fine staple"

    def guess(old):
        given = {"old_password": old, "new_password1": new, "new_password2": new}
        return client.post(reverse("admin:password_change"), given, REMOTE_ADDR="192.0.2.1")

    shown = client.get(reverse("admin:password_change"))
    answers = [guess(WRONG).status_code for _ in range(settings.AXES_FAILURE_LIMIT)]

    assert "no-store" in shown["Cache-Control"]
    assert answers == [200] * (settings.AXES_FAILURE_LIMIT - 1) + [429]
    assert guess(RIGHT).status_code == 429
    assert User.objects.get(username="ann").check_password(RIGHT)


def test_nothing_is_shown_again_after_a_logout(ann):
    client = Client()
    log_in(RIGHT, client=client)

    pages = [client.get(url) for url in ("/admin/", list_url(AccessLog), page_url(ann))]
    client.post(reverse("admin:logout"))

    assert all("no-store" in page["Cache-Control"] for page in pages)
    assert client.get("/admin/").status_code == 302


def test_expired_sessions_and_old_logins_are_forgotten_in_batches(ann, monkeypatch):
    for name in ("old", "older", "new"):
        AccessLog.objects.create(username=name)
    AccessLog.objects.exclude(username="new").update(attempt_time=timezone.now() - timedelta(days=91))
    for name, days in (("a", -1), ("b", -2), ("c", 1)):
        Session.objects.create(session_key=name, expire_date=timezone.now() + timedelta(days=days))
    monkeypatch.setattr(sweep, "_done_at", {})
    monkeypatch.setattr(sweep, "BATCH", 1)

    sweep.forget_logins()

    assert [entry.username for entry in AccessLog.objects.all()] == ["new"]
    assert [session.pk for session in Session.objects.all()] == ["c"]


def test_logins_are_kept_for_ever_when_told(ann, monkeypatch, settings):
    settings.LOGIN_DAYS = 0
    AccessLog.objects.create(username="old")
    AccessLog.objects.update(attempt_time=timezone.now() - timedelta(days=999))
    monkeypatch.setattr(sweep, "_done_at", {})

    sweep.forget_logins()

    assert AccessLog.objects.count() == 1


@pytest.mark.parametrize(("https", "said", "warned"), [(True, None, True), (True, "0", False), (False, None, False)])
def test_a_production_is_asked_for_its_proxies(settings, monkeypatch, https, said, warned):
    settings.HTTPS = https
    monkeypatch.delenv("TRUSTED_PROXIES", raising=False)
    if said is not None:
        monkeypatch.setenv("TRUSTED_PROXIES", said)

    asked = [each.id for each in run_checks(tags=[Tags.security], include_deployment_checks=True)]

    assert ("config.W001" in asked) == warned
