"""Cancel, refund, rerun and redeliver: by whom, once, with a reason, and what is written."""

from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from billing import ledger
from billing.models import Account, Charge, Transfer, UsageLine
from tasks import lifecycle
from tasks.admin.task import TaskScreen
from tasks.identifiers import public_id
from tasks.models import Callback, Task, TaskEvent
from tasks.statuses import Status
from tests.admin.people import (
    AGAIN,
    act_url,
    at_once,
    history,
    list_url,
    member,
    page_url,
    reported,
    root,
    said_again,
    told,
)
from tests.builders import account, assert_sound, buckets, claim, deployment, submit, task_that_is

# An act commits, so that a verb that owns its transaction and a check at commit have their say.
pytestmark = pytest.mark.django_db(transaction=True)


def charged(of=None, **fields) -> Task:
    """A task that was charged 7.0000 in two lines: 1 flat, 6 for tokens."""
    to = deployment(prices=(("task", "1"), ("input_tokens", "2")))
    task = submit(of or account("100"), to, input={"bound": {"input_tokens": 10}}, **fields)
    lifecycle.succeed(claim(task), output="done", usage={"input_tokens": Decimal(3)}, warnings=[])
    task.refresh_from_db()
    return task


def refunds(task) -> list[Decimal]:
    return list(Transfer.objects.filter(task_id=task.pk, kind="refund").order_by("id").values_list("amount", flat=True))


def events(task, kind) -> list[TaskEvent]:
    return list(task.events.filter(type=kind))


def data_of(event) -> dict:
    """What the event tells, without the key of its form."""
    return event.data | {"private": {"reason": event.data["private"]["reason"]}}


def test_cancel_ends_the_task_releases_the_hold_and_writes_who_and_why():
    task, person = submit(), root()

    answer = person.do(task, "cancel", reason="duplicate")

    task.refresh_from_db()
    assert (task.status, task.cancel_reason) == ("canceled", "duplicate")
    assert buckets(task.account) == {"available": 10, "held": 0, "charged": 0}
    [event] = events(task, "task.canceled")
    assert (event.actor, event.data["reason"]) == ("operator:root", "duplicate")
    assert history(task) == ["Canceled. Reason: duplicate"]
    assert answer.redirect_chain == [(page_url(task), 302)]
    assert told(answer) == [f"{public_id(task.pk)}: Canceled."]
    assert_sound(task.account)


def test_cancel_of_a_task_that_has_ended_says_so_and_changes_nothing():
    task, person = submit(), root()
    page = person.ask(task, "cancel")
    lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])

    answer = person.send(task, "cancel", page)

    assert told(answer) == [f"{public_id(task.pk)}: it had already ended: succeeded. Nothing changed."]
    assert history(task) == []
    assert events(task, "task.canceled") == []


def test_acts_of_the_list_lead_to_the_page_that_asks_and_report_on_each_row():
    owner, person = account("100"), root()
    ended, running, queued = charged(owner), submit(owner, deployment(queue="other")), submit(owner)
    claim(running)
    chosen = [str(task.pk) for task in (queued, running, ended)]

    asked = person.client.post(
        list_url(Task), {"action": "cancel", "_selected_action": chosen, "index": 0, "select_across": 1}, follow=True
    )
    answer = person.send(queued, "cancel", asked, running, ended, reason="cleaning up")

    assert Task.objects.filter(status="canceled").count() == 2
    assert reported(answer) == sorted(
        [
            (public_id(queued.pk), "done", "Canceled."),
            (public_id(running.pk), "done", "Canceled."),
            (public_id(ended.pk), "refused", "it had already ended: succeeded. Nothing changed."),
        ]
    )
    assert "cleaning up" in person.get(answer.request["PATH_INFO"]).content.decode()
    assert_sound(owner)


@pytest.mark.django_db
def test_all_rows_across_pages_is_not_a_choice():
    owner, person = account("100"), root()
    one, other = submit(owner), submit(owner)

    asked = person.client.post(
        list_url(Task), {"action": "cancel", "_selected_action": [str(one.pk)], "index": 0, "select_across": 1}
    )

    assert str(one.pk) in asked.url
    assert str(other.pk) not in asked.url


@pytest.mark.parametrize("act", ["cancel", "refund", "redeliver", "rerun", "rerun_free"])
@pytest.mark.django_db
def test_asking_changes_nothing_and_no_act_is_without_a_reason(act):
    task, person = charged(callback_url="https://example.com/"), root()
    before = (TaskEvent.objects.count(), Transfer.objects.count(), Task.objects.count(), LogEntry.objects.count())

    for reason in ("", "   "):
        answer = person.do(task, act, reason=reason)
        assert answer.context["form"].errors["reason"] == ["This field is required."]

    after = (TaskEvent.objects.count(), Transfer.objects.count(), Task.objects.count(), LogEntry.objects.count())
    assert after == before


ALLOWED = {
    "cancel": {"Operator", "Billing"},
    "pause": {"Operator"},
    "extend_deadline": {"Operator"},
    "change_priority": {"Operator"},
    "rerun": {"Operator", "Billing"},
    "rerun_free": {"Operator", "Billing"},
    "refund": {"Billing"},
    "redeliver": {"Operator"},
    "delete_content": {"Operator"},
}
OF_UNFINISHED = {"cancel", "pause", "extend_deadline", "change_priority"}


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
@pytest.mark.django_db
def test_each_act_is_for_its_groups_only(group):
    task, person = charged(callback_url="https://example.com/"), member(group)
    queued = submit()
    offered = person.get(list_url(task)).content.decode()

    for act, groups in ALLOWED.items():
        row = queued if act in OF_UNFINISHED else task
        allowed = group in groups
        assert person.ask(row, act).status_code == (200 if allowed else 403), act
        assert (reverse(f"admin:tasks_task_{act}") in person.get(page_url(row)).content.decode()) == allowed, act
        assert (f'value="{act}"' in offered) == allowed, act
        if not allowed:
            assert person.client.post(act_url(row, act), {"reason": "x", "ids": str(row.pk)}).status_code == 403
    assert not LogEntry.objects.exists()


@pytest.mark.django_db
def test_a_form_without_its_token_is_refused():
    task, person = submit(), root()
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(person.user)
    key = person.ask(task, "cancel").context["form"]["key"].value()

    answer = strict.post(act_url(task, "cancel"), {"reason": "x", "ids": str(task.pk), "key": key})

    assert answer.status_code == 403
    task.refresh_from_db()
    assert task.status == "queued"


@pytest.mark.parametrize("ids", ["", "nonsense", "00000000-0000-0000-0000-000000000000", ",".join(["x"] * 101)])
@pytest.mark.django_db
def test_an_act_on_nothing_is_not_found(ids):
    submit()

    assert root().get(reverse("admin:tasks_task_cancel"), ids=ids).status_code == 404


@pytest.mark.django_db
def test_buttons_are_offered_where_the_act_makes_sense():
    ended, queued, person = charged(), submit(), root()

    def offered(task):
        page = person.get(page_url(task)).content.decode()
        return {act for act in ALLOWED if reverse(f"admin:tasks_task_{act}") in page}

    assert offered(queued) == OF_UNFINISHED
    assert offered(ended) == {"refund", "rerun", "rerun_free", "delete_content"}


def test_a_refund_gives_back_all_that_is_left():
    task, person = charged(), root()
    lifecycle.refund(task.pk, Decimal(2), key="before", reason="partly", by="test")

    page = person.ask(task, "refund")
    answer = person.send(task, "refund", page, reason="outage")

    shown = page.context["facts"].rows[0]
    assert shown[:5] == [public_id(task.pk), "Acme", "7.0000", "2.0000", "5.0000"]
    assert shown[5:] == ["5.0000", "95.0000", "100.0000", "The account gets it back."]
    assert refunds(task) == [2, 5]
    assert told(answer) == [f"{public_id(task.pk)}: Refunded 5.0000; 100.0000 credits are available now."]
    assert history(task) == ["Refunded 5.0000; 100.0000 credits are available now. Reason: outage"]
    transfer = Transfer.objects.get(task_id=task.pk, amount=5, kind="refund")
    assert (transfer.actor, transfer.reason) == ("operator:root", "outage")
    assert [event.actor for event in events(task, "task.refunded")] == ["test", "operator:root"]
    assert_sound(task.account)


def test_a_refund_gives_back_an_amount_or_a_line():
    task, person = charged(), root()
    line = UsageLine.objects.get(task_id=task.pk, meter="input_tokens")

    person.do(task, "refund", amount="0.5")
    person.do(task, "refund", line=str(line.pk), amount="2")
    person.do(task, "refund", line=str(line.pk))
    answer = person.do(task, "refund", line=str(line.pk))

    assert refunds(task) == [Decimal("0.5"), 2, 4]
    assert told(answer) == [f"{public_id(task.pk)}: nothing is left of input_tokens x 3."]
    assert_sound(task.account)


def test_a_form_sent_twice_refunds_once():
    task, person = charged(), root()
    page = person.ask(task, "refund")

    person.send(task, "refund", page, amount="2")
    answer = person.send(task, "refund", page, amount="2")

    assert refunds(task) == [2]
    assert told(answer) == [f"{public_id(task.pk)}: {AGAIN}"]
    assert len(history(task)) == len(events(task, "task.refunded")) == 1


def test_a_form_sent_twice_at_once_refunds_and_logs_once():
    task, person = charged(), root()
    page = person.ask(task, "refund")

    answers = at_once(4, lambda: person.again().send(task, "refund", page, amount="2"))

    assert refunds(task) == [2]
    assert len(history(task)) == len(events(task, "task.refunded")) == 1
    assert said_again(answers) == [False, True, True, True]


def test_a_form_whose_refund_was_not_logged_is_logged_when_it_is_sent_again(monkeypatch):
    task, person = charged(), root()
    page = person.ask(task, "refund")
    with monkeypatch.context() as broken:
        broken.setattr(TaskScreen, "log_change", None)
        with pytest.raises(TypeError):
            person.send(task, "refund", page, amount="2")

    person.send(task, "refund", page, amount="2")

    assert refunds(task) == [2]
    assert len(history(task)) == len(events(task, "task.refunded")) == 1


@pytest.mark.parametrize("act", ["cancel", "redeliver", "rerun", "rerun_free"])
def test_a_form_sent_twice_at_once_acts_once(act):
    task = charged(callback_url="https://example.com/") if act != "cancel" else submit()
    person, before = root(), task.events.count() + Task.objects.count()
    page = person.ask(task, act)

    answers = at_once(2, lambda: person.again().send(task, act, page))

    assert said_again(answers) == [False, True]
    assert task.events.count() + Task.objects.count() == before + 1
    assert len(history(task)) == 1


def test_two_forms_are_two_refunds():
    task, person = charged(), root()

    person.do(task, "refund", amount="2")
    person.do(task, "refund", amount="2")

    assert refunds(task) == [2, 2]


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ("7.0001", "A refund never exceeds what was charged and not yet refunded."),
        ("9999999999999999", "A refund never exceeds what was charged and not yet refunded."),
    ],
)
def test_a_refund_above_the_rest_is_refused_with_a_sentence(amount, message):
    task, person = charged(), root()

    answer = person.do(task, "refund", amount=amount)

    assert told(answer) == [f"{public_id(task.pk)}: {message}"]
    assert (refunds(task), history(task)) == ([], [])


@pytest.mark.parametrize("amount", ["0", "-1", "0.00001", "NaN", "1e30", "x"])
@pytest.mark.django_db
def test_an_amount_that_is_none_is_an_error_of_the_form(amount):
    task, person = charged(), root()

    answer = person.do(task, "refund", amount=amount)

    assert "amount" in answer.context["form"].errors
    assert refunds(task) == []


@pytest.mark.django_db
def test_a_line_of_another_task_is_no_choice():
    task, other, person = charged(), charged(account("50")), root()
    foreign = UsageLine.objects.filter(task_id=other.pk).first()

    answer = person.do(task, "refund", line=str(foreign.pk))

    assert "line" in answer.context["form"].errors
    assert refunds(task) == refunds(other) == []


def test_a_free_task_has_nothing_to_refund():
    task, person = task_that_is(Status.FAILED), root()

    answer = person.do(task, "refund")

    assert told(answer) == [f"{public_id(task.pk)}: Nothing was charged, so nothing can be refunded."]


def test_several_tasks_are_refunded_whole():
    owner, person = account("100"), root()
    first, second, free = charged(owner), charged(owner), task_that_is(Status.CANCELED, of=owner)

    page = person.ask(first, "refund", second, free)
    answer = person.send(first, "refund", page, second, free, amount="1")

    assert "amount" not in page.context["form"].fields
    assert sorted(row[-2] for row in page.context["facts"].rows) == ["100.0000", "86.0000", "93.0000"]
    assert refunds(first) == refunds(second) == [7]
    assert [outcome for _, outcome, _ in reported(answer)].count("refused") == 1
    assert buckets(owner)["available"] == 100


@pytest.mark.django_db
def test_an_act_on_many_rows_asks_few_questions(django_assert_max_num_queries):
    owner, person = account("1000"), root()
    rows = [charged(owner) for _ in range(8)]

    with django_assert_max_num_queries(15):
        person.ask(rows[0], "refund", *rows[1:])


def test_a_rerun_is_a_new_task_once_a_form():
    task, person = charged(), root()
    page = person.ask(task, "rerun")

    answer = person.send(task, "rerun", page, reason="customer asked")
    again = person.send(task, "rerun", page, reason="customer asked")

    rerun = Task.objects.get(rerun_of=task)
    assert (rerun.status, rerun.input, rerun.account_id) == ("queued", task.input, task.account_id)
    assert rerun.events.get().actor == "operator:root"
    assert told(answer) == [f"{public_id(task.pk)}: Submitted again as {public_id(rerun.pk)}."]
    assert told(again) == [f"{public_id(task.pk)}: {AGAIN}"]
    assert history(task) == [f"Submitted again as {public_id(rerun.pk)}. Reason: customer asked"]


def test_a_free_rerun_costs_nothing_and_says_who_gave_it_and_why():
    task, person = charged(account("21")), root()
    ledger.adjust(task.account_id, Decimal(-14), key="poor", reason="x", actor="test")

    answer = person.do(task, "rerun_free", reason="our fault")

    rerun = Task.objects.get(rerun_of=task)
    assert (rerun.waived, rerun.quoted, rerun.events.get().actor) == (True, 0, "operator:root")
    assert told(answer) == [f"{public_id(task.pk)}: Submitted again, free of charge, as {public_id(rerun.pk)}."]
    assert history(task) == [f"Submitted again, free of charge, as {public_id(rerun.pk)}. Reason: our fault"]


def test_a_rerun_that_is_refused_says_why():
    poor, running, person = charged(account("21")), submit(), root()
    ledger.adjust(poor.account_id, Decimal(-14), key="poor", reason="x", actor="test")

    first = person.do(poor, "rerun")
    second = person.do(running, "rerun")

    assert told(first) == [f"{public_id(poor.pk)}: The available credits do not cover the quote."]
    assert told(second) == [f"{public_id(running.pk)}: The task, or its newest rerun, has not ended yet."]
    assert Task.objects.count() == 2


def test_redelivery_makes_the_callback_due_again():
    task, person = charged(callback_url="https://example.com/"), root()
    Callback.objects.update(status="failed", tries_left=0, next_attempt_at=None)

    answer = person.do(task, "redeliver", reason="receiver was down")

    callback = task.callbacks.get()
    assert (callback.status, callback.tries_left > 0) == ("pending", True)
    assert told(answer) == [f"{public_id(task.pk)}: Its callback is due again."]
    assert history(task) == ["Its callback is due again. Reason: receiver was down"]
    assert [event.actor for event in events(task, "callback.redelivered")] == ["operator:root"]


def test_redelivery_without_a_callback_is_refused():
    task, person = charged(), root()

    answer = person.do(task, "redeliver")

    assert told(answer) == [f"{public_id(task.pk)}: The task has no callback."]


def test_no_act_moves_a_balance_without_a_transfer():
    task, person = charged(), root()

    for act in ("refund", "rerun", "cancel"):
        person.do(task, act)

    assert_sound(task.account)
    assert Charge.objects.get(task_id=task.pk).refunded == 7
    assert Account.objects.get(pk=task.account_id).account_seq == Transfer.objects.filter(account=task.account).count()


def test_pause_and_resume_say_who_and_why():
    task, person = submit(), member("Operator")

    paused = person.do(task, "pause", reason="maintenance")
    repeated = person.do(task, "pause")
    resumed = person.do(task, "resume", reason="done")

    shown = public_id(task.pk)
    assert [told(answer) for answer in (paused, repeated, resumed)] == [
        [f"{shown}: Paused."],
        [f"{shown}: it is paused already."],
        [f"{shown}: Resumed."],
    ]
    [event] = events(task, "task.paused")
    assert data_of(event) == {"private": {"reason": "maintenance"}}
    assert history(task) == ["Paused. Reason: maintenance", "Resumed. Reason: done"]
    assert member("Support").ask(task, "pause").status_code == 403


def test_a_deployment_is_drained_and_resumed_with_its_history():
    to, person = deployment(), member("Operator")

    drained = person.do(to, "drain", reason="the upstream is down")
    to.refresh_from_db()
    at = to.drained_at
    resumed = person.do(to, "resume", reason="it is back")

    to.refresh_from_db()
    assert [told(answer) for answer in (drained, resumed)] == [[f"{to}: Drained."], [f"{to}: Resumed."]]
    assert (at is not None, to.drained_at) == (True, None)
    assert history(to) == ["Drained. Reason: the upstream is down", "Resumed. Reason: it is back"]
    assert member("Billing").ask(to, "drain").status_code == 403
