"""How seeded rows are written: dice first, then table by table, in one transaction that the audit has to pass.

History cannot be written through the guards, which date what they write themselves and let tasks begin queued alone. So
this transaction has them off (`session_replication_role`), touches no row but its own, and keeps nothing unless every
check of the audit holds afterwards; of a million tasks that takes as long again, and can be left to `manage.py audit`.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.db import connection, transaction
from django.utils.timezone import now
from psycopg.errors import InsufficientPrivilege
from psycopg.types.json import Json, Jsonb

from billing import audit, pricing
from billing.models import Price, RateCard
from tasks.models import Deployment
from tasks.seeding import people
from tasks.seeding.samples import MODELS, PRICES, SAMPLES, Sample, samples, usd
from tasks.sql import load
from tasks.statuses import ErrorCode

QUEUE = "seeded"
SUPERUSER = "postgres"
CARD = "seeded"
MOST_DAYS = 366
# How busy each hour of the day and day of the week is, beside the others.
HOURS = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 19, 18, 15, 17, 18, 17, 15, 12, 9, 8, 7, 6, 4, 3)
WEEKDAYS = (1.0, 1.05, 1.05, 1.0, 0.9, 0.4, 0.35)
WHY = {
    ErrorCode.CAPABILITY_ERROR: ("The work cannot be done on this input.", "failed", "failed"),
    ErrorCode.INVALID_INPUT: ("The input is not what this model takes.", "exception", "malformed_payload"),
    ErrorCode.UPSTREAM_ERROR: ("The provider answered 502.", "failed", "upstream_error"),
    ErrorCode.TIMEOUT: ("The run took longer than 120 s.", "failed", "timeout"),
    ErrorCode.EXPIRED: ("The task waited too long for its first start.", "exception", "expired"),
    ErrorCode.DEADLINE_EXCEEDED: ("The deadline passed before the task ended.", "exception", "deadline_exceeded"),
    ErrorCode.WORKER_LOST: ("The worker was lost.", "exception", "claim_expired"),
    ErrorCode.DEPENDENCY_FAILED: ("A task that it depends on failed.", "exception", "resource_unavailable"),
    ErrorCode.INTERNAL_ERROR: ("Something went wrong on our side.", "exception", "internal_error"),
}
TABLES = """
CREATE TEMP TABLE seed_hour (at timestamptz, seconds float8, tasks int) ON COMMIT DROP;
CREATE TEMP TABLE seed_model (model int, deployment_id uuid, name text, capability text, drained boolean,
    partial boolean, since float8, until float8) ON COMMIT DROP;
CREATE TEMP TABLE seed_sample (model int, number int, input json, output json, usage jsonb, quote jsonb, quoted numeric,
    charged numeric, warnings jsonb, partial_text text, partial_usage jsonb, partial_charged numeric) ON COMMIT DROP;
CREATE TEMP TABLE seed_line (model int, number int, partial boolean, position int, meter text, quantity numeric,
    unit text, unit_size int, unit_price numeric, price_id uuid, listed numeric, billed numeric, usd numeric)
    ON COMMIT DROP;
CREATE TEMP TABLE seed_reason (code text, retryable boolean, run_status text, resolved text, error jsonb)
    ON COMMIT DROP;
CREATE TEMP TABLE seed_account (place int, id uuid, born timestamptz, opening numeric, low boolean, failing boolean,
    hook text, key_id uuid, key_prefix text, second_key_id uuid, second_key_prefix text, receiver_id bigint,
    endpoint_id uuid, endpoint_url text) ON COMMIT DROP
"""
STEPS = (
    "draw", "life", "task", "began", "event", "seq", "write_tasks", "write_runs", "write_events", "move", "write_lines",
    "write_transfers", "write_charges", "write_callbacks", "refund", "write_attempts", "balance", "balance_keys",
)  # fmt: skip
# What is known of a table before it is asked again: without that, the planner takes it for empty.
AFTER = {
    "task": "ANALYZE seed_task",
    "began": "CREATE INDEX ON seed_began (id); ANALYZE seed_began",
    "seq": "CREATE INDEX ON seed_seq (id); ANALYZE seed_seq",
    "write_tasks": "ANALYZE tasks_task",
    "write_charges": "ANALYZE billing_charge; ANALYZE billing_transfer; ANALYZE billing_usageline",
    "write_callbacks": "ANALYZE tasks_callback",
}


class NotHere(Exception):
    """Rows cannot be seeded here; the message is one sentence."""


@dataclass(frozen=True)
class Seeded:
    """What was written, and the audit of it, unless that was left for later."""

    tasks: int
    accounts: int
    report: audit.Report | None


def seed(
    tasks: int, *, accounts: int, days: int, chance: random.Random, say: Callable[[str], None], audited: bool
) -> Seeded:
    """Write so many tasks of new accounts, over the last days, and all that belongs to them. Raises NotHere."""
    with _as_superuser(), transaction.atomic(durable=True), connection.cursor() as cursor:
        _stand_aside(cursor)
        cursor.execute(TABLES)
        cursor.execute("SELECT setseed(%s)", [chance.uniform(-1, 1)])
        begin = now() - timedelta(days=days)
        works = _offer(cursor, begin, chance)
        _write(cursor, "seed_reason", _reasons())
        _write(cursor, "seed_hour", _hours(tasks, begin, days))
        made = people.open_accounts(accounts, begin, chance)
        _write(cursor, "seed_account", made)
        params = _params(tasks, accounts, [row[1] for row in made])
        for step in STEPS:
            say(step.replace("_", " "))
            cursor.execute(load(f"seed/{step}"), params)
            if known := AFTER.get(step):
                cursor.execute(known)
        files = _files(cursor, works, params)
        cursor.execute("SET LOCAL session_replication_role = origin")
        cursor.execute("ANALYZE")
        say("audit" if audited else "commit")
        report = _proven() if audited else None
        for key, content in files.items():
            storages["artifacts"].save(key, ContentFile(content))
    return Seeded(tasks, accounts, report)


@contextmanager
def _as_superuser() -> Iterator[None]:
    """The embedded engine's superuser, whom its owner may be; elsewhere whoever we are."""
    if not settings.EMBEDDED.embeds_postgres:
        yield
        return
    ours = connection.settings_dict["USER"]
    try:
        connection.close()
        connection.settings_dict["USER"] = SUPERUSER
        yield
    finally:
        connection.close()
        connection.settings_dict["USER"] = ours


def _stand_aside(cursor: Any) -> None:
    """Have the guards off for this transaction alone."""
    try:
        with connection.wrap_database_errors:
            cursor.execute("SET LOCAL session_replication_role = replica")
    except Exception as error:
        if isinstance(error.__cause__, InsufficientPrivilege):
            raise NotHere(
                "The database's role may not write history: seeding takes a superuser, or a role with "
                "GRANT SET ON PARAMETER session_replication_role."
            ) from error
        raise


def _proven() -> audit.Report:
    report = audit.examine()
    if not report.holds:
        first = report.broken[0]
        raise NotHere(f"The books would not balance, so nothing is kept: {first.check.name}: {first.offender}.")
    return report


def _params(tasks: int, accounts: int, account_ids: list[Any]) -> dict[str, Any]:
    return {
        "tasks": tasks,
        "accounts": accounts,
        "account_ids": account_ids,
        "samples": SAMPLES,
        "salt": uuid4().hex,
        "queue": QUEUE,
        "keep": settings.ARTIFACT_SECONDS,
        "schedule": list(accumulate(settings.CALLBACK_SCHEDULE, initial=timedelta(seconds=1)))[:-1],
    }


def _hours(tasks: int, begin: datetime, days: int) -> list[tuple[datetime, float, int]]:
    """How many tasks each hour since then saw, in the rhythm of days and weeks."""
    hours = [begin + timedelta(hours=hour) for hour in range(days * 24)]
    weights = [HOURS[hour.hour] * WEEKDAYS[hour.weekday()] for hour in hours]
    shares = [0, *(round(tasks * part / sum(weights)) for part in accumulate(weights))]
    return [(hour, 3600.0, shares[place + 1] - shares[place]) for place, hour in enumerate(hours)]


def _reasons() -> list[tuple[Any, ...]]:
    return [
        (code, retryable, status, resolved, Jsonb({"code": code, "message": message, "retryable": retryable}))
        for code, (message, status, resolved) in WHY.items()
        for retryable in (False, True)
    ]


def _offer(cursor: Any, begin: datetime, chance: random.Random) -> dict[str, bytes]:
    """The models with their prices and work; the files that the work made, by their digests."""
    card, rates = _card(begin)
    since, files = 0.0, {}
    for place, model in enumerate(MODELS):
        deployment = _deployment(model, card)
        until = 2.0 if model is MODELS[-1] else since + model.share
        told = (model.name, model.capability, deployment.drained_at is not None, model.bills_partial_output)
        _write(cursor, "seed_model", [(place, deployment.pk, *told, since, until)])
        since = until
        for number, sample in enumerate(samples(model, rates, chance=chance), start=1):
            _write(cursor, "seed_sample", [(place, number, *_sample(sample))])
            _write(cursor, "seed_line", [(place, number, *line) for line in _lines(sample)])
            for file in sample.result.artifacts:
                files[sample.result.output["sha256"]] = file.content
    return files


def _card(begin: datetime) -> tuple[RateCard, list[pricing.Rate]]:
    """The rate card of seeded models, in effect since before the first task."""
    card, _ = RateCard.objects.get_or_create(name=CARD)
    if not card.prices.exists():
        since = now() - timedelta(days=MOST_DAYS + 1)
        for meter, credits_, size in PRICES:
            unit = pricing.UNITS[meter]
            Price(rate_card=card, meter=meter, unit=unit, unit_size=size, credits=credits_, effective_from=since).save()
    first = card.prices.order_by("meter", "effective_from").distinct("meter")
    if any(price.effective_from > begin for price in first):
        raise NotHere(f"The prices of the rate card {CARD} are too young for tasks of that time.")
    rates = [pricing.Rate(str(p.pk), p.meter, p.unit, p.unit_size, p.credits) for p in first]
    return card, sorted(rates, key=lambda rate: pricing.place_of(rate.meter))


def _deployment(model: Any, card: RateCard) -> Deployment:
    found = Deployment.objects.filter(name=model.name).first()
    if found and found.rate_card_id != card.pk:
        raise NotHere(f"There is another model named {model.name} here.")
    return found or Deployment.objects.create(
        name=model.name,
        capability=model.capability,
        resolved_model=f"{model.name}-1",
        rate_card=card,
        queue=QUEUE,
        ttl=30 * 86_400,
        max_lifetime=60 * 86_400,
        bills_partial_output=model.bills_partial_output,
        drained_at=now() if model.drained else None,
    )


def _sample(sample: Sample) -> tuple[Any, ...]:
    warnings = [*sample.result.warnings, *([people.CUT] if sample.bill.cut else [])]
    return (
        Json(sample.input),
        Json(sample.result.output),
        Jsonb(sample.usage),
        Jsonb(sample.quote),
        sample.quoted,
        sample.bill.charged,
        Jsonb(warnings),
        sample.partial_text,
        Jsonb(sample.partial_usage),
        sample.partial_bill.charged,
    )


def _lines(sample: Sample) -> list[tuple[Any, ...]]:
    """The lines of the whole work, then those of what an interruption leaves."""
    return [
        (
            *(partial, place, line.rate.meter, line.quantity, line.rate.unit, line.rate.unit_size, line.rate.credits),
            *(line.rate.price_id, line.listed, line.billed, usd(line.billed)),
        )
        for partial, bill in ((False, sample.bill), (True, sample.partial_bill))
        for place, line in enumerate(bill.lines)
    ]


def _files(cursor: Any, works: dict[str, bytes], params: dict[str, Any]) -> dict[str, bytes]:
    """Write the rows of files; what those that are still kept hold, by where the storage is to have it."""
    cursor.execute(load("seed/write_artifacts"), params)
    return {key: works[digest] for key, digest, kept in cursor.fetchall() if kept}


def _write(cursor: Any, table: str, rows: list[tuple[Any, ...]]) -> None:
    if rows:
        values = ", ".join(["%s"] * len(rows[0]))
        cursor.executemany(f"INSERT INTO {table} VALUES ({values})", rows)  # noqa: S608 - tables are ours
