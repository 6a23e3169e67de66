"""A card's prices through time: new versions are looked at, then written; what has not begun can be withdrawn."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from billing.models import Price, PriceWithdrawal, RateCard
from billing.ratecards import FromThePast, New, NotToCome, in_force, withdraw, write_versions, written
from billing.statements import rows
from tasks import lifecycle, submission
from tasks.foretelling import PRICE
from tasks.sql import load
from tests.admin.people import at_once, history, list_url, member, page_url, root, told
from tests.builders import account, claim, deployment, request, submit

pytestmark = pytest.mark.django_db


def url_of(card):
    return reverse("admin:billing_ratecard_versions", args=[card.pk])


def look(person, card, **prices):
    """The page that shows what these new credits change, and what to send to write them."""
    fields = {f"credits-{meter}": credits_ for meter, credits_ in prices.items() if meter not in ("date", "time")}
    time = prices.get("time", "00:00:00" if "date" in prices else "")
    begin = {"effective_from_0": prices.get("date", ""), "effective_from_1": time}
    given = {"key": str(uuid4()), "reason": "costs rose", **fields, **begin}
    page = person.client.post(url_of(card), {**given, "look": "1"})
    return page, given | {"agreed": page.context["form"]["agreed"].value() or ""}


def write(person, card, **prices):
    _, given = look(person, card, **prices)
    return person.client.post(url_of(card), {**given, "write": "1"}, follow=True)


def tomorrow() -> str:
    return (timezone.now() + timedelta(days=1)).strftime("%Y-%m-%d")


def test_what_changes_is_shown_before_it_is_written():
    to, person = deployment(prices=(("task", "2"), ("output_tokens", "1"))), root()
    task = submit(account("100"), to, input={"usage": {"output_tokens": 8}})
    lifecycle.succeed(claim(task), output=None, usage={"output_tokens": 8}, warnings=[])
    submit(account(), to)

    page, _ = look(person, to.rate_card, output_tokens="1.5", task="2")

    [row] = page.context["changes"].rows
    assert row[0] == "output_tokens"
    assert row[3] == "+50.0 %"
    assert page.context["examples"].rows == [[to.name, "the median of 1", "10.0000", "14.0000", "+40.0 %"]]
    assert page.context["touched"].endswith("1 unfinished tasks keep the prices they were quoted with.")
    assert Price.objects.filter(rate_card=to.rate_card).count() == 2


def test_several_meters_are_written_at_once_and_quoted_tasks_keep_theirs():
    to, person = deployment(prices=(("task", "2"),)), root()
    before = submit(account(), to)

    answer = write(person, to.rate_card, task="3", characters="0.25")

    prices = in_force(to.rate_card_id)
    assert {meter: price.credits for meter, price in prices.items()} == {"task": 3, "characters": Decimal("0.25")}
    assert told(answer) == [f"{to.rate_card}: 2 new prices."]
    assert history(to.rate_card)[0].endswith("Reason: costs rose")
    assert [rate["credits"] for rate in before.quote["rates"]] == ["2.0000000000"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": "-1"}, {"task": "1e30"}, {"task": "NaN"}, {"task": "\x00"}, {"task": ""}, {"task": "2"},
        {"task": "3", "date": "2020-01-01"}, {"task": "3", "date": "9999-99-99"}, {"task": "3", "date": "\x00"},
    ],
)  # fmt: skip
def test_prices_that_make_no_sense_are_errors_of_the_form(wrong):
    to, person = deployment(prices=(("task", "2"),)), root()

    answer = write(person, to.rate_card, **wrong)

    assert answer.status_code == 200
    assert answer.context["form"].errors
    assert Price.objects.filter(rate_card=to.rate_card).count() == 1


def test_nothing_is_written_that_was_not_looked_at():
    to, person = deployment(prices=(("task", "2"),)), root()
    _, given = look(person, to.rate_card, task="3")

    other = person.client.post(url_of(to.rate_card), {**given, "credits-task": "300", "write": "1"})

    assert other.context["changed"]
    assert Price.objects.filter(rate_card=to.rate_card).count() == 1


def test_who_writes_second_is_shown_what_the_first_wrote():
    to, person = deployment(prices=(("task", "2"),)), root()
    _, one = look(person, to.rate_card, task="3")
    _, other = look(person, to.rate_card, task="4")

    person.client.post(url_of(to.rate_card), {**one, "write": "1"})
    answer = person.client.post(url_of(to.rate_card), {**other, "write": "1"})

    assert answer.context["changed"]
    assert answer.context["changes"].rows[0][1].startswith("3 credits")
    assert in_force(to.rate_card_id)["task"].credits == 3


@pytest.mark.django_db(transaction=True)
def test_two_at_once_leave_one_version_and_one_hears_of_the_other():
    to, person = deployment(prices=(("task", "2"),)), root()
    forms = [look(person, to.rate_card, task=credits_, date=tomorrow())[1] for credits_ in ("3", "4")]

    answers = at_once(2, lambda: person.again().client.post(url_of(to.rate_card), {**forms.pop(), "write": "1"}))

    assert sorted(answer.status_code for answer in answers) in ([200, 302], [302, 302])
    assert Price.objects.filter(rate_card=to.rate_card).count() == 2


def coming(card, credits_, *, days):
    """A price of this card's `task` that begins in so many days."""
    begin = timezone.now() + timedelta(days=days)
    [price] = write_versions(
        card.pk, {"task": New(Decimal(credits_), 1)}, effective_from=begin, seen=written(card.pk)
    )  # fmt: skip
    return price


def withdrawn(price):
    return withdraw(price.pk, by="operator:root", reason="a typo")


def move_begins_back():
    """Let the withdrawn prices be such as would have begun."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_price DISABLE TRIGGER USER")
        cursor.execute(
            "UPDATE billing_price SET effective_from = now() WHERE id IN (SELECT price_id FROM billing_pricewithdrawal)"
        )
        cursor.execute("ALTER TABLE billing_price ENABLE TRIGGER USER")


def costs(card, *, days):
    found = in_force(card.pk, at=timezone.now() + timedelta(days=days, hours=1))
    return {meter: price.credits for meter, price in found.items()}


def test_a_price_to_come_is_withdrawn_and_says_by_whom_and_why():
    to, person = deployment(prices=(("task", "2"),)), root()
    price, kept = coming(to.rate_card, 9, days=1), Price.objects.get(rate_card=to.rate_card, credits=2)

    asked = person.ask(price, "withdraw")
    answer = person.do(price, "withdraw", reason="a typo")

    assert escape(str(kept)) in asked.content.decode()
    assert costs(to.rate_card, days=1) == {"task": 2}
    assert told(answer)[0].endswith(f"Then in force: {kept}.")
    assert "by operator:root: a typo" in person.get(page_url(price)).content.decode()
    states = [row[1] for row in person.get(page_url(to.rate_card)).context["timeline"][0].rows]
    assert ["withdrawn" in states[0], "in force" in states[1]] == [True] * 2
    with pytest.raises(NotToCome):
        withdrawn(price)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_prices_to_come_that_are_withdrawn_neither_begins(order):
    card = deployment(prices=(("task", "2"),)).rate_card
    prices = [coming(card, 5, days=1), coming(card, 9, days=2)]

    for place in order:
        withdrawn(prices[place])

    assert costs(card, days=2) == {"task": 2}


def test_a_withdrawn_price_does_not_begin_after_another_was_written():
    card = deployment(prices=(("task", "2"),)).rate_card
    withdrawn(coming(card, 9, days=1))

    write_versions(card.pk, {"task": New(Decimal(3), 1)}, effective_from=None, seen=written(card.pk))

    assert costs(card, days=1) == {"task": 3}


def test_the_only_price_withdrawn_leaves_none():
    card = RateCard.objects.create(name="new")

    withdrawn(coming(card, 9, days=1))

    assert costs(card, days=1) == {}


def test_no_quote_and_no_offer_goes_by_a_withdrawn_price():
    to, own = deployment(prices=(("task", "2"),)), account("10")
    task = submit(own, to)
    withdrawn(coming(to.rate_card, 9, days=1))
    move_begins_back()

    offered = submission.quote(request(own, to)).ceiling_credits
    [[listed]] = [row[-1:] for row in rows(load("catalogue"), {"name": to.name, "capability": None})]
    [[foretold]] = rows(f"SELECT {PRICE} FROM tasks_task t WHERE id = %s", [task.pk])

    assert (offered, listed["task"]["credits"], foretold) == (2, "2", 2)
    assert costs(to.rate_card, days=0) == {"task": 2}


def test_a_price_about_to_begin_is_not_withdrawn_not_even_by_hand():
    card = deployment().rate_card
    price = coming(card, 9, days=40 / 86_400)

    with pytest.raises(NotToCome):
        withdrawn(price)
    with pytest.raises(DatabaseError, match="only before it begins"), transaction.atomic():
        PriceWithdrawal.objects.create(price=price, actor="x", reason="x")


def test_the_preview_says_what_takes_over_later():
    to, person = deployment(prices=(("task", "2"),)), root()
    price = coming(to.rate_card, 9, days=1)

    page, _ = look(person, to.rate_card, task="3")

    assert page.context["changes"].rows[0][-1].startswith(f"{price} from ")


def test_a_clock_behind_the_databases_is_not_asked(time_machine):
    to, person = deployment(prices=(("task", "2"),)), root()
    begin = timezone.now() - timedelta(minutes=2)
    time_machine.move_to(begin - timedelta(minutes=3))

    answer = write(person, to.rate_card, task="3", date=f"{begin:%Y-%m-%d}", time=f"{begin:%H:%M:%S}")

    assert answer.context["form"].errors["effective_from"] == [FromThePast.message]


def test_a_price_whose_moment_has_come_while_it_was_looked_at_is_refused():
    card = deployment().rate_card

    with pytest.raises(FromThePast):
        coming(card, 9, days=-1)


def test_a_new_card_leads_to_its_first_prices():
    answer = root().client.post(reverse("admin:billing_ratecard_add"), {"name": "gold"})

    assert answer.url == url_of(RateCard.objects.get(name="gold"))


def test_a_price_in_force_is_not_withdrawn():
    to = deployment(prices=(("task", "2"),))

    answer = root().do(Price.objects.get(rate_card=to.rate_card), "withdraw")

    assert "it is not withdrawn" in told(answer)[0]
    assert Price.objects.filter(rate_card=to.rate_card).count() == 1


def test_of_two_that_begin_together_the_later_written_counts_in_quotes_too():
    to = deployment(prices=(("task", "2"),))
    for credits_ in (5, 7):
        seen = written(to.rate_card_id)
        write_versions(to.rate_card_id, {"characters": New(Decimal(credits_), 1)}, effective_from=None, seen=seen)

    offered = submission.quote(request(account(), to))

    assert in_force(to.rate_card_id)["characters"].credits == 7
    assert offered.ceiling_credits == 2


@pytest.mark.parametrize(("group", "status"), [("Operator", 403), ("Billing", 200), ("Support", 403)])
def test_who_may_write_prices(group, status):
    to, person = deployment(), member(group)

    assert person.get(url_of(to.rate_card)).status_code == status
    assert ("New prices" in person.get(page_url(to.rate_card)).content.decode()) == (status == 200)


def test_a_card_warns_of_meters_that_nobody_priced():
    to = deployment(prices=(("task", "2"),))

    [doubt] = root().get(page_url(to.rate_card)).context["doubts"]

    assert doubt.startswith(f"{to.name}: no price in force for audio_seconds")


def test_the_list_of_prices_says_how_each_stands_in_as_many_queries_for_more():
    to, person = deployment(prices=(("task", "2"),)), root()
    withdrawn(coming(to.rate_card, 9, days=1))
    coming(to.rate_card, 7, days=2)

    def read():
        with CaptureQueriesContext(connection) as queries:
            return person.get(list_url(Price)).content.decode(), len(queries)

    page, few = read()
    for days in (3, 4, 5):
        coming(to.rate_card, days, days=days)

    assert all(word in page for word in ("withdrawn", "to come", "begun"))
    assert read()[1] == few
