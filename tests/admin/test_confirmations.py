"""What an act's page shows before: exactly what will happen to each row, for what is typed, and true to the end."""

import json
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib.postgres.functions import TransactionNow
from django.urls import reverse

from billing import ledger
from billing.models import ActReport, Price, UsageLine
from tasks import lifecycle
from tasks.identifiers import public_id
from tasks.models import Callback, Task
from tasks.statuses import Status
from tests.admin.people import act_url, at_once, history, member, page_url, reported, root, told
from tests.admin.test_task_acts import charged, data_of, events, refunds
from tests.builders import account, assert_sound, claim, deployment, submit, task_that_is

pytestmark = pytest.mark.django_db(transaction=True)


# What only a button to send the form has.
SUBMIT = "x-bind:disabled"


def first(page) -> dict[str, str]:
    """The first row of what the page shows, by its headers."""
    facts = page.context["facts"]
    return dict(zip(facts.headers, facts.rows[0], strict=True))


def typed(person, task, act, **fields):
    """What the page shows when this has been typed and nothing is sent yet."""
    query = {"ids": str(task.pk)} | fields
    return person.client.get(reverse(f"admin:tasks_task_{act}"), query, headers={"HX-Request": "true"})


def dearer(task) -> None:
    """From now on the task's deployment asks 3 for a token; it was 2."""
    card = task.deployment.rate_card
    Price.objects.create(rate_card=card, meter="input_tokens", unit="token", credits=3, effective_from=TransactionNow())


def test_cancel_shows_the_hold_and_what_streamed_output_will_cost():
    to = deployment(prices=(("task", "1"), ("output_tokens", "2")), bills_partial_output=True)
    task, person = submit(account("100"), to, input={"bound": {"output_tokens": 10}}), root()
    lifecycle.publish(claim(task), text="so far", offset=0, usage={"output_tokens": Decimal(3)})

    page = person.ask(task, "cancel")
    person.send(task, "cancel", page)

    shown = first(page)
    assert (shown["Status now"], shown["Held"], shown["Released"]) == ("running", "21.0000", "15.0000")
    assert shown["Charged for what it streamed so far"] == "6.0000"
    assert ledger.Transfer.objects.get(task_id=task.pk, kind="capture").amount == 6
    assert first(person.ask(task, "cancel"))["Then"] == "Nothing: it has ended."


def test_a_rerun_shows_todays_price_and_the_balance_after_its_hold():
    task, person = charged(account("100")), root()
    dearer(task)

    page = person.ask(task, "rerun")
    person.send(task, "rerun", page)

    shown = first(page)
    assert (shown["Quoted then"], shown["Quote today"]) == ("21.0000", "31.0000")
    assert (shown["Available now"], shown["Available after the hold"]) == ("93.0000", "62.0000")
    rerun = Task.objects.get(rerun_of=task)
    assert (rerun.quoted, rerun.events.get().data["private"]) == (31, {"reason": "because"})


def test_a_rerun_at_a_price_that_nobody_saw_is_refused_and_the_new_one_shown():
    task, person = charged(account("100")), root()
    page = person.ask(task, "rerun")
    dearer(task)

    refused = person.send(task, "rerun", page)
    person.send(task, "rerun", refused)

    assert refused.context["form"].non_field_errors() == ["The price changed since you looked: 31.0000, not 21.0000."]
    assert first(refused)["Quote today"] == "31.0000"
    assert Task.objects.get(rerun_of=task).quoted == 31


def test_a_rerun_that_cannot_be_paid_is_refused_before():
    task, person = charged(account("21")), root()
    ledger.adjust(task.account_id, Decimal(-14), key="poor", reason="x", actor="test")

    page = person.ask(task, "rerun")

    why = "the available credits, 0.0000, do not cover the quote, 21.0000."
    assert (page.context["hindrance"], first(page)["Then"]) == (why, f"Refused: {why}")
    assert SUBMIT not in page.content.decode()
    assert SUBMIT in person.ask(charged(account("100")), "rerun").content.decode()


def test_a_refund_shows_the_balance_after_for_what_is_typed():
    task, person = charged(account("100")), root()
    line = UsageLine.objects.get(task_id=task.pk, meter="input_tokens")

    shown = {
        asked: (first(page)["This refund"], first(page)["Available after"])
        for asked, page in {
            "all": typed(person, task, "refund"),
            "some": typed(person, task, "refund", amount="2.5"),
            "line": typed(person, task, "refund", line=line.pk),
            "too much": typed(person, task, "refund", line=line.pk, amount="6.0001"),
        }.items()
    }
    wrong = typed(person, task, "refund", amount="x")

    assert shown == {
        "all": ("7.0000", "100.0000"),
        "some": ("2.5000", "95.5000"),
        "line": ("6.0000", "99.0000"),
        "too much": ("0.0000", "93.0000"),
    }
    assert "Enter a number." in wrong.content.decode()
    assert refunds(task) == []


def test_what_is_left_is_shown_for_each_line():
    task, person = charged(account("100")), root()
    line = UsageLine.objects.get(task_id=task.pk, meter="input_tokens")
    person.do(task, "refund", line=str(line.pk), amount="2")

    page = person.ask(task, "refund")

    assert [row[1:] for row in page.context["tables"][0].rows] == [
        ["1.0000", "0.0000", "1.0000"],
        ["6.0000", "2.0000", "4.0000"],
    ]


def test_of_two_operators_who_refund_at_once_one_wins_and_the_other_is_told():
    task, ann, bob = charged(account("100")), root(), member("Billing")
    pages = {ann: ann.ask(task, "refund"), bob: bob.ask(task, "refund")}
    seats = iter([ann, bob])

    def refund():
        person = next(seats)
        return person.again().send(task, "refund", pages[person], amount="2").content.decode()

    answers = at_once(2, refund)

    assert refunds(task) == [2]
    assert len(history(task)) == len(events(task, "task.refunded")) == 1
    told_off = [answer for answer in answers if "It changed since you looked: 5.0000 is left now, not 7.0000" in answer]
    assert len(told_off) == 1
    assert_sound(task.account)


def test_of_two_who_refund_many_the_second_has_a_report_of_what_changed():
    owner, person = account("100"), root()
    one, two = charged(owner), charged(owner)
    page = person.ask(one, "refund", two)
    lifecycle.refund(one.pk, Decimal(1), key="faster", reason="x", by="operator:ann")

    answer = person.send(one, "refund", page, two)

    said = "It changed since you looked: 6.0000 is left now, not 7.0000. Nothing was refunded."
    assert reported(answer) == sorted(
        [
            (public_id(one.pk), "refused", said),
            (public_id(two.pk), "done", "Refunded 7.0000; 94.0000 credits are available now."),
        ]
    )


def test_a_report_stays_and_tells_who_why_and_what_of_each_row():
    owner, person = account("100"), root()
    one, two = submit(owner), submit(owner)
    page = person.ask(one, "cancel", two)
    person.send(one, "cancel", page, two, reason="cleaning up")

    again = person.send(one, "cancel", page, two, reason="cleaning up")

    kept = list(ActReport.objects.order_by("pk"))
    assert [(r.done, r.refused, r.repeated, r.actor, r.reason) for r in kept] == [
        (2, 0, 0, "operator:root", "cleaning up"),
        (0, 0, 2, "operator:root", "cleaning up"),
    ]
    assert {outcome for _, outcome, _ in reported(again)} == {"repeated"}
    shown = member("Support").get(page_url(kept[0])).content.decode()
    assert (public_id(one.pk) in shown, "Canceled." in shown) == (True, True)


def test_a_deadline_is_extended_by_minutes_once_and_says_so():
    task, person = submit(), member("Operator")
    before = task.deadline

    page = typed(person, task, "extend_deadline", minutes="30")
    asked = person.ask(task, "extend_deadline")
    answer = person.send(task, "extend_deadline", asked, minutes="30", reason="slow upstream")
    late = person.send(task, "extend_deadline", asked, minutes="30", key="4d1fc3a8-9f0c-4f3c-8f0c-111111111111")

    task.refresh_from_db()
    assert task.deadline - before == timedelta(minutes=30)
    assert first(page)["Then"] == "It has 0:30:00 more."
    [event] = events(task, "task.deadline_extended")
    assert (event.actor, event.data["private"]["reason"]) == (f"operator:{person.user}", "slow upstream")
    assert told(answer)[0].startswith(f"{public_id(task.pk)}: Its deadline is ")
    assert "It changed since you looked" in late.context["form"].non_field_errors()[0]
    assert len(history(task)) == 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "Give either minutes or a moment."),
        ({"minutes": "5", "until_0": "2099-01-01", "until_1": "00:00"}, "Give either minutes or a moment."),
        ({"minutes": "999999999999"}, "Ensure this value is less than or equal to 527040."),
    ],
)
def test_a_deadline_is_given_one_way(fields, error):
    task = submit()

    answer = root().do(task, "extend_deadline", **fields)

    assert error in answer.context["form"].errors["minutes"]
    assert events(task, "task.deadline_extended") == []


@pytest.mark.parametrize("date", ["9999-12-31", "0001-01-01"])
def test_a_deadline_beyond_the_allowed_is_refused_with_a_sentence(date):
    task = submit()

    answer = root().do(task, "extend_deadline", until_0=date, until_1="23:59")

    assert "The new deadline lies after the present one" in told(answer)[0]


def test_a_priority_is_changed_and_says_from_what():
    task, person = submit(), member("Operator")

    page = typed(person, task, "change_priority", priority="9")
    answer = person.do(task, "change_priority", priority="9", reason="vip")
    again = person.do(task, "change_priority", priority="9")

    task.refresh_from_db()
    assert (task.priority, first(page)["Priority now"]) == (9, 5)
    assert told(answer) == [f"{public_id(task.pk)}: Its priority is 9 now; it was 5."]
    assert told(again) == [f"{public_id(task.pk)}: it has priority 9 already."]
    [event] = events(task, "task.priority_changed")
    assert data_of(event) == {"priority": 9, "before": 5, "private": {"reason": "vip"}}


def test_content_is_deleted_for_ever_by_whoever_is_sure():
    task, person = charged(account("100"), callback_url="https://example.com/"), member("Operator")

    unsure = person.do(task, "delete_content")
    answer = person.do(task, "delete_content", sure="on", reason="asked by the customer")

    task.refresh_from_db()
    assert "sure" in unsure.context["form"].errors
    assert first(unsure)["Callbacks that are not sent any more"] == 1
    assert (task.input, task.output, task.callbacks.get().status) == ({}, None, "failed")
    assert told(answer) == [f"{public_id(task.pk)}: Deleted its content."]
    [event] = events(task, "task.content_deleted")
    assert data_of(event) == {"private": {"reason": "asked by the customer"}}


def test_redelivery_keeps_the_reason():
    task, person = charged(account("100"), callback_url="https://example.com/"), member("Operator")
    Callback.objects.update(status="failed", last_error="no answer", attempt_count=10)

    page = person.ask(task, "redeliver")
    person.send(task, "redeliver", page, reason="receiver is back")

    shown = first(page)
    assert (shown["Callback now"], shown["Tries so far"], shown["Last error"]) == ("failed", 10, "no answer")
    [event] = events(task, "callback.redelivered")
    assert data_of(event) == {"private": {"reason": "receiver is back"}}


def test_a_page_that_asks_opens_for_a_task_of_any_status():
    tasks, person = [task_that_is(status, to=deployment(queue=status)) for status in Status], root()

    for act in ("cancel", "pause", "resume", "extend_deadline", "change_priority", "delete_content", "redeliver"):
        page = person.ask(tasks[0], act, *tasks[1:])
        assert len(page.context["facts"].rows) == len(tasks), act


def test_what_no_page_has_sent_is_no_error_of_ours():
    task, person = charged(account("100")), root()
    hostile = ["x", "[]", *(json.dumps({str(task.pk): said}) for said in ("NaN", "sNaN", "x"))]

    for act in ("refund", "rerun", "extend_deadline"):
        for seen in hostile:
            form = {"ids": str(task.pk), "key": str(uuid4()), "reason": "x", "seen": seen, "minutes": "5"}
            assert person.client.post(act_url(task, act), form).status_code in (200, 302), (act, seen)


def test_many_reruns_are_priced_in_few_questions(django_assert_max_num_queries):
    owner, person = account("1000"), root()
    to = deployment()
    rows = [task_that_is(Status.CANCELED, of=owner, to=to) for _ in range(6)]

    with django_assert_max_num_queries(15):
        person.ask(rows[0], "rerun", *rows[1:])


@pytest.mark.parametrize("data", [{"ids": "\x00"}, {"ids": "x" * 5000}, {"amount": "\x00"}, {"amount": "9" * 5000}])
def test_hostile_addresses_are_no_error_of_ours(data):
    task = charged(account("100"))

    answer = root().client.get(
        reverse("admin:tasks_task_refund"), {"ids": str(task.pk)} | data, headers={"HX-Request": "true"}
    )

    assert answer.status_code in (200, 404)
    assert json.dumps(refunds(task)) == "[]"
