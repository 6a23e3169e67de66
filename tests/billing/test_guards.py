"""What a person with psql cannot do to the books: every statement is refused, and nothing has changed."""

import uuid
from decimal import Decimal

import pgtrigger
import pytest

from billing.models import Account, Transfer
from tests.billing.builders import charged, every_row, held, line_ids
from tests.billing.psql import psql
from tests.builders import account, submit

pytestmark = pytest.mark.django_db(transaction=True)

POST = "INSERT INTO billing_transfer (account_id, task_id, usage_line_id, kind, amount, key, reason) VALUES "
ACCOUNT = """
    INSERT INTO billing_account (id, name, is_active, granted, available, held, charged, account_seq, month_spent,
        credit_limit, pending, running, pending_limit, running_limit, requests_per_minute, callback_secret,
        callback_secret_previous)
    SELECT gen_random_uuid(), name, is_active, {granted}, {available}, 0, 0, 0, 0, 0, {pending}, 0, 1, 1, 1, '', ''
    FROM billing_account WHERE id = '%(account)s'
"""
LINE = """
    INSERT INTO billing_usageline (task_id, account_id, position, meter, quantity, unit, unit_size, unit_price,
        price_id, listed_amount, billed_amount, usd_reference, estimated)
    SELECT gen_random_uuid(), account_id, 0, meter, {quantity}, unit, unit_size, unit_price, price_id,
        {listed}, {billed}, 0, false
    FROM billing_usageline WHERE id = %(line)s
"""
CHARGE = "INSERT INTO billing_charge SELECT gen_random_uuid(), 1, 0, 0, now(), '%(account)s'"
PRICE = """
    INSERT INTO billing_price (id, rate_card_id, meter, unit, unit_size, credits, effective_from, created_at)
    SELECT gen_random_uuid(), rate_card_id, meter, unit, unit_size, credits, now() - interval '1 second', now()
    FROM billing_price LIMIT 1
"""
BORROWED = """
    CREATE TEMP TABLE door (n int);
    CREATE FUNCTION pg_temp.open() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {}; RETURN NEW; END';
    CREATE TRIGGER open BEFORE INSERT ON door FOR EACH ROW EXECUTE FUNCTION pg_temp.open();
    INSERT INTO door VALUES (1)
"""
GIFT = (POST + "('%(account)s', NULL, NULL, 'grant', 1, 'gift', 'r')").replace("INTO ", "INTO public.")
COVERED = "available_never_falls_below_the_credit_limit"
NEGATIVE = "held_and_charged_are_never_negative"
LINE_BILLED = "a_line_is_never_refunded_above_its_bill"
NEVER = {
    "history": {
        "UPDATE billing_transfer SET amount = amount + 1": "no_update",
        "UPDATE billing_transfer SET reason = 'other' WHERE kind = 'grant'": "no_update",
        "DELETE FROM billing_transfer": "no_delete",
        "TRUNCATE billing_transfer": "no_truncate",
        "TRUNCATE billing_account CASCADE": "no_truncate",
        "TRUNCATE billing_ratecard CASCADE": "no_truncate",
        "UPDATE billing_usageline SET billed_amount = 0": "no_update",
        "DELETE FROM billing_usageline": "no_delete",
        "TRUNCATE billing_usageline CASCADE": "no_truncate",
        "UPDATE billing_price SET credits = 0": "no_update",
        "DELETE FROM billing_price": "no_delete",
        "TRUNCATE billing_price CASCADE": "no_truncate",
        PRICE: "no_price_from_the_past",
    },
    "balances": {
        "UPDATE billing_account SET granted = granted + 1": "balances_move_by_transfers",
        "UPDATE billing_account SET available = available + 1": "balances_move_by_transfers",
        "UPDATE billing_account SET held = held + 1": "balances_move_by_transfers",
        "UPDATE billing_account SET charged = charged + 1": "balances_move_by_transfers",
        "UPDATE billing_account SET account_seq = account_seq + 1": "balances_move_by_transfers",
        "UPDATE billing_account SET month = NULL": "balances_move_by_transfers",
        "UPDATE billing_account SET month_spent = 0": "balances_move_by_transfers",
        "UPDATE billing_account SET granted = granted + 1, available = available + 1": "balances_move_by_transfers",
    },
    "accounts": {
        ACCOUNT.format(granted=5, available=5, pending=0): "an_account_starts_empty",
        ACCOUNT.format(granted=0, available=0, pending=1): "an_account_starts_empty",
        "UPDATE billing_account SET pending = pending + 1": "counters_move_with_tasks",
        "UPDATE billing_account SET running = running + 1": "counters_move_with_tasks",
        "UPDATE billing_account SET credit_limit = 'NaN'": "credit_limit_is_never_negative",
        "UPDATE billing_account SET id = gen_random_uuid() WHERE id = '%(account)s'": "an_account_is_never_replaced",
        "DELETE FROM billing_account WHERE id = '%(account)s'": "an_account_is_never_replaced",
    },
    "charges": {
        "UPDATE billing_charge SET held = held + 1": "a_charge_moves_by_transfers",
        "UPDATE billing_charge SET charged = charged + 1": "a_charge_moves_by_transfers",
        "UPDATE billing_charge SET refunded = 0": "a_charge_moves_by_transfers",
        CHARGE: "a_charge_moves_by_transfers",
        "DELETE FROM billing_charge": "a_charge_moves_by_transfers",
        "TRUNCATE billing_charge": "no_truncate",
        LINE.format(quantity=1, listed=1, billed=2): "billed_never_exceeds_listed",
        LINE.format(quantity=1, listed="'NaN'", billed=2): "a_line_lists_a_number",
        LINE.format(quantity="'NaN'", listed=2, billed=2): "a_line_lists_a_number",
    },
    "grants": {
        POST + "('%(account)s', NULL, NULL, 'grant', 0, 'k', 'r')": "an_amount_is_positive_or_an_adjustment",
        POST + "('%(account)s', NULL, NULL, 'grant', -1, 'k', 'r')": "an_amount_is_positive_or_an_adjustment",
        POST + "('%(account)s', NULL, NULL, 'grant', 'NaN', 'k', 'r')": "an_amount_is_positive_or_an_adjustment",
        POST + "('%(account)s', NULL, NULL, 'grant', 1e16, 'k', 'r')": "22003",
        POST + "('%(account)s', NULL, NULL, 'grant', 1, 'k', '')": "what_people_do_has_a_reason",
        POST + "('%(account)s', NULL, NULL, 'gift', 1, 'k', 'r')": "granted_is_available_plus_held_plus_charged",
        POST + "('%(account)s', '%(task)s', NULL, 'grant', 1, 'k', 'r')": "a_transfer_of_a_task_names_it",
        POST + "('%(account)s', NULL, %(line)s, 'grant', 1, 'k', 'r')": "a_line_is_never_refunded_above_its_bill",
        POST + "('%(nobody)s', NULL, NULL, 'grant', 1, 'k', 'r')": "transfer_account",
        POST + "('%(account)s', NULL, NULL, 'adjustment', 0, 'k', 'r')": "an_amount_is_positive_or_an_adjustment",
        POST + "('%(account)s', NULL, NULL, 'adjustment', -86, 'k', 'r')": COVERED,
    },
    "holds": {
        POST + "('%(account)s', '%(new)s', NULL, 'hold', 86, 'hold:%(new)s', '')": COVERED,
        POST + "('%(capped)s', '%(new)s', NULL, 'hold', 6, 'hold:%(new)s', '')": "monthly_cap",
        POST + "('%(account)s', '%(new)s', NULL, 'hold', 'NaN', 'hold:%(new)s', '')": (
            "granted_is_available_plus_held_plus_charged"
        ),
        POST + "('%(account)s', '%(new)s', NULL, 'hold', 1, 'k', '')": "a_task_is_held_captured_and_released_once",
        POST + "('%(account)s', '%(task)s', NULL, 'hold', 1, 'hold:%(task)s', '')": "billing_charge_pkey",
        POST + "('%(rich)s', '%(task)s', NULL, 'hold', 1, 'hold:%(task)s', '')": "billing_charge_pkey",
        POST + "('%(account)s', '%(holding)s', NULL, 'capture', 10, 'k', '')": NEGATIVE,
        POST + "('%(account)s', '%(holding)s', NULL, 'release', 10, 'k', '')": NEGATIVE,
        POST + "('%(account)s', '%(task)s', NULL, 'capture', 1, 'k', '')": "held_is_never_negative",
        POST + "('%(rich)s', '%(holding)s', NULL, 'capture', 1, 'k', '')": "transfer_charge",
        POST + "('%(rich)s', '%(holding)s', NULL, 'release', 1, 'k', '')": "transfer_charge",
    },
    "refunds": {
        POST + "('%(account)s', '%(task)s', NULL, 'refund', 7, 'k', 'r')": "refunded_never_exceeds_charged",
        POST + "('%(account)s', '%(task)s', NULL, 'refund', 'NaN', 'k', 'r')": "refunded_never_exceeds_charged",
        POST + "('%(account)s', '%(holding)s', NULL, 'refund', 1, 'k', 'r')": "refunded_never_exceeds_charged",
        POST + "('%(rich)s', '%(task)s', NULL, 'refund', 1, 'k', 'r')": "transfer_charge",
        POST + "('%(account)s', '%(new)s', NULL, 'refund', 1, 'k', 'r')": "transfer_charge",
        POST + "('%(account)s', '%(task)s', %(line)s, 'refund', 4.5, 'k', 'r')": LINE_BILLED,
        POST + "('%(account)s', '%(task)s', %(strange)s, 'refund', 1, 'k', 'r')": LINE_BILLED,
        POST + "('%(account)s', '%(task)s', %(line)s, 'refund', 2, 'k', 'r'),"
        "('%(account)s', '%(task)s', %(line)s, 'refund', 2.5, 'l', 'r')": LINE_BILLED,
    },
}


@pytest.fixture
def scene() -> dict[str, object]:
    """85 to spend, a task charged 4 and 2, and a task that holds 9; others that are rich or capped."""
    mine, rich = account("100"), account("100")
    task, strange = charged(mine, "4", "2", of="8"), charged(rich, "3")
    held(rich, "9")
    return {
        "account": mine.pk,
        "rich": rich.pk,
        "capped": account("10", monthly_cap=5).pk,
        "task": task,
        "line": line_ids(task)[0],
        "strange": line_ids(strange)[0],
        "holding": held(mine, "9"),
        "new": uuid.uuid4(),
        "nobody": uuid.uuid4(),
        "taken": Transfer.objects.filter(account=mine).earliest("pk").key,
        "guards": ",".join(trigger.get_pgid(model) for model, trigger in pgtrigger.registered()),
    }


@pytest.mark.parametrize("family", NEVER)
def test_no_statement_changes_history_or_moves_a_balance(scene, family):
    before = every_row()

    answers = {sql: psql(sql % scene).refused_by for sql in NEVER[family]}

    assert answers == NEVER[family]
    assert every_row() == before


DOORS = {
    "the switch of the stock triggers, for the session": (
        "SET pgtrigger.ignore = '{%(guards)s}'; UPDATE billing_transfer SET amount = 1",
        "no_update",
    ),
    "the switch of the stock triggers, for the transaction": (
        "BEGIN; SET LOCAL pgtrigger.ignore = '{%(guards)s}'; UPDATE billing_account SET available = 1, granted = 1",
        "balances_move_by_transfers",
    ),
    "a path that leads elsewhere": (
        "BEGIN; SET LOCAL search_path = pg_temp; UPDATE public.billing_account SET available = 1, granted = 1",
        "balances_move_by_transfers",
    ),
    "a trigger of a table of one's own": (
        BORROWED.format("UPDATE public.billing_account SET available = available + 1, granted = granted + 1"),
        "balances_move_by_transfers",
    ),
    "the same, with the number a transfer would have": (
        BORROWED.format(
            "UPDATE public.billing_account SET account_seq = account_seq + 1, available = available + 1, "
            "granted = granted + 1"
        ),
        "balances_are_what_a_transfer_says",
    ),
    "a spend forgotten, with the number a transfer would have": (
        BORROWED.format("UPDATE public.billing_account SET account_seq = account_seq + 1, month_spent = 0"),
        "balances_are_what_a_transfer_says",
    ),
    "a charge forgiven by a trigger of one's own": (
        BORROWED.format("UPDATE public.billing_charge SET refunded = charged"),
        "a_charge_is_what_its_transfers_say",
    ),
    "a charge made by a trigger of one's own": (
        BORROWED.format("INSERT INTO public.billing_charge SELECT gen_random_uuid(), 0, 9, 0, now(), ''%(rich)s''"),
        "a_charge_is_what_its_transfers_say",
    ),
    "a transfer whose key is taken, dropped on conflict": (
        POST + "('%(account)s', NULL, NULL, 'grant', 1, '%(taken)s', 'r') ON CONFLICT DO NOTHING",
        "balances_are_what_a_transfer_says",
    ),
    "a transfer whose update is filtered out on conflict": (
        POST + "('%(account)s', NULL, NULL, 'grant', 1, '%(taken)s', 'r') "
        "ON CONFLICT (key) DO UPDATE SET amount = 2 WHERE false",
        "balances_are_what_a_transfer_says",
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_there_is_no_way_around_a_guard(scene, door):
    before = every_row()
    script, guard = DOORS[door]

    answer = psql(script % scene)

    assert answer.refused_by == guard
    assert every_row() == before


@pytest.mark.parametrize("schema", ["pg_temp", "counterfoil"])
def test_a_table_of_the_same_name_takes_no_transfer_away(scene, schema):
    shadows = "" if schema == "pg_temp" else f"CREATE SCHEMA {schema};"
    for table in ("billing_account", "billing_charge", "billing_transfer"):
        shadows += f"CREATE TABLE {schema}.{table} AS SELECT * FROM public.{table};"
    shadows += f"SET search_path = {schema}, public;"

    answer = psql(f"BEGIN; {shadows} {GIFT % scene}; DROP SCHEMA IF EXISTS counterfoil CASCADE; COMMIT")

    assert answer.refused_by is None
    assert Account.objects.get(pk=scene["account"]).available == Decimal(86)


def test_a_limit_can_be_lowered_below_what_is_pending():
    mine = account("10")
    submit(mine), submit(mine)

    answer = psql(f"UPDATE billing_account SET pending_limit = 1, running_limit = 0 WHERE id = '{mine.pk}'")

    assert answer.refused_by is None
    assert Account.objects.get(pk=mine.pk).pending == 2
