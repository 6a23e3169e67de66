"""The page of one task: its state at a glance, one story, live while it runs, and closed to whoever may not see it."""

import re
from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils.timezone import now

from tasks import lifecycle, waiting
from tasks.admin.task_page import chain, live, timeline
from tasks.admin.task_page.head import head
from tasks.models import Callback, CallbackAttempt, Task
from tasks.statuses import ErrorCode, Resolved, Status
from tests.admin.people import Person, member, page_url, root
from tests.admin.world import SECRET_INPUT, SECRET_OUTPUT, SECRET_TEXT, world
from tests.builders import account, claim, deployment, submit, task_that_is

pytestmark = pytest.mark.django_db

MOST_QUERIES = 15


def see(person, task):
    """What the page was made of, beside its text."""
    answer = person.get(page_url(task))
    assert answer.status_code == 200
    return answer.context_data | {"text": answer.content.decode()}


def live_url(task):
    return reverse("admin:tasks_task_live", args=[task.pk])


def asks(page):
    """The address that the page asks for news, and how often."""
    found = re.search(r'hx-get="([^"]+)" hx-trigger="every (\d+)s"', page)
    return (found[1].replace("&amp;", "&"), int(found[2])) if found else None


def retried(task, times):
    """The task, its worker lost so many times."""
    for _ in range(times):
        claimed = claim(task)
        lifecycle.retry(claimed, code=ErrorCode.WORKER_LOST, message="Lost.", resolved=Resolved.CLAIM_EXPIRED)
        Task.objects.filter(pk=task.pk).update(available_at=now() - timedelta(seconds=1))
    return task


def queued():
    return submit()


def paused():
    task = submit()
    lifecycle.pause(task.pk, by="operator:ann", reason="incident")
    return task


def drained():
    task = submit()
    waiting.drain(task.deployment_id)
    return task


def later():
    return submit(not_before=now() + timedelta(hours=1))


def lost():
    return retried(submit(), 1)


def canceled():
    task = submit()
    lifecycle.cancel(task.pk, by="operator:ann", reason="by telephone")
    return task


@pytest.mark.parametrize(
    ("make", "status", "sentence"),
    [
        (queued, "queued", "It waits for a worker."),
        (paused, "paused", "it is not started until somebody resumes it"),
        (drained, "queued", "Its deployment is drained"),
        (later, "queued", "It may start at"),
        (lost, "queued", "It waits for a worker, for run 2."),
        (lambda: task_that_is(Status.RUNNING), "running", "Run 1 is at work on test."),
        (lambda: task_that_is(Status.SUCCEEDED), "succeeded", "It ended well in the first run."),
        (lambda: task_that_is(Status.FAILED), "failed", "The capability said no (capability_error): No."),
        (canceled, "canceled", "Canceled by ann: by telephone"),
    ],
)
def test_the_head_says_how_the_task_is_and_why(make, status, sentence):
    task = make()
    task.refresh_from_db()

    told = head(task, timeline.read(task, answers=False).rows)

    assert told.status == status
    assert sentence in told.sentence


def test_the_head_is_on_the_page_with_whose_it_is_and_what_it_cost():
    task = task_that_is(Status.FAILED)

    text = see(root(), task)["text"]

    for expected in (
        "The capability said no (capability_error): No.",
        "Acme",
        task.model,
        "0.0000 credits",
        "1.0000 quoted",
    ):
        assert expected in text


def test_what_is_looked_up_is_folded_at_the_end_with_ids_to_copy():
    task = submit(to=deployment(prices=(("task", "1"), ("input_tokens", "0.5", 1000))), client_reference="order-17")

    page = see(root(), task)

    groups = {group.title: dict(group.pairs) for group in page["technical"]}
    assert groups["Quote"]["input_tokens at"] == "0.5 credits per 1,000 tokens"
    assert (groups["Work"]["timeout of a run"], groups["Times"]["deadline"]) == ("600 s", task.deadline)
    for value in (str(task), str(task.pk), str(task.account_id), "order-17"):
        assert f'data-copy-text="{value}"' in page["text"]


def test_progress_is_shown_while_it_runs():
    task = submit()
    claimed = claim(task)
    lifecycle.progress(claimed, percent=42.5, stage="writing", message="chapter 3")

    page = see(root(), task)

    assert '<progress max="100" value="42.5">' in page["text"]
    assert "writing: chapter 3" in page["text"]


def test_a_callback_that_is_owed_delivered_or_failed_says_so():
    task = task_that_is(Status.SUCCEEDED, callback_url="https://example.com/")
    person = root()

    told = [see(person, task)["head"].callback]
    for status in ("delivered", "failed"):
        task.callbacks.update(status=status, attempt_count=1, last_error="503")
        told.append(see(person, task)["head"].callback)

    assert told == ["owed: 0 tries made, 10 left", "delivered after 1 try", "failed after 1 try: 503"]


def test_one_timeline_has_moves_runs_money_callbacks_and_acts_in_order():
    person = root()
    task = submit(callback_url="https://example.com/hook")
    lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])
    CallbackAttempt.objects.create(
        callback=task.callbacks.get(), number=1, started_at=now(), duration_ms=12, status_code=503, response="busy"
    )
    person.do(task, "refund", reason="wrong language")

    entries = see(person, task)["timeline"].entries

    assert entries == sorted(entries, key=lambda entry: entry.at, reverse=True)
    titles = [entry.title for entry in reversed(entries) if not entry.title.startswith("Run 1")]
    assert titles == [
        "Submitted", "Held", "Charged", "Succeeded", "Callback task.succeeded owed",
        "Try 1 of task.succeeded: 503 in 12 ms", "Refunded",
    ]  # fmt: skip
    assert {entry.kind for entry in entries} == {"move", "run", "money", "callback"}


def test_each_entry_leads_to_its_row_and_money_says_what_the_account_had_then():
    made, person = world(), root()

    page = see(person, made.done)

    entries = page["timeline"].entries
    assert all(f'id="{entry.anchor}"' in page["text"] and f'href="{entry.url}"' in page["text"] for entry in entries)
    for entry in {entry.anchor.split("-")[0]: entry for entry in entries}.values():
        assert person.get(entry.url).status_code == 200, entry
    money = [entry for entry in page["timeline"].entries if entry.kind == "money"]
    assert [(str(entry.amount), str(entry.after.available_after)) for entry in reversed(money)] == [
        ("21.0000", "79.0000"), ("7.0000", "79.0000"), ("14.0000", "93.0000"), ("1.0000", "94.0000"),
    ]  # fmt: skip


def test_an_act_says_who_and_why():
    person, task = root(), submit()
    person.do(task, "cancel", reason="the customer rang")

    text = see(person, task)["text"]

    assert "Canceled by root: the customer rang" in text
    assert text.count("Reason: the customer rang") == 1


def test_a_long_story_is_told_in_pages_that_leave_nothing_out(monkeypatch):
    task = retried(submit(to=deployment(max_retries=9)), 5)
    for run, claimed in zip(
        task.runs.order_by("number"), task.events.filter(type="task.running").order_by("seq"), strict=False
    ):
        # In one transaction all runs would have the same time.
        task.runs.filter(pk=run.pk).update(started_at=claimed.created_at, resolved_at=claimed.created_at)
    person = root()
    whole = [entry.anchor for entry in see(person, task)["timeline"].entries]
    monkeypatch.setattr(timeline, "MOST", 2)

    page = see(person, task)
    told, sizes = [entry.anchor for entry in page["timeline"].entries], []
    while page["timeline"].until:
        answer = person.get(
            reverse("admin:tasks_task_earlier", args=[task.pk]), until=page["timeline"].until.isoformat()
        )
        page = answer.context_data
        told += (more := [entry.anchor for entry in page["timeline"].entries])
        sizes.append(len(more))

    assert told == whole
    assert len(sizes) >= 3


@pytest.mark.parametrize("until", ["", "soon", "2026-01-01T00:00:00", "9999999999-01-01", "2026-13-01T00:00Z", "\x00"])
def test_a_moment_that_is_none_is_not_found(until):
    task = submit()

    assert root().get(reverse("admin:tasks_task_earlier", args=[task.pk]), until=until).status_code == 404


def test_the_page_asks_for_news_and_is_told_only_of_them():
    task, person = submit(), root()
    claimed = claim(task)
    address, seconds = asks(see(person, task)["text"])

    with CaptureQueriesContext(connection) as queries:
        same = person.get(address)
    lifecycle.progress(claimed, percent=10, stage=None, message="news")
    news = person.get(address)

    assert (same.status_code, same.content, seconds) == (204, b"", live.UNFINISHED)
    assert len(queries) <= 2  # the session and its user
    assert news.status_code == 200
    assert "news" in news.content.decode()
    assert asks(news.content.decode())[0] != address


def test_news_replace_the_parts_that_are_on_the_page():
    task, person = submit(), root()

    news, page = person.get(live_url(task)).content.decode(), see(person, task)["text"]

    for part in ("live", "head", "made", "money", "timeline", "chain", "technical"):
        assert len(re.findall(rf'id="task-{part}"[^>]*hx-swap-oob="true"', news)) == 1, part
        assert page.count(f'id="task-{part}"') == 1, part


def test_text_tries_and_history_are_news_though_the_task_is_the_same():
    task, person = submit(callback_url="https://example.com/"), root()
    claimed, seen = claim(task), []

    def look():
        seen.append(live.seen(task.pk))

    look()
    lifecycle.publish(claimed, offset=0, text="word", usage={})
    look()
    lifecycle.succeed(claimed, output=None, usage={}, warnings=[])
    look()
    Callback.objects.filter(task=task).update(attempt_count=1)
    look()
    person.do(task, "redeliver")
    look()

    assert len(set(seen)) == len(seen)


def test_a_final_page_asks_no_more_and_one_that_owes_a_callback_seldom():
    quiet, owing = task_that_is(Status.SUCCEEDED), task_that_is(Status.SUCCEEDED, callback_url="https://example.com/")
    person = root()

    first = asks(see(person, owing)["text"])
    owing.callbacks.update(status="delivered")

    assert first[1] == live.OWING
    assert asks(see(person, quiet)["text"]) is None
    assert asks(see(person, owing)["text"]) is None


def test_the_acts_change_along():
    task, person = submit(), root()
    claimed = claim(task)

    before = person.get(live_url(task)).content.decode()
    lifecycle.succeed(claimed, output=None, usage={}, warnings=[])
    after = person.get(live_url(task)).content.decode()

    cancel, rerun = (reverse(f"admin:tasks_task_{act}") for act in ("cancel", "rerun"))
    assert (cancel in before, rerun in before) == (True, False)
    assert (cancel in after, rerun in after) == (False, True)


def test_reruns_are_a_chain_from_the_first_to_the_last():
    owner, to = account("100"), deployment()
    made = [task_that_is(Status.SUCCEEDED, of=owner, to=to)]
    for _ in range(3):
        again = lifecycle.rerun(made[-1].pk, account_id=owner.pk, api_key_id=None, actor="operator:ann")
        made.append(Task.objects.get(pk=again.task_id))
        lifecycle.succeed(claim(made[-1]), output=None, usage={}, warnings=[])
    other = task_that_is(Status.SUCCEEDED, of=owner, to=to)

    links = see(root(), made[1])["chain"]

    assert [(link.id, link.depth) for link in links] == [(task.pk, depth - 1) for depth, task in enumerate(made)]
    assert [link.id for link in chain.chain(other)] == [other.pk]


def test_all_that_the_page_and_its_news_ask_is_found_by_indexes():
    made, person = world(), root()
    with CaptureQueriesContext(connection) as queries:
        person.get(page_url(made.done))
        person.get(reverse("admin:tasks_task_earlier", args=[made.done.pk]), until=now().isoformat())
    asked = [query["sql"] for query in queries if query["sql"].startswith(("SELECT", "--"))]

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        plans = ""
        for sql, params in [*((sql, None) for sql in asked), (live.SEEN, [made.done.pk])]:
            cursor.execute(f"EXPLAIN {sql}", params)
            plans += "".join(f"{line}\n" for (line,) in cursor.fetchall())

    assert len(asked) > 15
    assert [line for line in plans.splitlines() if "Seq Scan" in line] == []
    assert "admin_history_of_a_row" in plans


@pytest.mark.parametrize("group", ["Operator", "Support"])
def test_the_fullest_page_takes_few_queries_whatever_its_rows(group):
    made, person = world(), member(group)
    person.get(page_url(made.done))

    def count():
        with CaptureQueriesContext(connection) as queries:
            person.get(page_url(made.done))
        assert len(queries) <= MOST_QUERIES, "\n".join(query["sql"][:150] for query in queries)
        return len(queries)

    few = count()
    for number in range(5):
        lifecycle.refund(made.done.pk, 1, key=str(uuid4()), reason=f"again {number}", by="operator:ann")

    assert count() == few


def test_whoever_may_not_view_content_is_told_none_by_any_view():
    made, person = world(), member("Support")
    running = submit(input={"output": SECRET_INPUT})
    lifecycle.publish(claim(running), offset=0, text=SECRET_TEXT, usage={})

    until = (now() + timedelta(hours=1)).isoformat()
    told = [see(person, task)["text"] for task in (made.done, running)]
    told += [person.get(live_url(task)).content.decode() for task in (made.done, running)]
    told.append(person.get(reverse("admin:tasks_task_earlier", args=[made.done.pk]), until=until).content.decode())

    for text in told:
        assert not [word for word in (SECRET_INPUT, SECRET_OUTPUT, SECRET_TEXT, "--data-raw") if word in text]
    for name in ("input", "output", "text", "request"):
        assert person.get(reverse("admin:tasks_task_content", args=[made.done.pk, name])).status_code == 403
    assert person.get(reverse("admin:tasks_task_artifact", args=[made.done.pk, "a.png"])).status_code == 403


def test_the_small_views_are_for_whoever_may_see_tasks_and_by_get_only():
    task = submit()
    nobody = Person(User.objects.create_user("nobody", is_staff=True))
    nobody.user.user_permissions.add(Permission.objects.get(codename="view_content"))
    anybody = User.objects.create_superuser("anybody")
    addresses = [
        live_url(task),
        reverse("admin:tasks_task_earlier", args=[task.pk]),
        reverse("admin:tasks_task_content", args=[task.pk, "input"]),
        reverse("admin:tasks_task_artifact", args=[task.pk, "a"]),
    ]

    assert {nobody.get(address).status_code for address in addresses} == {403}
    assert {Person(anybody).client.post(address).status_code for address in addresses} == {405}


def test_a_task_that_is_gone_is_not_found():
    person = root()

    for name, *more in (("live",), ("earlier",), ("content", "input"), ("content", "error"), ("artifact", "a.png")):
        address = reverse(f"admin:tasks_task_{name}", args=[uuid4(), *more])
        assert person.get(address, until=now().isoformat()).status_code == 404
