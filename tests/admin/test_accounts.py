"""Accounts as who bills them looks at them: found, read at a glance, stated, noted, closed."""

import csv
import io
import json
import re
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing import ledger
from billing.credentials import issue_key
from billing.models import Account, AccountNote, Transfer
from billing.twins import twin_of
from tasks import lifecycle
from tasks.admin.account import tasks_of
from tests.admin.people import act_url, list_url, member, page_url, root
from tests.admin.world import CANARY
from tests.builders import account, claim, deployment, refused, submit

pytestmark = pytest.mark.django_db
MOST_QUERIES = 15


def found(person, **asked):
    response = person.get(list_url(Account), **asked)
    assert response.status_code == 200
    return [row.name for row in response.context["cl"].result_list]


def of(row, what, **asked):
    address = reverse(f"admin:billing_account_{what}", args=[row.pk])
    return address + "?" + "&".join(f"{name}={value}" for name, value in asked.items())


def busy(name="Acme"):
    """An account with charges of two models, a refund and a task that is held."""
    owner = account("100", name=name)
    key, _ = issue_key(owner, name="production")
    small, large = deployment("small"), deployment("large", prices=(("task", "3"),))
    for to in (small, small, large):
        task = submit(owner, to, api_key_id=key.pk)
        lifecycle.succeed(claim(task), output=None, usage={}, warnings=[])
    lifecycle.refund(task.pk, Decimal("0.5"), key="r", reason="sorry", by="operator:root")
    submit(owner, small)
    owner.refresh_from_db()
    return owner


def test_an_account_is_found_by_the_beginnings_of_words_of_its_name():
    account(name="Umbrella Corp, Zürich")
    account(name="Acme")
    person = root()

    for term in ["umbrella", "CORP", "umb cor", "Umbrella-Corp", "Zür"]:
        assert found(person, q=term) == ["Umbrella Corp, Zürich"], term


def test_an_account_is_found_by_its_id_the_beginning_of_it_and_a_key():
    owner, person = account(name="Umbrella"), root()
    account(name="Acme")
    key, secret = issue_key(owner, name="ci")

    for term in (str(owner.pk), owner.pk.hex.upper(), str(owner.pk)[:24], key.prefix, key.prefix[:11], secret):
        assert "Umbrella" in found(person, q=term), term
    assert found(person, q=secret) == found(person, q=str(owner.pk)) == ["Umbrella"]


def test_a_search_that_means_nothing_finds_nothing_or_all_and_breaks_nothing():
    account(name="Umbrella")
    person = root()

    for term in ["%", "_", "'", "':*", "\x00", "a\x00", "&|!", "cf_live_%", "\\", "😀", "((", "a" * 5000]:
        assert found(person, q=term) in ([], ["Umbrella"]), term


def test_accounts_are_narrowed_by_an_operators_question():
    twin_of(account(name="plain"))
    account("3", name="low", low_balance_threshold=5)
    account(name="closed", is_active=False)
    submit(account("0", name="credit", credit_limit=5))
    submit(account(name="capped", monthly_cap="1.1"))
    submit(account(name="spent less", monthly_cap="2"))

    person = root()
    for need, name in (
        ("low", "low"), ("credit", "credit"), ("capped", "capped"), ("disabled", "closed"), ("test", "plain (test)"),
    ):  # fmt: skip
        assert found(person, need=need) == [name], need


def test_a_cap_that_was_used_in_another_month_is_not_used_now():
    owner = account(name="capped", monthly_cap="1")
    submit(owner)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_account DISABLE TRIGGER USER")
        cursor.execute("UPDATE billing_account SET month = '2020-01-01'")
        cursor.execute("ALTER TABLE billing_account ENABLE TRIGGER USER")

    person = root()

    assert found(person, need="capped") == []
    assert "cap 100 %" not in person.get(page_url(owner)).content.decode()


@pytest.mark.parametrize("asked", [{}, {"need": "low"}, {"need": "capped"}, {"need": "credit"}, {"q": "umbrella"},
                                   {"q": "cf_live_abcd"}, {"q": "01a201ca4065"}])  # fmt: skip
def test_a_list_of_accounts_reads_no_table_from_end_to_end(asked):
    person = root()
    with CaptureQueriesContext(connection) as queries:
        found(person, **asked)
    plans = []

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        for query in queries:
            if "billing_a" in query["sql"] and query["sql"].startswith("SELECT"):
                cursor.execute("EXPLAIN " + query["sql"])
                plans.append("\n".join(row[0] for row in cursor.fetchall()))

    assert plans
    assert not [plan for plan in plans if "Seq Scan" in plan]
    if asked:
        indexes = ("account_low", "account_near_cap", "account_in_credit", "account_words", "key_prefix", "pkey")
        assert all(any(name in plan for name in indexes) for plan in plans)


def test_the_last_task_of_an_account_without_any_is_looked_for_among_its_own_only():
    statement = str(tasks_of(account().pk).values("id")[:1].query)

    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("EXPLAIN " + re.sub(r"[0-9a-f-]{32,36}", lambda found: f"'{found.group()}'", statement))
        plan = "\n".join(row[0] for row in cursor.fetchall())

    assert "task_account" in plan
    assert "Sort" not in plan


def test_the_page_begins_with_balances_that_add_up():
    owner, person = busy(), root()

    with CaptureQueriesContext(connection) as queries:
        page = person.get(page_url(owner))

    text = page.content.decode()
    assert len(queries) <= MOST_QUERIES
    assert page.context["imbalance"] == []
    assert "add up to what was granted" in text
    assert [(used.used, used.most) for used in page.context["limits"]] == [
        ("0", "10"), ("1", "1000"), ("6.0000", "none"), ("0.0000", "0.0000"),
    ]  # fmt: skip
    assert 'name="_save"' not in text


def test_balances_that_do_not_add_up_raise_an_alarm():
    owner = account()
    person = root()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE billing_account DISABLE TRIGGER USER")
        cursor.execute("ALTER TABLE billing_account DROP CONSTRAINT granted_is_available_plus_held_plus_charged")
        cursor.execute("UPDATE billing_account SET available = 7 WHERE id = %s", [owner.pk])

    text = person.get(page_url(owner)).content.decode()

    assert "10.0000 credits were granted, but 7.0000 are here." in text
    assert "These do not add up." in text


def statement(person, row, **asked):
    return person.client.get(of(row, "statement", **asked))


def test_a_statement_goes_back_page_by_page_without_a_gap(monkeypatch):
    monkeypatch.setattr("billing.admin.statement.A_PAGE", 4)
    owner, person = busy(), root()

    seen, page = [], statement(person, owner)
    while True:
        seen += [row[0] for row in page.context["transfers"].rows]
        if not page.context["older"]:
            break
        page = person.client.get(page.context["older"])

    numbers = [number.split(">")[1].split("<")[0] for number in seen]
    assert numbers == [str(number) for number in range(Transfer.objects.filter(account=owner).count(), 0, -1)]


@pytest.mark.parametrize("kind", ["grant", "hold", "capture", "refund"])
def test_a_statement_of_one_kind_has_the_transfers_of_that_kind(kind):
    owner = busy()

    page = statement(root(), owner, kind=kind)

    assert len(page.context["transfers"].rows) == Transfer.objects.filter(account=owner, kind=kind).count()


def test_a_statement_of_a_frequent_kind_looks_through_so_many_and_goes_on(monkeypatch):
    monkeypatch.setattr("billing.admin.statement.LOOKED_THROUGH", 3)
    owner, person = busy(), root()

    shown, page = 0, statement(person, owner, kind="capture")
    while page.context["older"]:
        shown += len(page.context["transfers"].rows)
        page = person.client.get(page.context["older"])

    assert shown + len(page.context["transfers"].rows) == 3


NONSENSE = [
        {"since": "soon"}, {"since": "0001-01-01"}, {"until": "9999-12-31"}, {"kind": "theft"}, {"before": "-1"},
        {"before": "9" * 40}, {"since": "2026-02-02", "until": "2026-02-01"}, {"kind": "%00"}, {"since": "%00"},
    ]  # fmt: skip


def test_a_statement_that_makes_no_sense_says_so():
    owner, person = account(), root()

    for asked in NONSENSE:
        page, sheet = statement(person, owner, **asked), person.client.get(of(owner, "spreadsheet", **asked))

        assert page.status_code == 200
        assert page.context["form"].errors, asked
        assert "transfers" not in page.context
        assert (sheet.status_code, sheet["Location"].split("?")[0]) == (302, of(owner, "statement").rstrip("?"))


def test_a_statement_takes_few_queries_whatever_it_has():
    owner, person = busy(), root()

    with CaptureQueriesContext(connection) as queries:
        statement(person, owner, since="2020-01-01", until="2030-01-01")

    assert len(queries) <= MOST_QUERIES


def test_a_spreadsheet_is_a_file_that_is_sent_in_pieces_and_adds_up():
    owner = busy(name="Acme & Söhne")

    answer = root().client.get(of(owner, "spreadsheet"))
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode("utf-8-sig"))))

    assert (answer.streaming, answer["Content-Type"]) == (True, "text/csv; charset=utf-8")
    assert answer["Content-Disposition"].startswith('attachment; filename="statement-acme-sohne-')
    moves = rows[1:-1]
    for name in ("granted", "available", "held", "charged"):
        assert sum(Decimal(move[f"{name}_change"]) for move in moves) == getattr(owner, name)
        assert Decimal(rows[-1][f"{name}_after"]) == getattr(owner, name)


@pytest.mark.parametrize("what", ["statement", "spreadsheet", "usage"])
def test_a_statement_is_for_whoever_may_see_transfers(what):
    owner, person = account(), member("Support")

    assert person.client.get(of(owner, what)).status_code == 200
    person.user.groups.clear()

    assert person.client.get(of(owner, what)).status_code == 403
    missing = of(owner, what).replace(str(owner.pk), "01a201ca-4065-7021-b81f-6167bd7b4c92")
    assert root().client.get(missing).status_code == 404


@pytest.mark.parametrize("days", [30, 90])
def test_the_bars_the_table_and_the_balance_are_the_same_credits(days):
    owner = busy()

    page = root().client.get(of(owner, "usage", days=days))

    bars, usage = json.loads(page.context["chart"]), page.context["usage"]
    drawn = {bar["label"]: sum(bar["data"]) for bar in bars["datasets"]}
    assert len(bars["labels"]) == days
    assert drawn == {"large": 2.5, "small": 2.0}
    assert usage.total == sum(usage.by_model.values()) == sum(usage.by_key.values()) == owner.charged == Decimal("4.5")
    assert page.context["models"].rows == [["large", 1, "2.5000"], ["small", 2, "2.0000"], ["All", 3, "4.5000"]]
    assert [row[1] for row in page.context["keys"].rows] == ["4.5000"]


def test_many_models_share_a_last_bar_and_nothing_is_lost(monkeypatch):
    monkeypatch.setattr("tasks.admin.usage.COLOURS", ("#111111",))
    owner = busy()

    page = root().client.get(of(owner, "usage"))

    [bar] = json.loads(page.context["chart"])["datasets"]
    assert (bar["label"], sum(bar["data"])) == ("Other models", 4.5)


def test_usage_alone_and_as_a_part_of_the_page_takes_few_queries():
    owner, person = busy(), root()

    for headers in ({}, {"HX-Request": "true"}):
        with CaptureQueriesContext(connection) as queries:
            page = person.client.get(of(owner, "usage", days="x"), headers=headers)
        assert len(queries) <= MOST_QUERIES
        assert ("<html" in page.content.decode()) == (not headers)


@pytest.mark.parametrize(("act", "amount", "shown"), [
    ("grant", "2.5", ["10.0000", "+2.5000", "12.5000"]),
    ("adjust", "-4", ["10.0000", "-4.0000", "6.0000"]),
    ("grant", "", ["10.0000", "-", "10.0000"]),
    ("grant", "1e99", ["10.0000", "-", "10.0000"]),
])  # fmt: skip
def test_the_balance_after_is_told_while_the_amount_is_typed(act, amount, shown):
    owner = account("10")

    answer = root().client.get(act_url(owner, act), {"amount": amount, "ids": owner.pk}, headers={"HX-Request": "1"})

    assert answer.context["facts"].rows[0][1:4] == shown
    assert Account.objects.get().available == 10


def test_an_adjustment_that_would_be_refused_says_so_before_it_is_sent():
    owner = account("10")

    answer = root().client.get(
        act_url(owner, "adjust"), {"amount": "-10.0001", "ids": owner.pk}, headers={"HX-Request": "1"}
    )

    assert "below the credit limit: refused" in answer.content.decode()


def test_a_note_is_shown_to_everybody_and_written_once():
    owner, person = account(), member("Operator")
    page = person.ask(owner, "write-note")

    for _ in range(2):
        person.send(owner, "write-note", page, reason=f"Pays late. {CANARY}")

    [note] = AccountNote.objects.all()
    assert (note.text, note.author) == (f"Pays late. {CANARY}", "operator:one-of-operator")
    text = member("Support").get(page_url(owner)).content.decode()
    assert "Pays late. &lt;script&gt;" in text
    assert CANARY not in text


def test_a_note_that_says_nothing_or_too_much_is_an_error_of_the_form():
    owner, person = account(), root()
    page = person.ask(owner, "write-note")

    for text in ("", "   ", "x" * 2001, "a\x00b"):
        assert person.send(owner, "write-note", page, reason=text).context["form"].errors
    assert not AccountNote.objects.exists()


def test_a_note_is_never_changed_deleted_or_empty():
    note = AccountNote.objects.create(account=account(), author="operator:root", text="x")

    with refused("CF001", "no_update"):
        AccountNote.objects.update(text="y")
    with refused("CF001", "no_delete"):
        note.delete()
    with refused("23514", "a_note_says_something"):
        AccountNote.objects.create(account=note.account, author="operator:root", text="")
    with refused("23514", "a_note_can_be_read_at_once"):
        AccountNote.objects.create(account=note.account, author="operator:root", text="x" * 2001)


@pytest.mark.parametrize("group", ["Operator", "Billing", "Support"])
def test_notes_are_written_by_whoever_acts(group):
    owner, person = account(), member(group)

    offered = "Write a note" in person.get(page_url(owner)).content.decode()

    assert offered == (person.ask(owner, "write-note").status_code == 200) == (group != "Support")


def test_disabling_shows_whom_it_meets_and_leads_to_the_tasks_that_go_on():
    owner, to = account("10"), deployment()
    issue_key(owner, name="ci")
    issue_key(twin_of(owner)[0], name="rehearsals")
    claim(submit(owner, to))
    submit(owner, to)
    submit(owner, to)

    [row] = root().ask(owner, "disable").context["facts"].rows

    assert row[:3] == ["Acme", 1, 1]
    assert f"account={owner.pk}&amp;status=queued" in row[3]
    assert ">2</a>" in row[3]
    assert ">1</a>" in row[4]


def test_a_hostile_name_is_text_on_every_page_of_the_account():
    owner = account(name=f"Acme {CANARY}")
    ledger.adjust(owner.pk, Decimal(1), key="x", reason=CANARY, actor=f"operator:{CANARY}")
    person = root()

    for address in (page_url(owner), of(owner, "statement"), of(owner, "usage"), list_url(Account)):
        assert CANARY not in person.client.get(address).content.decode(), address
