"""The audit: it holds on honest books, and finds every row and every guard that was tampered with."""

import json
import threading
from decimal import Decimal
from io import StringIO
from uuid import uuid4

import pgtrigger
import pytest
from django.core.management import call_command
from django.db import transaction
from uuid_utils.compat import uuid7

from billing import audit, ledger
from tests.billing.builders import TABLES, WHY, at_once, charged, held, line_ids, run_sql
from tests.builders import account

GUARDS = sorted((model._meta.db_table, trigger.get_pgid(model)) for model, trigger in pgtrigger.registered())

# What is done to the books with every guard off, the check that finds it, and the row it names.
TAMPERED = {
    "UPDATE billing_account SET granted = granted + 1 WHERE id = '%(mine)s'": ("accounts_balance", "mine"),
    "UPDATE billing_account SET available = available - 1 WHERE id = '%(mine)s'": ("accounts_balance", "mine"),
    "UPDATE billing_account SET held = held + 1 WHERE id = '%(mine)s'": ("accounts_balance", "mine"),
    "UPDATE billing_account SET charged = charged + 1 WHERE id = '%(mine)s'": ("accounts_balance", "mine"),
    "UPDATE billing_account SET granted = 'NaN', available = 'NaN' WHERE id = '%(mine)s'": ("accounts_balance", "mine"),
    "UPDATE billing_account SET granted = granted + 1, available = available + 1 WHERE id = '%(mine)s'": (
        "balances_are_sums",
        "mine",
    ),
    "UPDATE billing_account SET account_seq = account_seq + 1 WHERE id = '%(mine)s'": ("balances_are_sums", "mine"),
    "UPDATE billing_account SET held = held + 1, available = available - 1 WHERE id = '%(mine)s'": (
        "accounts_hold_for_tasks",
        "mine",
    ),
    "UPDATE billing_account SET charged = charged + 1, available = available - 1 WHERE id = '%(mine)s'": (
        "accounts_hold_for_tasks",
        "mine",
    ),
    "UPDATE billing_transfer SET amount = amount + 1 WHERE id = %(grant)s": ("balances_are_sums", "mine"),
    "UPDATE billing_transfer SET amount = 'NaN' WHERE id = %(grant)s": ("transfers_are_of_a_kind", "grant"),
    "UPDATE billing_transfer SET amount = -amount WHERE id = %(grant)s": ("transfers_are_of_a_kind", "grant"),
    "UPDATE billing_transfer SET kind = 'adjustment' WHERE id = %(hold)s": ("transfers_are_of_a_kind", "hold"),
    "UPDATE billing_transfer SET kind = 'gift' WHERE id = %(grant)s": ("transfers_are_of_a_kind", "grant"),
    "UPDATE billing_transfer SET key = 'other' WHERE id = %(hold)s": ("transfers_are_of_a_kind", "hold"),
    "UPDATE billing_transfer SET reason = '' WHERE id = %(refund)s": ("transfers_are_of_a_kind", "refund"),
    "UPDATE billing_transfer SET task_id = NULL WHERE id = %(refund)s": ("transfers_are_of_a_kind", "refund"),
    "UPDATE billing_transfer SET usage_line_id = %(line)s WHERE id = %(hold)s": ("transfers_are_of_a_kind", "hold"),
    "UPDATE billing_transfer SET account_seq = account_seq + 9 WHERE id = %(hold)s": ("transfers_are_numbered", "mine"),
    "UPDATE billing_transfer SET account_seq = 0 WHERE id = %(grant)s": ("transfers_are_numbered", "grant"),
    "DELETE FROM billing_transfer WHERE id = %(hold)s": ("transfers_are_numbered", "mine"),
    "UPDATE billing_transfer SET granted_after = granted_after + 1 WHERE id = %(hold)s": ("transfers_follow", "hold"),
    "UPDATE billing_transfer SET available_after = 0 WHERE id = %(hold)s": ("transfers_follow", "hold"),
    "UPDATE billing_transfer SET held_after = 0 WHERE id = %(hold)s": ("transfers_follow", "hold"),
    "UPDATE billing_transfer SET charged_after = 1 WHERE id = %(hold)s": ("transfers_follow", "hold"),
    "UPDATE billing_transfer SET amount = amount + 1 WHERE id = %(hold)s": ("charges_are_sums", "task"),
    "UPDATE billing_transfer SET task_id = '%(holding)s' WHERE id = %(refund)s": ("charges_are_sums", "task"),
    "UPDATE billing_charge SET held = held + 1 WHERE task_id = '%(task)s'": ("charges_are_sums", "task"),
    "UPDATE billing_charge SET charged = charged + 1 WHERE task_id = '%(task)s'": ("charges_are_sums", "task"),
    "UPDATE billing_charge SET refunded = 0 WHERE task_id = '%(task)s'": ("charges_are_sums", "task"),
    "UPDATE billing_charge SET task_id = '%(free)s' WHERE task_id = '%(task)s'": ("charges_are_sums", "task"),
    "DELETE FROM billing_charge WHERE task_id = '%(task)s'": ("charges_are_sums", "task"),
    "INSERT INTO billing_charge SELECT '%(free)s', 0, 0, 0, now(), '%(mine)s'": ("charges_are_sums", "free"),
    "UPDATE billing_charge SET refunded = 7 WHERE task_id = '%(task)s'": ("refunds_are_covered", "task"),
    "UPDATE billing_charge SET charged = 'NaN' WHERE task_id = '%(task)s'": ("refunds_are_covered", "task"),
    "UPDATE billing_charge SET held = -1 WHERE task_id = '%(task)s'": ("refunds_are_covered", "task"),
    "UPDATE billing_charge SET account_id = '%(theirs)s' WHERE task_id = '%(task)s'": (
        "charges_are_of_one_account",
        "task",
    ),
    "UPDATE billing_transfer SET account_id = '%(theirs)s', account_seq = 9 WHERE id = %(refund)s": (
        "charges_are_of_one_account",
        "task",
    ),
    "UPDATE billing_usageline SET account_id = '%(theirs)s' WHERE id = %(line)s": (
        "charges_are_of_one_account",
        "line",
    ),
    "UPDATE billing_usageline SET billed_amount = 3 WHERE id = %(line)s": ("lines_add_up", "task"),
    "UPDATE billing_usageline SET task_id = '%(free)s' WHERE id = %(line)s": ("lines_add_up", "task"),
    "UPDATE billing_usageline SET task_id = '%(holding)s' WHERE id = %(line)s": ("lines_cover_refunds", "line"),
    "DELETE FROM billing_usageline WHERE id = %(second)s": ("lines_add_up", "task"),
    "UPDATE billing_usageline SET billed_amount = 9 WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_usageline SET listed_amount = 9 WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_usageline SET listed_amount = 'NaN' WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_usageline SET quantity = 2 WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_usageline SET unit_price = 2 WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_usageline SET unit_size = 2 WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_usageline SET meter = 'x' WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_usageline SET unit = 'x' WHERE id = %(line)s": ("lines_follow_their_price", "line"),
    "UPDATE billing_price SET credits = 9 WHERE id = (SELECT price_id FROM billing_usageline WHERE id = %(line)s)": (
        "lines_follow_their_price",
        "line",
    ),
    "UPDATE billing_usageline SET billed_amount = 0.5 WHERE id = %(line)s": ("lines_cover_refunds", "line"),
    "UPDATE billing_transfer SET usage_line_id = %(strange)s WHERE id = %(refund)s": ("lines_cover_refunds", "strange"),
}


def books() -> dict[str, object]:
    """An account with a task charged 4 and 2, of whose first line 1 is refunded, and one that holds 9; another's."""
    mine, theirs = account("100"), account("100")
    task, strange, holding = charged(mine, "4", "2", of="8"), charged(theirs, "3"), held(mine, "9")
    first, second = line_ids(task)
    ledger.refund(mine.pk, Decimal(1), task_id=task, line_id=first, key=str(uuid4()), **WHY)
    kinds = {kind: pk for pk, kind in mine.transfers.exclude(task_id=holding).values_list("pk", "kind")}
    rows = {"mine": mine.pk, "theirs": theirs.pk, "task": task, "holding": holding, "free": uuid7()}
    return rows | kinds | {"line": first, "second": second, "strange": line_ids(strange)[0]}


def unguard() -> None:
    """Take every trigger and CHECK of billing away, for this transaction."""
    run_sql("SET CONSTRAINTS ALL IMMEDIATE")
    for model in TABLES:
        table = model._meta.db_table
        run_sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for (name,) in run_sql(
            f"SELECT conname FROM pg_constraint WHERE conrelid = '{table}'::regclass AND contype = 'c'"
        ):
            run_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")


def found() -> dict[str, str]:
    """The first offender of every broken check."""
    return {result.check.name: result.offender for result in audit.examine().broken}


@pytest.mark.django_db
def test_honest_books_hold():
    books()

    report = audit.examine()

    assert report.broken == []
    assert report.totals == {"granted": 200, "available": 183, "held": 9, "charged": 8}
    assert report.counts == {"accounts": 2, "transfers": 9, "charges": 3, "lines": 3, "tasks": 0}


@pytest.mark.django_db
def test_books_without_rows_hold():
    assert audit.examine().holds


@pytest.mark.django_db
@pytest.mark.parametrize("tampering", TAMPERED)
def test_a_tampered_row_is_named(tampering):
    rows = books()
    check, row = TAMPERED[tampering]
    unguard()

    run_sql(tampering % rows)

    assert str(rows[row]) in found()[check]


@pytest.mark.django_db
def test_the_first_row_is_named_of_many():
    first, _ = sorted([account("1").pk, account("1").pk])
    unguard()

    run_sql("UPDATE billing_account SET available = 0")

    assert str(first) in found()["accounts_balance"]


@pytest.mark.django_db
@pytest.mark.parametrize("table", sorted({table for table, _ in GUARDS}))
def test_a_guard_that_is_disabled_is_named(table):
    for name in [name for on, name in GUARDS if on == table]:
        run_sql(f"ALTER TABLE {table} DISABLE TRIGGER {name}")

        assert found() == {"guards_are_on": f"guard {name} on {table} is disabled"}

        run_sql(f"ALTER TABLE {table} ENABLE TRIGGER {name}")


@pytest.mark.django_db
@pytest.mark.parametrize("table", sorted({table for table, _ in GUARDS}))
def test_a_guard_whose_function_was_replaced_is_named(table):
    for name in [name for on, name in GUARDS if on == table]:
        with transaction.atomic():
            run_sql(f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")

            assert name in found()["guards_do_what_they_say"]

            transaction.set_rollback(True)


NARROWED = """
    DROP TRIGGER {name} ON billing_transfer;
    CREATE TRIGGER {name} BEFORE UPDATE ON billing_transfer FOR EACH ROW WHEN (false) EXECUTE FUNCTION {name}()
"""


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("act", "check"),
    [
        ("DROP TRIGGER {name} ON billing_transfer", "guards_are_on"),
        ("ALTER TABLE billing_transfer ENABLE REPLICA TRIGGER {name}", "guards_are_on"),
        (NARROWED, "guards_are_on"),
        ("ALTER FUNCTION {name}() RESET ALL", "guards_do_what_they_say"),
        ("ALTER FUNCTION {name}() SET search_path = pg_temp, public", "guards_do_what_they_say"),
    ],
)
def test_a_guard_that_was_weakened_is_named(act, check):
    name = next(name for table, name in GUARDS if table == "billing_transfer" and "no_update" in name)

    run_sql(act.format(name=name))

    assert name in found()[check]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("table", "name"), [("billing_transfer", "a_key_moves_once"), ("billing_charge", "refunded_never_exceeds_charged")]
)
def test_a_constraint_that_was_dropped_is_named(table, name):
    run_sql(f"ALTER TABLE {table} DROP CONSTRAINT {name}")

    assert name in found()["constraints_are_there"]


@pytest.mark.django_db
def test_another_app_adds_its_own_check(monkeypatch):
    mine = audit.Check("tasks_are_counted", "as many as there are", "SELECT 'task 1'")
    monkeypatch.setattr(audit, "CHECKS", [*audit.CHECKS, mine])

    assert found() == {"tasks_are_counted": "task 1"}


@pytest.mark.django_db(transaction=True)
def test_books_in_motion_are_seen_at_one_moment():
    accounts = [account("100") for _ in range(3)]
    enough = threading.Event()

    def act(number):
        while number and not enough.is_set():
            charged(accounts[number - 1], "0.5", "0.25", of="1")
        return number or audits()

    def audits():
        reports = [audit.run() for _ in range(10)]
        enough.set()
        return reports

    reports = at_once(4, act)[0]

    assert [report.broken for report in reports] == [[]] * 10
    assert len({report.counts["transfers"] for report in reports}) > 1


@pytest.mark.django_db(transaction=True)
def test_an_audit_writes_nothing(monkeypatch):
    writes = audit.Check("writes", "", "INSERT INTO billing_ratecard (id, name) VALUES (gen_random_uuid(), 'x')")
    monkeypatch.setattr(audit, "CHECKS", [writes])

    with pytest.raises(Exception, match="read-only transaction"):
        audit.run()


@pytest.mark.django_db(transaction=True)
def test_the_command_prints_a_line_per_check_and_the_equation():
    books()
    out = StringIO()

    call_command("audit", stdout=out)

    lines = out.getvalue().splitlines()
    assert all(line.startswith("ok      ") for line in lines[: len(audit.CHECKS)])
    assert lines[-3] == "granted 200.0000 = available 183.0000 + held 9.0000 + charged 8.0000"
    assert lines[-2] == "looked at 2 accounts, 9 transfers, 3 charges, 3 lines, 0 tasks"
    assert lines[-1] == f"The books balance: all {len(audit.CHECKS)} checks hold."


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_command_fails_and_names_the_row_when_the_books_do_not_balance(form):
    mine, out = account("5"), StringIO()
    with transaction.atomic():
        run_sql("ALTER TABLE billing_account DISABLE TRIGGER USER")
        run_sql("UPDATE billing_account SET granted = 6, available = 6")
        run_sql("SET CONSTRAINTS ALL IMMEDIATE")
        run_sql("ALTER TABLE billing_account ENABLE TRIGGER USER")

    with pytest.raises(SystemExit) as ended:
        call_command("audit", *form, stdout=out)

    assert ended.value.code == 1
    assert str(mine.pk) in out.getvalue()
    assert '"holds": false' in out.getvalue() or "do NOT balance: 1 of" in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_the_json_is_for_programs():
    out = StringIO()

    call_command("audit", "--json", stdout=out)

    report = json.loads(out.getvalue())
    assert report["holds"] is True
    assert report["totals"] == {"granted": "0", "available": "0", "held": "0", "charged": "0"}
    assert {"name", "promise", "holds", "offender"} == set(report["checks"][0])
