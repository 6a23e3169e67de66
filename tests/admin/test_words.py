"""One form for what every page writes: amounts, people, prices, the names of lists."""

import re
from decimal import Decimal

import pytest
from django.urls import reverse

from billing.admin.screens import amount, table, who
from billing.models import per_unit
from tasks.admin.navigation import MENU
from tests.admin.people import root
from tests.admin.world import world


@pytest.mark.parametrize(
    ("credits_", "written"),
    [
        (None, "-"),
        ("0", "0.0000"),
        ("1.5", "1.5000"),
        ("-1234567.8901", "-1,234,567.8901"),
        ("0.00000001", "0.00000001"),
    ],
)
def test_credits_have_thousands_apart_and_four_places(credits_, written):
    assert amount(credits_ and Decimal(credits_)) == written


@pytest.mark.parametrize(
    ("actor", "written"),
    [("operator:ann", "ann"), ("api_key:cf_live_x", "key cf_live_x"), ("system", "system"), ("operator:a:b", "a:b")],
)
def test_somebody_is_named_without_the_kind_that_rows_keep(actor, written):
    assert who(actor) == written


@pytest.mark.parametrize(
    ("price", "written"),
    [(("1", 1, "task"), "1 credit per task"), (("0.50", 1000, "token"), "0.5 credits per 1,000 tokens")],
)
def test_a_price_is_a_phrase(price, written):
    assert per_unit(Decimal(price[0]), *price[1:]) == written


def test_a_column_of_numbers_stands_to_the_right_and_one_with_a_word_does_not():
    rows = [(Decimal("1234.5"), "3 tokens", None), (Decimal(2), "4", None)]

    shown = table("", rows, ("a", lambda row: row[0]), ("b", lambda row: row[1]), ("c", lambda row: row[2]))

    assert shown.columns == [("a", True), ("b", False), ("c", False)]
    assert shown.cells[0] == [("1,234.5000", "a", True), ("3 tokens", "b", False), ("-", "c", False)]


@pytest.mark.django_db
def test_a_list_is_headed_by_the_name_that_the_menu_has_for_it():
    person = root()
    titles = {reverse(f"admin:{screen}_changelist"): title for _, items in MENU for title, _, screen in items}

    headed = {address: heading(person.get(address).content.decode(), address) for address in titles}

    assert headed == titles


def heading(text, address):
    """The words of the page's path that lead to this list."""
    return re.search(rf'<a href="{address}" class="align-middle[^>]*>\s*([^<]*?)\s*<', text)[1]


@pytest.mark.django_db
def test_a_history_has_as_many_pages_as_it_has():
    made, person = world(), root()
    person.do(made.done, "refund", reason="wrong language")

    text = person.get(reverse("admin:tasks_task_history", args=[made.done.pk])).content.decode()

    assert "Reason: wrong language" in text
    assert "?p=" not in text


@pytest.mark.django_db
def test_what_is_not_there_is_a_page_with_a_way_home():
    answer = root().get("/admin/nowhere/")

    assert answer.status_code == 404
    assert f'href="{reverse("admin:index")}"' in answer.content.decode()
