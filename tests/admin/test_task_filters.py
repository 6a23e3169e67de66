"""What the list of tasks can be narrowed to, by the parameters of its address."""

from datetime import timedelta

import pytest
from django.utils.timezone import now

from billing.models import Charge
from tasks import lifecycle
from tasks.admin.task_list.filters import PARAMETERS, matching, unreadable
from tasks.admin.task_list.search import id_spans
from tasks.identifiers import public_id
from tasks.models import Callback, Task
from tasks.statuses import ErrorCode, Status
from tests.builders import account, claim, deployment, submit, task_that_is

pytestmark = pytest.mark.django_db


def found(**params):
    return {task.pk for task in matching(params)}


def test_a_status_finds_its_tasks_and_paused_the_queued_that_are_held_back():
    tasks = {status: task_that_is(status, to=deployment(queue=status)) for status in Status}
    paused = submit(to=deployment(queue="held"))
    lifecycle.pause(paused.pk, by="test")

    assert {status: found(status=status) for status in Status if status != "queued"} == {
        status: {task.pk} for status, task in tasks.items() if status != "queued"
    }
    assert found(status="queued") == {tasks[Status.QUEUED].pk, paused.pk}
    assert found(status="paused") == {paused.pk}


def test_needs_find_what_a_person_has_to_look_at():
    hook = "https://example.com/hook"
    stuck, waiting = submit(to=deployment(queue="a")), submit(to=deployment(queue="b"))
    owed, failed, charged = (task_that_is(Status.SUCCEEDED, to=deployment(queue=q), callback_url=hook) for q in "cde")
    Task.objects.filter(pk=stuck.pk).update(deadline=now() - timedelta(minutes=1))
    long_ago = now() - timedelta(hours=1)
    Task.objects.filter(pk=waiting.pk).update(available_at=long_ago)
    Callback.objects.filter(task=failed).update(status="failed")
    Callback.objects.filter(task=charged).update(status="delivered", delivered_at=now())
    lifecycle.refund(charged.pk, key="refund", reason="because", by="test")

    assert found(need="stuck") == {stuck.pk}
    assert found(need="waiting") == set()  # its id says that it is new
    assert found(need="owed") == {owed.pk}
    assert found(need="failed_callback") == {failed.pk}
    assert found(need="refunded") == {charged.pk}
    assert Charge.objects.get(task_id=charged.pk).refunded > 0


def test_what_waits_for_long_is_found():
    past = now() - timedelta(hours=1)
    task = submit()
    old = Task.objects.get(pk=task.pk)
    old.pk, old.available_at, old.rerun_of = "01900000-0000-7000-8000-000000000000", past, None
    old.save(force_insert=True)

    assert {str(pk) for pk in found(need="waiting")} == {old.pk}


def test_names_find_their_tasks():
    to = deployment("reader", capability="test.work")
    owner = account(name="Umbrella")
    mine = submit(owner, to)
    failed = submit(account(), deployment(capability="text.analyze", queue="other"), input={"text": "a"})
    lifecycle.fail(claim(failed), code=ErrorCode.TIMEOUT, message="No.")

    assert found(model="reader") == {mine.pk}
    assert found(capability="text.analyze") == {failed.pk}
    assert found(code="timeout") == {failed.pk}
    assert found(account=str(owner.pk)) == {mine.pk}
    assert found(account=str(owner.pk), code="timeout") == set()
    assert found(model="nobody") == set()


def test_times_are_from_a_moment_until_before_another():
    task = task_that_is(Status.SUCCEEDED)
    before, after = (now() - timedelta(hours=1)).isoformat(), (now() + timedelta(hours=1)).isoformat()

    assert found(created_from=before, created_to=after, ended_from=before, ended_to=after) == {task.pk}
    for params in ({"created_from": after}, {"created_to": before}, {"ended_from": after}, {"ended_to": before}):
        assert found(**params) == set(), params
    assert found(created_from=before[:10]) == {task.pk}


def test_a_search_finds_an_id_or_how_it_begins_in_any_spelling():
    task = submit()
    public = public_id(task.pk)
    bare, hexes = public.removeprefix("task_"), task.pk.hex

    for term in (
        public, public.upper(), f"  {public}\n", public[:12], public[:6].upper(), "task_0", bare, bare[:9],
        bare.upper(), str(task.pk), str(task.pk)[:14], str(task.pk)[:9], str(task.pk).upper(), hexes, hexes[:8],
    ):  # fmt: skip
        assert found(q=term) == {task.pk}, term
    other = "1" if hexes[7] == "0" else "0"
    assert found(q=hexes[:7] + other) == set()
    assert found(q="task_7zzz") == set()


def test_a_search_finds_a_reference_metadata_or_an_account():
    task = submit(account(name="Umbrella Corp"), client_reference="0123456789", metadata={"order": "A=7", "x": "y"})
    submit(account(name="Acme"), client_reference="order-170", metadata={"order": "A"})

    for term in ("0123456789", "order=A=7", " order = A=7 ", "x=y", "umbrella", "CORP"):
        assert found(q=term) == {task.pk}, term
    for term in ("012345678", "order=", "=", "order-17", "A=7", "%", "\x00", "task_", "task_nonsense"):
        assert task.pk not in found(q=term) or term == "task_", term


def test_a_search_with_an_equals_sign_is_for_a_reference_that_has_it_or_for_metadata_with_any_spaces():
    referred = submit(client_reference="b3JkZXItMTc=", metadata={"b3JkZXItMTc": ""})
    spaced = submit(metadata={"order ": " 7"})
    bare = submit(metadata={"order": "7"})

    assert found(q="b3JkZXItMTc=") == {referred.pk}
    assert found(q="order = 7") == {spaced.pk, bare.pk}
    assert found(q="order=7") == {bare.pk}


def test_a_value_that_means_nothing_means_no_task():
    submit()

    for name in set(PARAMETERS) - {"q", "model", "capability", "queue"}:
        for value in ("nonsense", "\x00", "9" * 400, "-1", "0001-01-01", "9999-12-31T23:59:59+14:00", "💥"):
            assert found(**{name: value}) == set()
            assert unreadable({name: value}) == [name]


def test_what_is_empty_or_unknown_narrows_nothing():
    task = submit()

    assert found(status="", q=" ", other="x") == {task.pk}
    assert unreadable({"status": " ", "other": "x"}) == []


def test_a_prefix_is_a_span_of_ids():
    ((first, last),) = id_spans("task_01k")

    assert public_id(first) == "task_01k" + "0" * 23
    assert public_id(last) == "task_01k" + "z" * 23
    assert id_spans("01") == []
    assert id_spans("task_8") == []
