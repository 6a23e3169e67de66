"""The door to transfers. Each verb inserts one, and the database moves the balances with it.

Amounts are credits with at most four places. A key makes a verb safe to repeat: the second call returns the first's
transfer, or raises KeyReused when it asks for another. There is one door beside this one: `tasks/sql/submit.sql` holds,
in the statement that creates the task. What is held ends in `settle`, as a capture and a release, or in
`release`.
"""

from decimal import Decimal
from uuid import UUID

from django.db import DatabaseError, IntegrityError, transaction
from psycopg.types.json import Jsonb

from billing import pricing
from billing.exceptions import REFUSALS, ChangedSince, KeyReused, Refusal
from billing.models import Account, Transfer
from billing.statements import constraint_of, one

POST = """
INSERT INTO billing_transfer (account_id, task_id, usage_line_id, kind, amount, reason, actor, key)
VALUES (%(account)s, %(task)s, %(line)s, %(kind)s, %(amount)s, %(reason)s, %(actor)s, %(key)s) RETURNING id
"""

# Lines first, then what they add up to, then what is left of the hold: a row each, moved by the same trigger.
SETTLE = """
WITH line AS (
    INSERT INTO billing_usageline (task_id, account_id, position, meter, quantity, unit, unit_size, unit_price,
        price_id, listed_amount, billed_amount, usd_reference, estimated)
    SELECT %(task)s, %(account)s, position, meter, quantity, unit, unit_size, unit_price, price_id, listed, billed, usd,
        estimated
    FROM jsonb_to_recordset(%(lines)s) AS l(position smallint, meter text, quantity numeric, unit text, unit_size int,
         unit_price numeric, price_id uuid, listed numeric, billed numeric, usd numeric, estimated boolean)
)
INSERT INTO billing_transfer (account_id, task_id, kind, amount, key)
SELECT %(account)s, %(task)s, kind, amount, kind || ':' || %(task)s
FROM (VALUES ('capture', %(charged)s::numeric), ('release', %(released)s::numeric)) AS moved(kind, amount)
WHERE amount > 0 RETURNING id
"""

# Whole holds, of tasks that end for nothing.
RELEASE = """
INSERT INTO billing_transfer (account_id, task_id, kind, amount, key)
SELECT account_id, task_id, 'release', held, 'release:' || task_id FROM billing_charge
WHERE task_id = ANY (%(tasks)s) AND held > 0 ORDER BY account_id, task_id RETURNING id
"""


def grant(
    account_id: UUID, amount: Decimal, *, key: str, reason: str, actor: str, seen: Decimal | None = None
) -> Transfer:
    """Give credits. `seen` is what the caller saw to be granted so far: raises ChangedSince when it is not."""
    _check_granted(account_id, seen)
    return _post(account_id, "grant", amount, key=key, reason=reason, actor=actor)


def adjust(
    account_id: UUID, amount: Decimal, *, key: str, reason: str, actor: str, seen: Decimal | None = None
) -> Transfer:
    """Correct a balance by a signed amount. Raises InsufficientBalance below the credit limit, or ChangedSince when not
    as much was granted as was `seen`."""
    _check_granted(account_id, seen)
    return _post(account_id, "adjustment", amount, key=key, reason=reason, actor=actor)


def refund(
    account_id: UUID, amount: Decimal, *, task_id: UUID, line_id: int | None = None, key: str, reason: str, actor: str
) -> Transfer:
    """Give charged credits back, against one line or the whole. Raises RefundTooLarge or NothingCharged."""
    return _post(account_id, "refund", amount, task_id=task_id, line_id=line_id, key=key, reason=reason, actor=actor)


def settle(account_id: UUID, bill: pricing.Bill, *, task_id: UUID, held: Decimal, credits_per_usd: Decimal) -> None:
    """Write the lines of a bill, capture its sum and release the rest of the hold, in one statement.

    Nothing else captures: what is charged always has its lines.
    """
    lines = [_line_row(position, line, credits_per_usd) for position, line in enumerate(bill.lines)]
    if lines or held:
        _execute(
            SETTLE,
            task=task_id,
            account=account_id,
            lines=Jsonb(lines),
            charged=bill.charged,
            released=held - bill.charged,
        )


def release(task_ids: list[UUID]) -> None:
    """Give back all that these tasks hold, in one statement. Whoever calls it keeps others from settling them."""
    _execute(RELEASE, tasks=task_ids)


def _check_granted(account_id: UUID, seen: Decimal | None) -> None:
    """Only what people give and take moves this total; what tasks hold meanwhile changes no decision of theirs."""
    if seen is None:
        return
    now = Account.objects.select_for_update(no_key=True).only("granted").get(pk=account_id).granted
    if now != seen:
        raise ChangedSince(f"It changed since you looked: {now:f} credits are granted now, not {seen:f}.")


def _line_row(position: int, line: pricing.Line, credits_per_usd: Decimal) -> dict[str, object]:
    return {
        "position": position,
        "meter": line.rate.meter,
        "quantity": str(line.quantity),
        "unit": line.rate.unit,
        "unit_size": line.rate.unit_size,
        "unit_price": str(line.rate.credits),
        "price_id": line.rate.price_id,
        "listed": str(line.listed),
        "billed": str(line.billed),
        "usd": str(pricing.usd(line.billed, credits_per_usd=credits_per_usd)),
        "estimated": line.estimated,
    }


def _post(
    account_id: UUID,
    kind: str,
    amount: Decimal,
    *,
    key: str,
    task_id: UUID | None = None,
    line_id: int | None = None,
    reason: str = "",
    actor: str = "system",
) -> Transfer:
    """Insert in a savepoint. Whatever refuses it, a key that is taken says that it was done before, or is not ours."""
    try:
        with transaction.atomic():
            row = _execute(
                POST,
                account=account_id,
                task=task_id,
                line=line_id,
                kind=kind,
                amount=amount,
                reason=reason,
                actor=actor,
                key=key,
            )
    except (IntegrityError, Refusal):
        if (done := Transfer.objects.filter(key=key).first()) is None:
            raise
        asked = (account_id, kind, amount, task_id, line_id)
        if (done.account_id, done.kind, done.amount, done.task_id, done.usage_line_id) != asked:
            raise KeyReused from None
        return done
    return Transfer.objects.get(pk=row[0])


def _execute(statement: str, **params: object) -> tuple:
    """Run the statement; a refusal by name becomes its exception."""
    try:
        return one(statement, params)
    except DatabaseError as error:
        if refusal := REFUSALS.get(constraint_of(error) or ""):
            raise refusal from error
        raise
