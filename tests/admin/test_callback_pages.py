"""What operators see of callbacks: what is owed, what failed, and each try as it was sent and answered."""

import json
import subprocess
from datetime import timedelta

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape
from standardwebhooks import Webhook

from billing.credentials import decrypt, encrypt, new_callback_secret
from billing.models import Account
from tasks import callbacks, content, delivery
from tasks.admin import sent
from tasks.models import Callback, CallbackAttempt, Receiver, WebhookEndpoint
from tasks.statuses import Status
from tests.admin.people import list_url, member, page_url, root, told
from tests.builders import account, task_that_is
from tests.receiver import Receiver as Server
from tests.receiver import Reply

# What is delivered is committed first; lists need no more than a transaction that is taken back.
COMMITTED = pytest.mark.django_db(transaction=True)
pytestmark = pytest.mark.django_db


def delivered_to(url, **fields) -> Callback:
    """The callback of a task that ended well, after a shift of the deliverer."""
    task = task_that_is(Status.SUCCEEDED, callback_url=url, **fields)
    delivery.deliver_due()
    return Callback.objects.select_related("account").get(task=task, endpoint=None)


@pytest.fixture(autouse=True)
def schedule(settings, monkeypatch):
    """A second try comes much later."""
    monkeypatch.setattr(callbacks, "TRIES", 3)
    settings.CALLBACK_SCHEDULE = [timedelta(0), *[timedelta(hours=1)] * 2]


@COMMITTED
def test_a_try_keeps_its_request_as_it_left_and_where_it_went():
    with Server([Reply(500, {"x-why": "tired", "set-cookie": "a=secret; path=/"}, b"later")]) as server:
        callback = delivered_to(f"{server.url}?a=b%20c")

    [attempt], [request] = callback.attempts.all(), server.requests
    assert list(attempt.request_headers.items()) == [(name, value) for name, value in request.headers.items()]
    assert attempt.address == "127.0.0.1"
    assert "x-why: tired" in attempt.response_headers
    assert "a=(left out)" in attempt.response_headers
    assert "secret" not in attempt.response_headers
    assert sent.sent(attempt, callback).http.startswith(f"POST {request.path} HTTP/1.1\n")


@COMMITTED
def test_a_try_without_a_connection_says_that_nothing_was_sent():
    with Server() as server:
        url = server.url
    callback = delivered_to(url)

    page = root().get(page_url(callback)).content.decode()

    assert callback.attempts.get().request_headers == {}
    assert "Nothing was sent: no connection was made." in page
    assert "The connection was refused." in page


@COMMITTED
def test_a_page_says_which_secret_signed_before_and_after_it_was_replaced():
    with Server() as server:
        callback = delivered_to(server.url)
    attempt = callback.attempts.get()

    def signer():
        again = Callback.objects.select_related("account").get(pk=callback.pk)
        [said] = sent.sent(attempt, again).signed
        return said.partition(" (")[0]

    def replace():
        before = Account.objects.get(pk=callback.account_id).callback_secret
        secret, until = encrypt(new_callback_secret()), timezone.now() + timedelta(hours=1)
        Account.objects.filter(pk=callback.account_id).update(
            callback_secret=secret, callback_secret_previous=before, callback_secret_previous_until=until
        )

    said = [signer()]
    for _ in range(2):
        replace()
        said.append(signer())

    assert said == [
        "the present secret of the account", "its previous secret", "a secret that has been replaced since",
    ]  # fmt: skip


@COMMITTED
def test_a_try_whose_headers_were_not_kept_is_shown_as_recomputed():
    with Server() as server:
        callback = delivered_to(server.url)
    kept = callback.attempts.get()
    CallbackAttempt.objects.update(request_headers=None)

    again = sent.sent(callback.attempts.get(), callback)

    assert again.told.startswith("Recomputed:")
    assert f"webhook-signature: {kept.request_headers['webhook-signature']}" in again.http
    assert f"webhook-timestamp: {kept.request_headers['webhook-timestamp']}" in again.http


@COMMITTED
@pytest.mark.parametrize("size", [1, 50])
def test_the_command_repeats_the_request_byte_for_byte(size, tmp_path):
    odd = 'it\'s $(touch pwned) `x` "q" \\ ; \n %s @file é' * 10
    with Server() as server:
        callback = delivered_to(f"{server.url}?q='$(x)[1-2]{{a}}", metadata={f"odd {n}": odd for n in range(size)})
        person = root()
        page = person.get(page_url(callback))
        body = person.get(reverse("admin:tasks_callback_body", args=[callback.pk]))
        (tmp_path / sent.file_of(callback)).write_bytes(body.content)
        for command in page.context["commands"]:
            here = command.text.replace(sent.HERE, f"http://127.0.0.1:{server.port}")
            subprocess.run(["sh", "-c", f"{here} --silent --noproxy '*'"], cwd=tmp_path, check=True, timeout=20)

    original, as_it_was, anew = server.requests
    assert original.body == as_it_was.body == anew.body == body.content == callback.body.encode()
    assert original.path == as_it_was.path == anew.path
    assert as_it_was.headers["webhook-signature"] == original.headers["webhook-signature"]
    Webhook(decrypt(callback.account.callback_secret)).verify(anew.body, dict(anew.headers.items()))
    assert list(tmp_path.iterdir()) == [tmp_path / sent.file_of(callback)]


@COMMITTED
def test_no_page_of_callbacks_shows_a_secret():
    with Server() as server:
        callback = delivered_to(server.url)
    secret = decrypt(callback.account.callback_secret)

    person = root()

    pages = [person.get(page_url(row)).content.decode() for row in (callback, callback.attempts.get())]

    assert not [page for page in pages if secret in page or escape(secret) in page or "whsec_" in page]


@COMMITTED
@pytest.mark.parametrize(("group", "sees"), [("Operator", True), ("Billing", False), ("Support", False)])
def test_bodies_answers_and_commands_are_for_whoever_may_view_content(group, sees):
    with Server([Reply(200, {"x-what": "they-said"}, b"they-answered")]) as server:
        callback = delivered_to(server.url, input={"output": "they-asked"})
    person = member(group)

    pages = [person.get(page_url(row)).content.decode() for row in (callback, callback.attempts.get())]

    for word in ("they-answered", "they-said", "--data-raw", escape('{"type":"task.succeeded"')):
        assert [word in page for page in pages] == [sees, sees], word
    assert all("webhook-signature: v1," in page for page in pages)
    assert person.get(reverse("admin:tasks_callback_body", args=[callback.pk])).status_code == (200 if sees else 403)


@COMMITTED
def test_a_callback_without_its_content_has_no_body_and_no_command():
    with Server() as server:
        callback = delivered_to(server.url)
    Callback.objects.update(body="")
    person = root()

    page = person.get(page_url(callback))

    assert "Its content was deleted." in page.content.decode()
    assert "commands" not in page.context
    assert person.get(reverse("admin:tasks_callback_body", args=[callback.pk])).status_code == 404


@pytest.fixture
def kinds():
    """A callback of each kind, by name: of three accounts and hosts."""
    made = {}
    for number, name in enumerate(("later", "due", "waits", "failed", "delivered")):
        task = task_that_is(
            Status.SUCCEEDED, of=account(name=f"Owner {name}"), callback_url=f"https://{name}.example/hook"
        )
        made[name] = Callback.objects.get(task=task)
        Callback.objects.filter(pk=made[name].pk).update(next_attempt_at=timezone.now() - timedelta(hours=number))
    Callback.objects.filter(pk=made["later"].pk).update(next_attempt_at=timezone.now() + timedelta(hours=1))
    asleep = Receiver.objects.create(
        account=made["waits"].account, url="https://waits.example/hook", last_failure_at=timezone.now(), failures=10,
        paused_at=timezone.now(), failing_since=timezone.now(),
    )  # fmt: skip
    Callback.objects.filter(pk=made["waits"].pk).update(waits_for=asleep, waits_since=timezone.now())
    for ended in ("failed", "delivered"):
        Callback.objects.filter(pk=made[ended].pk).update(status=ended, next_attempt_at=None)
    return made


def test_lists_answer_what_operators_ask(kinds):
    person = root()

    def hosts(**query):
        page = person.get(list_url(Callback), **query)
        return [callback.url.split("/")[2].split(".")[0] for callback in page.context["cl"].result_list]

    assert hosts(need="owed") == ["due", "later"]
    assert hosts(need="waiting") == ["waits"]
    assert hosts(need="failed") == ["failed"]
    assert hosts(event="task.failed") == []
    assert len(hosts(event="task.succeeded")) == 5
    assert hosts(q="Owner later") == ["later"]
    assert hosts(q="https://FAILED.example/other?x=1") == ["failed"]
    assert hosts(q="waits.example") == ["waits"]
    assert hosts(q="waits.example", need="waiting") == ["waits"]
    assert hosts(q="delivered.example") == []
    assert hosts(q="delivered.example", need="failed") == []
    assert hosts(q=callbacks.message_id(kinds["delivered"].pk)) == ["delivered"]
    assert hosts(q=str(kinds["due"].task_id)) == ["due"]
    for nonsense in ("\x00", ":", "//", "é" * 5000, "msg_zzz", "https://"):
        hosts(q=nonsense)
    assert len(hosts(need="\x00' OR 1=1", event="\x00")) == 5


def test_a_list_says_when_the_next_try_comes_or_what_keeps_it(kinds):
    Callback.objects.filter(pk=kinds["later"].pk).update(lease_expires_at=timezone.now() + timedelta(minutes=1))

    page = root().get(list_url(Callback)).content.decode()

    for said in ("being sent", "due since", "when its receiver works again"):
        assert said in page, said


def plan(queryset) -> str:
    """How the first page is read where no scan or sort of the table is made that an index can spare."""
    off = ("enable_seqscan", "enable_sort", "enable_bitmapscan")
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET {name} = off" for name in off))
        found = queryset[:51].explain()
        cursor.execute("; ".join(f"RESET {name}" for name in off))
    return found


MANY = """
INSERT INTO tasks_callback (id, task_id, account_id, event, url, format, body, status, tries_left)
SELECT gen_random_uuid(), task_id, account_id, event, url || n, format, body, 'failed', 0
FROM tasks_callback, generate_series(1, 300) n WHERE status = 'delivered'
"""


def test_no_list_of_callbacks_scans_or_sorts_its_table(kinds):
    person, asleep = root(), Receiver.objects.get()
    endpoint = WebhookEndpoint.objects.create(account=asleep.account, url="https://e.example/", events=["task.failed"])
    asked = {
        "callback_due": {"need": "owed"},
        "callback_waits": {"need": "waiting"},
        "callback_failed ": {"need": "failed"},
        "callback_failed_host": {"need": "failed", "q": "failed.example"},
        "callback_event": {"event": "task.failed"},
        "callback_account": {"account__id__exact": asleep.account_id},
        "callback_told": {"endpoint__id__exact": endpoint.pk},
        "callback_waiting": {"waits_for__id__exact": asleep.pk},
        "tasks_callback_pkey": {},
    }

    with connection.cursor() as cursor:
        cursor.execute(MANY)
        cursor.execute("ANALYZE tasks_callback")

    plans = {
        index: plan(person.get(list_url(Callback), **query).context["cl"].queryset) for index, query in asked.items()
    }
    plans["callback_failed_receiver"] = plan(callbacks.failed_of(asleep))
    plans["callback_receiver"] = plan(callbacks.owed_to(asleep))

    for index, found in plans.items():
        assert f"using {index}" in found, (index, found)
        assert "Seq Scan on tasks_callback" not in found, (index, found)
        assert "-> Sort" not in found, (index, found)


def test_what_is_owed_to_a_failing_receiver_is_retried_now(kinds):
    failing = Receiver.objects.create(
        account=kinds["later"].account, url="https://later.example/hook", last_failure_at=timezone.now(), failures=3
    )
    person = root()

    page = person.ask(failing, "retry-owed")
    answer = person.send(failing, "retry-owed", page, reason="they say it is up")

    assert page.context["facts"].rows[0][-2:] == ["1", "0"]
    assert told(answer) == [f"{failing}: Due now: 1 callbacks."]
    assert Callback.objects.get(pk=kinds["later"].pk).next_attempt_at <= timezone.now()


@COMMITTED
def test_a_receiver_knows_since_when_it_fails_until_it_works_again():
    with Server([500, 500, 200]) as server:
        first = delivered_to(server.url)
        since = Receiver.objects.get().failing_since
        for _ in range(2):
            known = Receiver.objects.get()
            Callback.objects.filter(pk=first.pk).update(next_attempt_at=timezone.now())
            delivery.deliver_due()

    assert since is not None
    assert (known.failures, known.failing_since) == (2, since)
    assert (Receiver.objects.get().failures, Receiver.objects.get().failing_since) == (0, None)


def test_a_list_of_receivers_shows_what_they_owe_and_since_when(kinds):
    person = root()

    def urls(need):
        return [row.url for row in person.get(list_url(Receiver), need=need).context["cl"].result_list]

    page = person.get(list_url(Receiver))
    [asleep] = page.context["cl"].result_list

    assert asleep.waits == 1
    assert (urls("paused"), urls("failing"), urls("recovered")) == (["https://waits.example/hook"], [], [])
    assert "when its receiver works again" in person.get(page_url(asleep)).content.decode()


@COMMITTED
def test_the_content_that_an_owner_deletes_is_gone_from_tries_too():
    with Server([Reply(200, {"x-what": "they-said"})]) as server:
        callback = delivered_to(server.url)

    content.delete_content(callback.task_id, by="test")

    assert callback.attempts.get().response_headers == ""
    assert json.dumps(callback.attempts.get().request_headers).count("webhook-id") == 1
