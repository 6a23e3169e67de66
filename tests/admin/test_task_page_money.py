"""A task's page explains its charge: each line worked out, each equation with its numbers, an alarm if one is false."""

import re
from decimal import Decimal
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.urls import reverse

from billing.models import Charge, Transfer, UsageLine
from tasks import lifecycle
from tasks.admin.task_page import timeline
from tasks.admin.task_page.money import money, sums_of
from tasks.models import Task
from tasks.statuses import Status
from tests.admin.people import GROUPS, Person, list_url, member, page_url, root
from tests.builders import account, claim, deployment, submit, task_that_is

pytestmark = pytest.mark.django_db

NAMES = [
    "Sum of the lines = charged", "Charged ≤ quoted", "Held = charged + released", "Refunded ≤ charged",
    "Charged - refunded = net", "Charged = due for its usage and end",
]  # fmt: skip


def priced(*prices, **fields):
    return deployment(prices=prices, **fields)


def done(to, bound, used, **fields):
    task = submit(account("10000"), to, input={"bound": bound})
    lifecycle.succeed(claim(task), output=None, usage={m: Decimal(q) for m, q in used.items()}, warnings=[], **fields)
    return task


def of(task):
    """The task's money as its page has it."""
    task = Task.objects.get(pk=task.pk)
    task.charge = Charge.objects.filter(pk=task.pk).first()
    return money(task, transfers=timeline.read(task, answers=False).rows["transfers"])


def words(page):
    """The text of the page's charge, as a reader sees it."""
    section = page[page.index('id="task-money"') :]
    section = section[: section.index("</section>")]
    return " ".join(re.sub(r"<[^>]+>", "", section).replace("\N{MULTIPLICATION SIGN}", "x").split())


def page_of(task):
    return root().get(page_url(task)).content.decode()


@pytest.mark.parametrize(
    ("price", "size", "quantity", "said"),
    [
        ("3.75", 1000, 333, "333 tokens / 1,000 x 3.75 = 1.24875, rounded up by 0.00005, half to even: 1.2488 listed"),
        (
            "3.75",
            1000,
            331,
            "331 tokens / 1,000 x 3.75 = 1.24125, rounded down by 0.00005, half to even: 1.2412 listed",
        ),
        ("1", 3, 1, "1 token / 3 x 1 = 0.333333333333…, rounded down by 0.000033333333…: 0.3333 listed"),
        ("2", 1, 3, "3 tokens x 2 = 6, exactly 6.0000 listed"),
        ("0.0000000001", 1, 1, "1 token x 0.0000000001 = 0.0000000001, rounded down by 0.0000000001: 0.0000 listed"),
    ],
)
def test_a_line_says_how_its_amount_comes_about(price, size, quantity, said):
    task = done(priced(("input_tokens", price, size)), {"input_tokens": 1000}, {"input_tokens": quantity})

    assert said in words(page_of(task))


def test_a_line_names_its_price_and_since_when_and_how_it_was_measured():
    to = priced(("input_tokens", "2"), ("output_tokens", "1"))
    task = done(to, {"input_tokens": 9, "output_tokens": 9}, {"input_tokens": 3, "output_tokens": 1},
                estimated=frozenset({"output_tokens"}))  # fmt: skip
    first = UsageLine.objects.select_related("price").get(task_id=task.pk, position=0)

    text = words(page := page_of(task))

    assert f"/price/{first.price_id}/change/" in page
    assert first.price.effective_from.isoformat() in page
    assert "as reported, at the price 2 credits per token in effect from" in text
    assert "estimated, at the price 1 credit per token" in text


def test_what_the_quote_cuts_is_said():
    task = done(priced(("task", "1"), ("input_tokens", "2")), {"input_tokens": 2}, {"input_tokens": 10})

    assert "16.0000 cut, because the usage lists for more than the quote: 4.0000 billed" in words(page_of(task))
    assert not of(task).alarm


def test_a_free_rerun_lists_and_bills_nothing():
    first = done(priced(("input_tokens", "2")), {"input_tokens": 9}, {"input_tokens": 3})
    again = lifecycle.rerun_free(first.pk, by="operator:ann", reason="our fault")
    task = Task.objects.get(pk=again.task_id)
    lifecycle.succeed(claim(task), output=None, usage={"input_tokens": Decimal(3)}, warnings=[])

    told = of(task)

    assert "free rerun: 6.0000 not billed" in words(page_of(task))
    assert ([line.cut for line in told.lines], told.charged, told.alarm) == ([Decimal(0)], Decimal(0), False)


def partly():
    to = priced(("input_tokens", "2"), bills_partial_output=True)
    task = submit(account("10000"), to, input={"bound": {"input_tokens": 9}})
    lifecycle.publish(claim(task), offset=0, text="word", usage={"input_tokens": Decimal(3)})
    lifecycle.cancel(task.pk, by="operator:ann")
    return task


def refunded():
    task = done(priced(("task", "5")), {}, {})
    for _ in range(3):
        lifecycle.refund(task.pk, Decimal("0.5"), key=str(uuid4()), reason="r", by="operator:ann")
    return task


@pytest.mark.parametrize(
    ("make", "shown"),
    [
        (submit, ["0.0000 = 0.0000", "0.0000 ≤ 1.0000", "1.0000 = 0.0000 + 0.0000 + 1.0000", "0.0000 ≤ 0.0000",
                  "0.0000 - 0.0000 = 0.0000", "0.0000 = 0.0000"]),
        (lambda: task_that_is(Status.FAILED), ["0.0000 = 0.0000", "0.0000 ≤ 1.0000", "1.0000 = 0.0000 + 1.0000",
                                               "0.0000 ≤ 0.0000", "0.0000 - 0.0000 = 0.0000", "0.0000 = 0.0000"]),
        (partly, ["6.0000 = 6.0000", "6.0000 ≤ 18.0000", "18.0000 = 6.0000 + 12.0000", "0.0000 ≤ 6.0000",
                  "6.0000 - 0.0000 = 6.0000", "6.0000 = 6.0000"]),
        (refunded, ["5.0000 = 5.0000", "5.0000 ≤ 5.0000", "5.0000 = 5.0000 + 0.0000", "1.5000 ≤ 5.0000",
                    "5.0000 - 1.5000 = 3.5000", "5.0000 = 5.0000"]),
    ],
)  # fmt: skip
def test_the_equations_hold_with_the_task_s_own_numbers(make, shown):
    told = of(make())

    assert [equation.shown for equation in told.equations] == shown
    assert all(equation.holds for equation in told.equations)


def test_sums_are_of_all_transfers_though_the_page_has_a_few(monkeypatch):
    task = refunded()
    monkeypatch.setattr(timeline, "MOST", 1)

    transfers = timeline.read(task, answers=False).rows["transfers"]

    assert len(transfers) == 1
    sums = sums_of(transfers)
    assert (sums.held, sums.captured, sums.released, sums.refunded) == (5, 5, 0, Decimal("1.5"))
    assert not of(task).alarm


def untriggered(table, change):
    """What nobody can do while the guards are on, and the constraint is."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute("ALTER TABLE billing_charge DROP CONSTRAINT refunded_never_exceeds_charged")
        cursor.execute(f"UPDATE {table} SET {change}")


@pytest.mark.parametrize(
    ("table", "change", "broken"),
    [
        ("billing_usageline", "billed_amount = 4", {NAMES[0]}),
        ("billing_usageline", "listed_amount = 7", {"line"}),
        ("billing_usageline", "quantity = 4", {"line"}),
        ("billing_usageline", "unit_price = 1, quantity = 6", {"line"}),
        ("tasks_task", "quoted = 5", {NAMES[1], NAMES[5]}),
        ("tasks_task", "waived = true", {NAMES[5]}),
        ("tasks_task", "status = 'failed', error = '{\"code\": \"capability_error\"}'", {NAMES[5]}),
        ("tasks_task", "status = 'failed', error = '{\"code\": \"timeout\"}'", {NAMES[5]}),
        ("tasks_task", """usage = '{"input_tokens": "4"}'""", {"line", NAMES[5]}),
        ("billing_transfer", "amount = 17 WHERE kind = 'hold'", {NAMES[2]}),
        ("billing_transfer", "amount = 11 WHERE kind = 'release'", {NAMES[2]}),
        ("billing_transfer", "amount = 2 WHERE kind = 'refund'", {NAMES[4]}),
        ("billing_charge", "refunded = 2", {NAMES[4]}),
        ("billing_charge", "refunded = 7", {NAMES[3], NAMES[4]}),
        ("billing_charge", "held = 1", {f"{NAMES[2]} + still held"}),
        ("billing_charge", "charged = 5", {NAMES[0], NAMES[4], NAMES[5]}),
    ],
)
def test_an_equation_that_does_not_hold_raises_an_alarm(table, change, broken):
    task = done(priced(("input_tokens", "2")), {"input_tokens": 9}, {"input_tokens": 3})
    lifecycle.refund(task.pk, Decimal(1), key="r", reason="r", by="operator:ann")
    assert not of(task).alarm

    untriggered(table, change)

    told = of(task)
    wrong = {equation.name for equation in told.equations if not equation.holds}
    assert wrong | ({"line"} if not all(line.holds for line in told.lines) else set()) == broken
    assert told.alarm


def test_an_alarm_is_seen_at_the_top_and_where_it_is():
    task = done(priced(("input_tokens", "2")), {"input_tokens": 9}, {"input_tokens": 3})
    person = root()
    sound = person.get(page_url(task)).content.decode()

    untriggered("billing_usageline", "billed_amount = 4")

    page = person.get(page_url(task)).content.decode()
    assert (sound.count('role="alert"'), page.count('role="alert"')) == (0, 2)
    assert "The books of this task do not balance" in page
    assert "Sum of the lines = charged: it does not hold" in page
    assert "<code>4.0000 ≠ 6.0000</code>" in page


def test_transfers_of_another_task_are_not_added():
    first = done(priced(("input_tokens", "2")), {"input_tokens": 9}, {"input_tokens": 3})
    refunded()

    transfers = timeline.read(first, answers=False).rows["transfers"]

    assert {transfer.task_id for transfer in transfers} == {first.pk}
    assert sums_of(transfers).captured == Transfer.objects.get(task_id=first.pk, kind="capture").amount


def somebody_who_may(*permissions):
    user = User.objects.create_user("viewer", is_staff=True)
    for permission in permissions:
        app, codename = permission.split(".")
        user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
    return Person(user)


def pages_of(person, task):
    """All that is read of a task: its page, the part that moves, what happened earlier, and its line in the list."""
    urls = [
        page_url(task),
        reverse("admin:tasks_task_live", args=[task.pk]),
        f"{reverse('admin:tasks_task_earlier', args=[task.pk])}?until=2100-01-01T00:00:00Z",
        list_url(Task),
    ]
    answers = [person.get(url) for url in urls]
    assert [answer.status_code for answer in answers] == [200] * 4
    return [answer.content.decode() for answer in answers]


def test_credits_are_for_whoever_may_see_charges_and_transfers():
    task = submit(account("77.1234"), priced(("task", "1.2345")))
    lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])
    lifecycle.refund(task.pk, Decimal("0.0451"), key="r", reason="r", by="operator:ann")
    figures = re.compile(r"\b(1\.2345|1\.1894|0\.0451|75\.8889|75\.934)|credits")

    blind, half = somebody_who_may("tasks.view_task"), member("Support")
    seen = [figures.findall(page) for page in pages_of(blind, task)]

    assert seen == [[], [], [], []]
    assert all(figures.search(page) for page in pages_of(half, task))


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_sees_what_a_task_cost(group):
    task = submit(account("77.1234"), priced(("task", "1.2345")))

    assert "1.2345 credits are held" in words(member(group).get(page_url(task)).content.decode())
