"""What an act would do to each task of a bulk action, told by one statement: why not, the credits that it moves,
and what the task shows that must still hold then.

Each act has its sentences in the order in which its verb would refuse, and its credits; `bulk` writes both to the rows.
The verb still decides when it is run. Amounts are rounded as `billing.pricing` and `tasks.refunds` round them, half to
even, in whole ten-thousandths.
"""

from dataclasses import dataclass

from tasks.statuses import FINAL

IS_FINAL = f"t.status IN ({', '.join(repr(str(status)) for status in sorted(FINAL))})"
ENDED = "It has ended."
NOT_ENDED = "It has not ended yet."
UNFINISHED_RERUN = """
EXISTS (SELECT FROM tasks_task again WHERE again.rerun_root = coalesce(t.rerun_root, t.id)
    AND again.status IN ('queued', 'running'))
"""
OWES = "EXISTS (SELECT FROM tasks_callback b WHERE b.task_id = t.id AND b.endpoint_id IS NULL AND b.body <> '')"
UNOFFERED = "NOT EXISTS (SELECT FROM tasks_deployment d WHERE d.id = t.deployment_id AND d.is_active)"


def half_even(numerator: str, denominator: str) -> str:
    """A quotient of whole numbers of ten-thousandths of a credit, in credits."""
    return f"""(SELECT (f + CASE WHEN 2 * (n - f * d) > d OR 2 * (n - f * d) = d AND mod(f, 2) = 1 THEN 1 ELSE 0 END)
        / 10000 FROM (SELECT n, d, div(n, d) AS f FROM (SELECT ({numerator})::numeric * 10000 AS n,
        ({denominator})::numeric AS d) fraction) whole)::numeric(20, 4)"""  # noqa: S608 - pieces of this file


SHARE = f"""
CASE WHEN (%(data)s::jsonb)->>'percent' IS NULL THEN c.charged - c.refunded
     ELSE {half_even("c.charged * ((%(data)s::jsonb)->>'percent')::numeric", "100")} END
"""
# The bound of the first quote at the prices of now: the same input has the same bound.
PRICE = f"""
(SELECT coalesce(sum({half_even("used.quantity * p.credits", "p.unit_size")}), 0)
 FROM tasks_deployment d
 CROSS JOIN LATERAL (
    SELECT key AS meter, value::numeric AS quantity FROM jsonb_each_text(t.quote -> 'bound') WHERE key <> 'task'
    UNION ALL SELECT 'task', 1) used
 CROSS JOIN LATERAL (
    SELECT credits, unit_size FROM billing_price each WHERE rate_card_id = d.rate_card_id AND meter = used.meter
        AND effective_from <= now() AND NOT EXISTS (SELECT FROM billing_pricewithdrawal w WHERE w.price_id = each.id)
    ORDER BY effective_from DESC, created_at DESC LIMIT 1) p
 WHERE d.id = t.deployment_id AND used.quantity > 0)
"""  # noqa: S608 - pieces of this file
NEW_DEADLINE = """
CASE WHEN (%(data)s::jsonb)->>'minutes' IS NOT NULL
     THEN t.deadline + make_interval(mins => ((%(data)s::jsonb)->>'minutes')::int)
     ELSE ((%(data)s::jsonb)->>'until')::timestamptz END
"""
LAST_DEADLINE = """
t.created_at + make_interval(secs => (SELECT max_lifetime FROM tasks_deployment d WHERE d.id = t.deployment_id))
"""


# What was streamed so far, at the prices of its quote, where that is billed: `tasks.bills.partial`.
STREAMED = f"""
CASE WHEN (t.quote ->> 'bills_partial_output')::boolean AND NOT t.waived THEN (
    SELECT least(coalesce(sum({
    half_even("used.value::numeric * (rate ->> 'credits')::numeric", "(rate ->> 'unit_size')::numeric")
}), 0), c.held)
    FROM tasks_run r CROSS JOIN LATERAL jsonb_each_text(r.usage) used
    JOIN LATERAL jsonb_array_elements(t.quote -> 'rates') rate ON rate ->> 'meter' = used.key
    WHERE r.task_id = t.id AND r.number = t.attempt AND used.key <> 'task') ELSE 0 END
"""  # noqa: S608 - pieces of this file
RERUNS = "(SELECT count(*) FROM tasks_task again WHERE again.rerun_of_id = t.id)::text"


@dataclass(frozen=True)
class Foretelling:
    """Conditions with the sentences of their refusals, what is moved, a new deadline, what must still hold, and whether
    it spends. Where it `varies`, the credits are those of this moment."""

    refusals: tuple[tuple[str, str], ...]
    credits: str = "0"
    target: str = "NULL::timestamptz"
    seen: str = "''"
    spends: bool = False
    varies: bool = False


QUEUED_ONLY = (("t.status <> 'queued'", "Only a queued task is paused or resumed."),)
RERUN = (
    (f"NOT {IS_FINAL}", NOT_ENDED),
    ("t.content_deleted_at IS NOT NULL", "Its content was deleted, so it cannot run again."),
    (UNFINISHED_RERUN, "Its newest rerun has not ended yet."),
    (UNOFFERED, "Its deployment is not active."),
)
FORETELLINGS = {
    "cancel": Foretelling(((IS_FINAL, ENDED),), f"coalesce(c.held, 0) - {STREAMED}", varies=True),
    "pause": Foretelling((*QUEUED_ONLY, ("t.paused_at IS NOT NULL", "It is paused already."))),
    "resume": Foretelling((*QUEUED_ONLY, ("t.paused_at IS NULL", "It is not paused."))),
    "extend_deadline": Foretelling(
        (
            (IS_FINAL, ENDED),
            (f"{NEW_DEADLINE} <= greatest(t.deadline, now())", "The new deadline is not later than the present one."),
            (f"{NEW_DEADLINE} > {LAST_DEADLINE}", "The new deadline is later than its deployment allows."),
        ),
        target=NEW_DEADLINE,
        seen="t.deadline::text",
    ),
    "change_priority": Foretelling(
        (
            (IS_FINAL, ENDED),
            ("t.priority = ((%(data)s::jsonb)->>'priority')::int", "It has this priority already."),
        )
    ),
    "refund": Foretelling(
        (
            ("coalesce(c.charged, 0) = 0", "Nothing was charged."),
            ("c.charged = c.refunded", "All of the charge is refunded."),
            (f"{SHARE} = 0", "The share of this charge rounds to nothing."),
            (f"{SHARE} > c.charged - c.refunded", "Less is left of the charge than this share."),
        ),
        SHARE,
        seen="(c.charged - c.refunded)::text",
    ),
    "redeliver": Foretelling(((f"NOT {IS_FINAL}", NOT_ENDED), (f"NOT {OWES}", "It has no callback to send."))),
    "rerun": Foretelling(RERUN, PRICE, seen=RERUNS, spends=True),
    "rerun_free": Foretelling(RERUN, seen=RERUNS, spends=True),
    "delete_content": Foretelling(
        ((f"NOT {IS_FINAL}", NOT_ENDED), ("t.content_deleted_at IS NOT NULL", "It is deleted already."))
    ),
}
GONE = ("t.id IS NULL", "There is no such task any more.")
# Rows that spend, or add to what is unfinished, take from what those before them left to their account.
TOO_MANY = "Its account has as many unfinished tasks as it may."
TOO_POOR = "The available credits do not cover the quote."
CAPPED = "The spend cap of this month is reached."
FULL = "Its deployment has as many unfinished tasks as it may."
LEFT_OF_CAP = """
a.monthly_cap - CASE WHEN a.month >= date_trunc('month', now() AT TIME ZONE 'utc') THEN a.month_spent ELSE 0 END
"""


def statement(act: str) -> str:
    """Write to each waiting row of an action what the act would do to its task now; rows that say so stay unwritten.

    Answers with a row for each refusal, and for none: tasks, credits, accounts, how many would be done that were
    foretold otherwise before, and the digest of all.
    """
    told = FORETELLINGS[act]
    cases = " ".join(f"WHEN {condition} THEN '{sentence}'" for condition, sentence in (GONE, *told.refusals))
    spent = f"""
        CASE WHEN why <> '' THEN why
             WHEN credits > 0 AND sum(credits) FILTER (WHERE why = '') OVER account > funds THEN '{TOO_POOR}'
             WHEN credits > 0 AND sum(credits) FILTER (WHERE why = '') OVER account > cap THEN '{CAPPED}'
             WHEN count(*) FILTER (WHERE why = '') OVER account > room THEN '{TOO_MANY}'
             WHEN count(*) FILTER (WHERE why = '') OVER deployment > places THEN '{FULL}' ELSE '' END
    """
    binding, was = ("0", "0") if told.varies else ("credits", "r.credits")
    return f"""
        WITH place AS MATERIALIZED (
            SELECT d.id, d.max_pending - (SELECT count(*) FROM (
                SELECT FROM tasks_task p WHERE p.deployment_id = d.id AND p.status IN ('queued', 'running')
                LIMIT d.max_pending) pending) AS places
            FROM tasks_deployment d WHERE d.max_pending IS NOT NULL
        ), look AS MATERIALIZED (
            SELECT r.id, r.number, r.foretold AS before, (r.target, r.seen, {was}) AS was,
                t.account_id, t.deployment_id, CASE {cases} ELSE '' END AS why,
                CASE WHEN t.id IS NOT NULL THEN {told.credits} ELSE 0 END AS credits, {told.target} AS target,
                coalesce({told.seen}, '') AS seen, a.available + a.credit_limit AS funds, {LEFT_OF_CAP} AS cap,
                a.pending_limit - a.pending AS room, place.places
            FROM tasks_bulkactionrow r LEFT JOIN tasks_task t ON t.id = r.task_id
            LEFT JOIN billing_charge c ON c.task_id = r.task_id LEFT JOIN billing_account a ON a.id = t.account_id
            LEFT JOIN place ON place.id = t.deployment_id
            WHERE r.action_id = %(action)s AND r.outcome = ''
        ), asked AS MATERIALIZED (
            SELECT id, number, before, was, account_id, target, seen, {spent if told.spends else "why"} AS why, credits
            FROM look WINDOW account AS (PARTITION BY account_id ORDER BY number),
                deployment AS (PARTITION BY deployment_id ORDER BY number)
        ), told AS MATERIALIZED (
            SELECT id, number, before, was, account_id, target, seen, why,
                CASE WHEN why = '' THEN credits ELSE 0 END::numeric(20, 4) AS credits
            FROM asked
        ), written AS (
            UPDATE tasks_bulkactionrow r SET foretold = told.why, target = told.target, seen = told.seen,
                credits = told.credits
            FROM told WHERE r.id = told.id AND (r.foretold, r.target, r.seen, r.credits) IS DISTINCT FROM
                (told.why, told.target, told.seen, told.credits)
        )
        SELECT why, count(*), sum(credits), count(DISTINCT account_id),
            count(*) FILTER (WHERE why = '' AND (before <> '' OR was IS DISTINCT FROM (target, seen, {binding}))),
            (SELECT md5(string_agg(concat_ws('|', number, why, target, seen, {binding}), ';' ORDER BY number))
             FROM told)
        FROM told GROUP BY why ORDER BY count(*) DESC, why
    """  # noqa: S608 - pieces of this file
