"""What must hold of every row of the books, each as one statement that answers with the first row that breaks it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pgtrigger
from django.apps import apps
from psycopg.types.json import Jsonb


@dataclass(frozen=True)
class Check:
    """A promise and the statement that looks for rows that break it: one text column, the first such row, or no row."""

    name: str
    promise: str
    sql: str
    params: Callable[[], Mapping[str, Any]] | None = None


@cache
def guards() -> Mapping[str, Any]:
    """The name, table, comment and function body of every guard, as pgtrigger would install it."""
    compiled = [trigger.compile(model).sql for model, trigger in pgtrigger.registered()]
    return {"guards": Jsonb([{"name": g.pgid, "on": g.table, "hash": g.hash, "body": _body(g)} for g in compiled])}


def _body(installation: object) -> str:
    return str(installation).split("$$")[1]


@cache
def constraints() -> Mapping[str, Any]:
    """The name and table of every constraint that a model declares."""
    declared = [(constraint.name, model) for model in apps.get_models() for constraint in model._meta.constraints]
    return {"constraints": Jsonb([{"name": name, "on": model._meta.db_table} for name, model in declared])}


# What each transfer moves, by its kind.
MOVED = """(
    SELECT *, CASE WHEN kind IN ('grant', 'adjustment') THEN amount ELSE 0 END AS granted,
        CASE kind WHEN 'hold' THEN -amount WHEN 'capture' THEN 0 ELSE amount END AS available,
        CASE WHEN kind = 'hold' THEN amount WHEN kind IN ('capture', 'release') THEN -amount ELSE 0 END AS held,
        CASE kind WHEN 'capture' THEN amount WHEN 'refund' THEN -amount ELSE 0 END AS charged
    FROM billing_transfer)"""

ACCOUNTS_BALANCE = """
SELECT format('account %s: granted %s, available %s, held %s, charged %s', id, granted, available, held, charged)
FROM billing_account
WHERE granted <> available + held + charged OR held < 0 OR charged < 0 OR granted = 'NaN'
ORDER BY id LIMIT 1
"""

BALANCES_ARE_SUMS = f"""
SELECT format('account %s: granted %s, available %s, held %s, charged %s in %s transfers, but %s move %s, %s, %s, %s',
    coalesce(a.id, t.account_id), a.granted, a.available, a.held, a.charged, a.account_seq, t.count, t.granted,
    t.available, t.held, t.charged)
FROM billing_account a FULL JOIN (
    SELECT account_id, count(*) AS count, sum(granted) AS granted, sum(available) AS available, sum(held) AS held,
        sum(charged) AS charged
    FROM {MOVED} m GROUP BY account_id) t ON t.account_id = a.id
WHERE (a.granted, a.available, a.held, a.charged, a.account_seq) IS DISTINCT FROM
    (coalesce(t.granted, 0), coalesce(t.available, 0), coalesce(t.held, 0), coalesce(t.charged, 0),
     coalesce(t.count, 0))
ORDER BY coalesce(a.id, t.account_id) LIMIT 1
"""  # noqa: S608 - a constant

TRANSFERS_ARE_NUMBERED = """
SELECT format('transfer %s: number %s of account %s, but in place %s', id, account_seq, account_id, place)
FROM (
    SELECT id, account_id, account_seq, row_number() OVER (PARTITION BY account_id ORDER BY account_seq) AS place
    FROM billing_transfer) t
WHERE account_seq <> place ORDER BY account_id, place LIMIT 1
"""

TRANSFERS_FOLLOW = f"""
SELECT format('transfer %s: number %s of account %s, %s of %s, leaves granted %s, available %s, held %s, charged %s',
    id, account_seq, account_id, kind, amount, granted_after, available_after, held_after, charged_after)
FROM (
    SELECT *, granted_after - lag(granted_after, 1, 0) OVER w AS granted_step,
        available_after - lag(available_after, 1, 0) OVER w AS available_step,
        held_after - lag(held_after, 1, 0) OVER w AS held_step,
        charged_after - lag(charged_after, 1, 0) OVER w AS charged_step
    FROM {MOVED} m WINDOW w AS (PARTITION BY account_id ORDER BY account_seq)) t
WHERE granted_step <> granted OR available_step <> available OR held_step <> held OR charged_step <> charged
ORDER BY account_id, account_seq LIMIT 1
"""  # noqa: S608 - a constant

TRANSFERS_ARE_OF_A_KIND = """
SELECT format('transfer %s: %s of %s, task %s, line %s, key %s, by "%s" for "%s"', id, kind, amount, task_id,
    usage_line_id, key, actor, reason)
FROM billing_transfer
WHERE kind NOT IN ('grant', 'hold', 'capture', 'release', 'refund', 'adjustment')
    OR amount = 'NaN' OR amount = 0 OR (amount < 0 AND kind <> 'adjustment')
    OR (task_id IS NULL) <> (kind IN ('grant', 'adjustment'))
    OR (usage_line_id IS NOT NULL AND kind <> 'refund')
    OR (api_key_id IS NOT NULL AND kind <> 'hold')
    OR (kind IN ('hold', 'capture', 'release') AND key <> kind || ':' || task_id)
    OR (kind IN ('grant', 'refund', 'adjustment') AND (reason = '' OR actor = ''))
    OR (kind IN ('hold', 'capture', 'release') AND (reason <> '' OR actor <> 'system'))
ORDER BY id LIMIT 1
"""

CHARGES_ARE_SUMS = """
SELECT format('charge of task %s: held %s, charged %s, refunded %s, but its transfers say %s, %s, %s',
    coalesce(c.task_id, t.task_id), c.held, c.charged, c.refunded, t.held, t.charged, t.refunded)
FROM billing_charge c FULL JOIN (
    SELECT task_id, sum(CASE kind WHEN 'hold' THEN amount WHEN 'refund' THEN 0 ELSE -amount END) AS held,
        sum(CASE kind WHEN 'capture' THEN amount ELSE 0 END) AS charged,
        sum(CASE kind WHEN 'refund' THEN amount ELSE 0 END) AS refunded
    FROM billing_transfer WHERE task_id IS NOT NULL GROUP BY task_id) t ON t.task_id = c.task_id
WHERE (c.held, c.charged, c.refunded) IS DISTINCT FROM (t.held, t.charged, t.refunded)
ORDER BY coalesce(c.task_id, t.task_id) LIMIT 1
"""

CHARGES_ARE_OF_ONE_ACCOUNT = """
SELECT format('%s %s: of account %s, but task %s is charged to %s', what, o.id, o.account_id, o.task_id, c.account_id)
FROM (
    SELECT 'transfer' AS what, id, account_id, task_id FROM billing_transfer WHERE task_id IS NOT NULL
    UNION ALL
    SELECT 'line', id, account_id, task_id FROM billing_usageline) o
JOIN billing_charge c ON c.task_id = o.task_id
WHERE o.account_id <> c.account_id ORDER BY what, o.id LIMIT 1
"""

CHARGES_BEGIN_WITH_THEIR_HOLD = """
SELECT format('charge of task %s: begun at %s, but its hold at %s', c.task_id, c.created_at, t.created_at)
FROM billing_charge c JOIN billing_transfer t ON t.task_id = c.task_id AND t.kind = 'hold'
WHERE c.created_at <> t.created_at ORDER BY c.task_id LIMIT 1
"""

# A hold counts for the month its account has reached, and a release takes its own month's hold back.
MONTHS_ARE_COUNTED = """
SELECT format('account %s: spent %s in %s, but its transfers say %s in %s', a.id, a.month_spent, a.month,
    coalesce(s.spent, 0), s.month)
FROM billing_account a LEFT JOIN (
    SELECT t.account_id, t.last AS month, sum(CASE WHEN t.kind = 'hold' AND t.reached = t.last THEN t.amount
        WHEN t.kind = 'release' AND t.month = t.last AND t.begun = t.last THEN -t.amount ELSE 0 END) AS spent
    FROM (
        SELECT m.*, max(month) OVER (PARTITION BY account_id ORDER BY account_seq) AS reached,
            max(month) OVER (PARTITION BY account_id) AS last
        FROM (
            SELECT t.*, date_trunc('month', t.created_at AT TIME ZONE 'utc')::date AS month,
                date_trunc('month', c.created_at AT TIME ZONE 'utc')::date AS begun
            FROM billing_transfer t LEFT JOIN billing_charge c ON c.task_id = t.task_id) m) t
    GROUP BY t.account_id, t.last) s ON s.account_id = a.id
WHERE (a.month, a.month_spent) IS DISTINCT FROM (s.month, coalesce(s.spent, 0))
ORDER BY a.id LIMIT 1
"""

# The same for a key: its holds name it, and a release takes back the hold of its task's charge.
KEYS_ARE_COUNTED = """
SELECT format('key %s: spent %s in %s, but its transfers say %s in %s', k.id, k.month_spent, k.month,
    coalesce(s.spent, 0), s.month)
FROM billing_apikey k LEFT JOIN (
    SELECT t.spender, t.last AS month, sum(CASE WHEN t.kind = 'hold' AND t.reached = t.last THEN t.amount
        WHEN t.kind = 'release' AND t.month = t.last AND t.begun = t.last THEN -t.amount ELSE 0 END) AS spent
    FROM (
        SELECT m.*, max(month) OVER (PARTITION BY spender ORDER BY account_seq) AS reached,
            max(month) OVER (PARTITION BY spender) AS last
        FROM (
            SELECT t.*, c.api_key_id AS spender, date_trunc('month', t.created_at AT TIME ZONE 'utc')::date AS month,
                date_trunc('month', c.created_at AT TIME ZONE 'utc')::date AS begun
            FROM billing_transfer t JOIN billing_charge c ON c.task_id = t.task_id
            WHERE c.api_key_id IS NOT NULL AND t.kind IN ('hold', 'release')) m) t
    GROUP BY t.spender, t.last) s ON s.spender = k.id
WHERE (k.month, k.month_spent) IS DISTINCT FROM (s.month, coalesce(s.spent, 0))
ORDER BY k.id LIMIT 1
"""

HOLDS_NAME_THEIR_KEY = """
SELECT format('charge of task %s: by key %s, but its hold by %s', c.task_id, c.api_key_id, t.api_key_id)
FROM billing_charge c JOIN billing_transfer t ON t.task_id = c.task_id AND t.kind = 'hold'
LEFT JOIN billing_apikey k ON k.id = c.api_key_id
WHERE c.api_key_id IS DISTINCT FROM t.api_key_id
    OR (c.api_key_id IS NOT NULL AND k.account_id IS DISTINCT FROM c.account_id)
ORDER BY c.task_id LIMIT 1
"""

ACCOUNTS_ARE_LOW = """
SELECT format('account %s: available %s, threshold %s, but low since %s', id, available, low_balance_threshold,
    low_since)
FROM billing_account
WHERE CASE WHEN low_since IS NULL THEN available < low_balance_threshold
    ELSE coalesce(available >= low_balance_threshold + greatest(low_balance_threshold / 10, 1), true) END
ORDER BY id LIMIT 1
"""

REFUNDS_ARE_COVERED = """
SELECT format('charge of task %s: held %s, charged %s, refunded %s', task_id, held, charged, refunded)
FROM billing_charge
WHERE NOT (0 <= refunded AND refunded <= charged AND charged < 'NaN' AND 0 <= held AND held < 'NaN')
ORDER BY task_id LIMIT 1
"""

ACCOUNTS_HOLD_FOR_TASKS = """
SELECT format('account %s: held %s, charged %s, but for its tasks %s, %s', a.id, a.held, a.charged, c.held, c.charged)
FROM billing_account a LEFT JOIN (
    SELECT account_id, sum(held) AS held, sum(charged - refunded) AS charged
    FROM billing_charge GROUP BY account_id) c ON c.account_id = a.id
WHERE a.held <> coalesce(c.held, 0) OR a.charged <> coalesce(c.charged, 0)
ORDER BY a.id LIMIT 1
"""

LINES_ADD_UP = """
SELECT format('task %s: charged %s, but its lines bill %s', coalesce(c.task_id, l.task_id), c.charged, l.billed)
FROM billing_charge c FULL JOIN (
    SELECT task_id, sum(billed_amount) AS billed FROM billing_usageline GROUP BY task_id) l ON l.task_id = c.task_id
WHERE coalesce(c.charged, 0) <> coalesce(l.billed, 0)
ORDER BY coalesce(c.task_id, l.task_id) LIMIT 1
"""

LINES_FOLLOW_THEIR_PRICE = """
SELECT format('line %s: %s of %s at %s for %s %s lists %s and bills %s', l.id, l.quantity, l.meter, l.unit_price,
    l.unit_size, l.unit, l.listed_amount, l.billed_amount)
FROM billing_usageline l LEFT JOIN billing_price p ON p.id = l.price_id
WHERE (l.meter, l.unit, l.unit_size, l.unit_price) IS DISTINCT FROM (p.meter, p.unit, p.unit_size, p.credits)
    OR abs(l.listed_amount * l.unit_size - least(l.quantity * l.unit_price, 9999999999999999.9999 * l.unit_size))
        > 0.00005 * l.unit_size
    OR NOT (0 <= l.billed_amount AND l.billed_amount <= l.listed_amount AND l.listed_amount < 'NaN')
    OR NOT (0 <= l.quantity AND l.quantity < 'NaN')
ORDER BY l.id LIMIT 1
"""

LINES_COVER_REFUNDS = """
SELECT format('line %s: billed %s of task %s, but %s of task %s is refunded', t.usage_line_id, l.billed_amount,
    l.task_id, t.refunded, t.task_id)
FROM (
    SELECT usage_line_id, task_id, sum(amount) AS refunded FROM billing_transfer
    WHERE usage_line_id IS NOT NULL GROUP BY usage_line_id, task_id) t
LEFT JOIN billing_usageline l ON l.id = t.usage_line_id
WHERE l.id IS NULL OR l.task_id <> t.task_id OR t.refunded > l.billed_amount
ORDER BY t.usage_line_id LIMIT 1
"""

GUARDS_ARE_ON = """
SELECT concat('guard ', g.name, ' on ', g.on, ' is ',
    CASE WHEN t.oid IS NULL THEN 'missing' WHEN t.tgenabled IN ('O', 'A') THEN 'altered' ELSE 'disabled' END)
FROM jsonb_to_recordset(%(guards)s) AS g(name text, "on" text, hash text)
LEFT JOIN pg_trigger t ON t.tgname = g.name AND t.tgrelid = to_regclass(quote_ident(g.on))
WHERE t.oid IS NULL OR t.tgenabled NOT IN ('O', 'A') OR obj_description(t.oid, 'pg_trigger') IS DISTINCT FROM g.hash
ORDER BY g.on, g.name LIMIT 1
"""

GUARDS_DO_WHAT_THEY_SAY = """
SELECT concat('guard ', g.name, ' on ', g.on, ' runs another function than was installed')
FROM jsonb_to_recordset(%(guards)s) AS g(name text, "on" text, body text)
JOIN pg_trigger t ON t.tgname = g.name AND t.tgrelid = to_regclass(quote_ident(g.on))
JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_proc p ON p.oid = t.tgfoid
WHERE p.proname <> g.name OR p.prosrc <> g.body OR p.pronamespace <> c.relnamespace
    OR p.proconfig IS DISTINCT FROM ARRAY[concat('search_path=', c.relnamespace::regnamespace, ', pg_temp')]
ORDER BY g.on, g.name LIMIT 1
"""

CONSTRAINTS_ARE_THERE = """
SELECT concat('constraint ', e.name, ' on ', e.on, ' is missing, or is not enforced')
FROM jsonb_to_recordset(%(constraints)s) AS e(name text, "on" text)
WHERE NOT EXISTS (
    SELECT 1 FROM pg_constraint c WHERE c.conname = e.name AND c.conrelid = to_regclass(quote_ident(e.on))
        AND c.convalidated AND coalesce((to_jsonb(c) ->> 'conenforced')::boolean, true)
    UNION ALL
    SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relname = e.name AND i.indrelid = to_regclass(quote_ident(e.on)) AND i.indisvalid AND i.indisunique)
ORDER BY e.on, e.name LIMIT 1
"""

CHECKS: list[Check] = [
    Check("accounts_balance", "granted = available + held + charged, per account", ACCOUNTS_BALANCE),
    Check("balances_are_sums", "an account's balances are the sums of its transfers", BALANCES_ARE_SUMS),
    Check("transfers_are_numbered", "an account's transfers are numbered 1, 2, 3 ...", TRANSFERS_ARE_NUMBERED),
    Check("transfers_follow", "each transfer's balances follow from the one before", TRANSFERS_FOLLOW),
    Check("transfers_are_of_a_kind", "amount, task, line and key are as the kind demands", TRANSFERS_ARE_OF_A_KIND),
    Check("charges_are_sums", "a task's charge is the sum of its transfers", CHARGES_ARE_SUMS),
    Check("charges_begin_with_their_hold", "a charge is as old as its hold", CHARGES_BEGIN_WITH_THEIR_HOLD),
    Check("months_are_counted", "a month's spending is its holds less its releases", MONTHS_ARE_COUNTED),
    Check("keys_are_counted", "a key's spending is its holds less its releases, in its month", KEYS_ARE_COUNTED),
    Check("holds_name_their_key", "a charge is of the key that its hold names", HOLDS_NAME_THEIR_KEY),
    Check("accounts_are_low", "an account is low from below its threshold to a tenth above it", ACCOUNTS_ARE_LOW),
    Check("charges_are_of_one_account", "a task moves one account's credits only", CHARGES_ARE_OF_ONE_ACCOUNT),
    Check("refunds_are_covered", "0 <= refunded <= charged, per task", REFUNDS_ARE_COVERED),
    Check("accounts_hold_for_tasks", "an account's held and charged are its tasks'", ACCOUNTS_HOLD_FOR_TASKS),
    Check("lines_add_up", "a task's billed lines add up to its charge, exactly", LINES_ADD_UP),
    Check("lines_follow_their_price", "a line lists quantity x price and bills no more", LINES_FOLLOW_THEIR_PRICE),
    Check("lines_cover_refunds", "a line is refunded at most what it billed", LINES_COVER_REFUNDS),
    Check("guards_are_on", "every guard is installed and enabled, as declared", GUARDS_ARE_ON, guards),
    Check("guards_do_what_they_say", "every guard's function is ours to the letter", GUARDS_DO_WHAT_THEY_SAY, guards),
    Check("constraints_are_there", "every declared constraint is enforced", CONSTRAINTS_ARE_THERE, constraints),
]
