"""A card's prices through time: new versions are looked at, then written; what has not begun can be withdrawn."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import pytest
from django.urls import reverse
from django.utils import timezone

from billing.models import Price
from billing.ratecards import New, NotToCome, in_force, withdraw, write_versions, written
from tasks import lifecycle, submission
from tests.admin.people import at_once, history, member, page_url, root, told
from tests.builders import account, claim, deployment, request, submit

pytestmark = pytest.mark.django_db


def url_of(card):
    return reverse("admin:billing_ratecard_versions", args=[card.pk])


def look(person, card, **prices):
    """The page that shows what these new credits change, and what to send to write them."""
    fields = {f"credits-{meter}": credits_ for meter, credits_ in prices.items() if meter not in ("date", "time")}
    begin = {"effective_from_0": prices.get("date", ""), "effective_from_1": "00:00:00" if "date" in prices else ""}
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


def test_a_price_to_come_is_withdrawn_by_writing_over_it():
    to, person = deployment(prices=(("task", "2"),)), root()
    write(person, to.rate_card, task="9", date=tomorrow())
    coming = Price.objects.get(credits=9)

    answer = person.do(coming, "withdraw", reason="a typo")

    assert in_force(to.rate_card_id, at=coming.effective_from)["task"].credits == 2
    assert "Withdrew task" in told(answer)[0]
    states = [row[1] for row in person.get(page_url(to.rate_card)).context["timeline"][0].rows]
    assert ["to come" in states[0], "written over" in states[1], "in force" in states[2]] == [True] * 3
    with pytest.raises(NotToCome):
        withdraw(coming.pk)


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
