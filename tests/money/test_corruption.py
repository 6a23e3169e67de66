"""Each value of each row that money and promises depend on, changed past every guard: the audit names the row.

What is changed is read from the models. A column of which nothing can be told stands here with the reason, and a test
fails for one that is neither found nor here, and for one that is here and found.
"""

from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.postgres.fields import ArrayField
from django.db import DataError, IntegrityError, connection, models, transaction

from billing import audit, ledger
from billing.models import Account, ApiKey, Charge, Price, Transfer, UsageLine
from tasks import lifecycle
from tasks.models import Callback, Run, Task, TaskEvent
from tasks.models.fields import ExactJSONField
from tasks.statuses import ErrorCode
from tests.billing.builders import run_sql
from tests.builders import account, deployment, key, request

pytestmark = pytest.mark.django_db(transaction=True)

OURS = (Account, ApiKey, Transfer, Charge, UsageLine, Price, Task, Run, TaskEvent, Callback)
GUARDED = {"guards_are_on", "guards_do_what_they_say", "constraints_are_there"}
ITS_OWN = "nothing refers to it"
FREE_TEXT = "free text, kept once"
A_SETTING = "what an operator allows; it may be anything"
ASKED = "what was asked for, kept once"
A_MOMENT = "a moment that nothing else has"
WORKING = "how the work goes on, which moves no money"

# A column, or a column of one kind of row, and why nothing can be told of it.
NOTHING_CAN_BE_TOLD: dict[str, str] = {
    f"{model}.{name}": why
    for model, why, names in (
        ("Account", A_SETTING, "twin_of is_active is_internal credit_limit monthly_cap"),
        ("Account", A_SETTING, "low_balance_threshold pending_limit"),
        ("Account", A_SETTING, "running_limit requests_per_minute"),
        ("Account", FREE_TEXT, "name callback_secret callback_secret_previous"),
        ("Account", A_MOMENT, "callback_secret_previous_until created_at"),
        ("ApiKey", A_SETTING, "monthly_cap expires_at revoked_at"),
        ("ApiKey", FREE_TEXT, "name prefix digest previous_prefix previous_digest previous_until"),
        ("ApiKey", A_MOMENT, "created_at last_used_at"),
        ("Price", "a card may have any new price, and a deployment another card", "(copied) rate_card"),
        ("Price", A_MOMENT, "created_at"),
        ("UsageLine", A_MOMENT, "created_at"),
        ("UsageLine", "the worker's word", "estimated"),
        ("Task", ASKED, "api_key capability client_reference deployment metadata model resolved_model test timeout"),
        ("Task", ASKED, "test_outcome"),
        ("Task", ASKED, "creation_request idempotency_fingerprint idempotency_key depends_on not_before"),
        ("Task", "progress takes numbers without a row", "seq"),
        ("Task", "so small a change is in no reference", "usd_rate"),
        ("Task", "a capability may warn of anything", "warnings"),
        ("Task", WORKING, "available_at deadline expires_at priority progress queue"),
        ("Run", ITS_OWN, "id"),
        ("Run", WORKING, "partial_text scheduled_at"),
        ("TaskEvent", ITS_OWN, "id"),
        ("TaskEvent", A_MOMENT, "created_at"),
        ("Transfer", ITS_OWN, "id"),
        ("Callback", "it is the receiver's", "id"),
        ("Callback", WORKING, "next_attempt_at lease_expires_at lease_token tries_left attempt_count last_error"),
        ("Callback", WORKING, "redelivered_at waits_since failed_at"),
        ("Callback", A_MOMENT, "created_at"),
    )
    for name in names.split()
} | {
    f"{column} of {kind}": why
    for column, why, *kinds in (
        ("UsageLine.id", ITS_OWN, "waived"),
        ("Task.callback_format", ASKED, "queued", "running"),
        ("Task.callback_url", ASKED, "queued", "running"),
        ("Task.input", ASKED, "queued", "running"),
        ("Task.max_retries", "what was given back may have spent a retry", "running"),
        ("Task.rerun_of", "the one it points to may be purged", "waived"),
        ("Run.reason_resolved", "the worker's word; the task's error is told twice", "failed"),
        ("Run.status", "the worker's word; the task's error is told twice", "failed"),
        ("Run.resolved_at", A_MOMENT, "running"),
        ("Run.usage", "what is streamed is known to the worker alone until the end", "running"),
        ("Run.worker", FREE_TEXT, "canceled", "failed", "running", "succeeded", "waived"),
        ("TaskEvent.actor", FREE_TEXT, "task.canceled", "task.queued"),
        ("Transfer.actor", FREE_TEXT, "adjustment", "grant"),
        ("Transfer.reason", FREE_TEXT, "adjustment", "grant"),
        ("Transfer.key", "a request's or a form's own", "adjustment", "grant", "refund"),
        ("Transfer.kind", "an adjustment upwards is a grant by another name", "grant"),
    )
    for kind in kinds
}  # fmt: skip


def succeed(task_id, queue):
    claimed = lifecycle.claim(queue, worker="w")
    assert claimed.task_id == task_id
    lifecycle.succeed(claimed, output={"text": "done"}, usage={"characters": Decimal(3)}, warnings=[])


def world() -> dict[type[models.Model], dict[str, models.Model]]:
    """Honest rows of each kind, by model, named for their kind."""
    mine = account("1000", low_balance_threshold=5)
    spender, _ = key(mine)
    account("50")
    ledger.adjust(mine.pk, Decimal("-0.5"), key="adjusted", reason="a mistake", actor="operator:ann")
    to = deployment(prices=[("task", "2"), ("characters", "0.5")], bills_partial_output=True)
    asked = {"input": {"bound": {"characters": 10}}, "callback_url": "http://127.0.0.1:9/", "metadata": {"a": "b"}}

    def submit(**fields):
        return lifecycle.submit(request(mine, to, **{**asked, **fields})).task_id

    done = submit(api_key_id=spender.pk, idempotency_key="k", fingerprint="f", client_reference="r")
    succeed(done, to.queue)
    line = UsageLine.objects.get(task_id=done, meter="characters")
    lifecycle.refund(done, Decimal("0.5"), line=line, key="refunded", reason="sorry", by="operator:ann")
    failed = submit()
    lifecycle.fail(lifecycle.claim(to.queue, worker="w"), code=ErrorCode.CAPABILITY_ERROR, message="No.")
    canceled = submit()
    claimed = lifecycle.claim(to.queue, worker="w")
    lifecycle.publish(claimed, text="abc", offset=0, usage={"characters": Decimal(3)})
    lifecycle.cancel(canceled, by="operator:ann", reason="too slow")
    waived = lifecycle.rerun_free(failed, by="operator:ann", reason="ours").task_id
    succeed(waived, to.queue)
    running = submit()
    lifecycle.give_back(lifecycle.claim(to.queue, worker="w"))
    assert lifecycle.claim(to.queue, worker="w").task_id == running
    queued = submit()
    tasks = {
        "succeeded": done,
        "failed": failed,
        "canceled": canceled,
        "waived": waived,
        "running": running,
        "queued": queued,
    }
    return {
        Account: {"spending": mine},
        ApiKey: {"spent": ApiKey.objects.get(pk=spender.pk)},
        Transfer: {t.kind: t for t in Transfer.objects.filter(account=mine).order_by("-id")},
        Charge: {name: c for name, pk in tasks.items() if (c := Charge.objects.filter(pk=pk).first())},
        UsageLine: {"refunded": line, "waived": UsageLine.objects.filter(task_id=waived).first()},
        Price: {"used": Price.objects.get(rate_card=to.rate_card, meter="characters")},
        Task: {name: Task.objects.get(pk=pk) for name, pk in tasks.items()},
        Run: {name: Run.objects.filter(task_id=pk).order_by("number").first() for name, pk in tasks.items()},
        TaskEvent: {e.type: e for e in TaskEvent.objects.filter(task_id__in=tasks.values()).order_by("-id")},
        Callback: {name: Callback.objects.get(task_id=tasks[name]) for name in ("succeeded", "canceled")},
    }


CHOICES = {
    "kind": Transfer.Kind.values,
    "meter": ["task", "characters", "input_tokens"],
    "type": ["task.queued", "task.running", "task.succeeded", "task.failed", "task.canceled", "task.refunded"],
}


OTHERS = {
    models.DecimalField: ["coalesce({column}, 0) + 0.0001", "coalesce({column}, 1) - 0.0001"],
    models.BooleanField: ["NOT {column}"],
    models.IntegerField: ["coalesce({column}, 0) + 1"],
    models.AutoField: ["{column} + 10000"],
    models.BigAutoField: ["{column} + 10000"],
    models.UUIDField: ["gen_random_uuid()"],
    models.DateField: ["coalesce({column}, now()) + interval '1 month'"],
    models.CharField: ["coalesce({column}, '') || 'x'", "''"],
    models.TextField: ["coalesce({column}, '') || 'x'", "''"],
    models.JSONField: ["'{{}}'", '\'{{"changed": "1"}}\''],
    ExactJSONField: ["'{{}}'", '\'{{"changed": "1"}}\''],
    ArrayField: ["array[gen_random_uuid()]"],
}
# What a copy of a row needs so that it is not refused as the same one.
COPIED = {
    Account: {"id": "gen_random_uuid()", "twin_of_id": "NULL"},
    Transfer: {"id": "id + 10000", "key": "key || 'x'", "account_seq": "account_seq + 10000"},
    ApiKey: {"id": "gen_random_uuid()", "digest": "digest || 'x'"},
    Charge: {"task_id": "gen_random_uuid()"},
    UsageLine: {"id": "id + 10000", "position": "position + 100"},
    Price: {"id": "gen_random_uuid()", "effective_from": "now()"},
    Task: {"id": "gen_random_uuid()", "idempotency_key": "NULL", "rerun_root": "NULL"},
    Run: {"id": "gen_random_uuid()", "number": "number + 100", "lease_token": "NULL"},
    TaskEvent: {"id": "id + 10000", "seq": "seq + 100"},
    Callback: {"id": "gen_random_uuid()"},
}


def others(field: models.Field) -> list[str]:
    """Other values for a column, as SQL."""
    target = field.target_field if isinstance(field, models.ForeignKey) else field
    if values := CHOICES.get(field.column) or [value for value, _ in field.choices or []]:
        found = [f"'{value}'" for value in values]
    else:
        found = next(found for kind, found in reversed(OTHERS.items()) if isinstance(target, kind))
    return [value.format(column=f'"{field.column}"') for value in [*found, *(["NULL"] if field.null else [])]]


def changes(model: type[models.Model], row: models.Model) -> Iterator[tuple[str, str]]:
    """What is done to a row: each other value of each column, its end, and a copy; each with its name."""
    table, pk = model._meta.db_table, f"\"{model._meta.pk.column}\" = '{row.pk}'"
    fields = [field for field in model._meta.concrete_fields if not field.generated]
    for field in fields:
        for value in others(field):
            changed = f'UPDATE {table} SET "{field.column}" = {value} WHERE {pk}'
            yield field.name, f'{changed} AND "{field.column}"::text IS DISTINCT FROM ({value})::text RETURNING *'
    yield "(deleted)", f"DELETE FROM {table} WHERE {pk} RETURNING *"
    columns = {f'"{field.column}"': COPIED[model].get(field.column, f'"{field.column}"') for field in fields}
    copied = f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(columns.values())} FROM {table} WHERE {pk}"
    yield "(copied)", f"{copied} RETURNING *"


def unguard() -> None:
    """Take every trigger, CHECK and foreign key away, for this transaction."""
    for model in OURS:
        run_sql(f"ALTER TABLE {model._meta.db_table} DISABLE TRIGGER USER")
    for table, name in run_sql(
        "SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype IN ('c', 'f') AND connamespace ="
        " current_schema()::regnamespace AND conrelid <> 0 ORDER BY contype DESC"
    ):
        run_sql(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')


def ids(model: type[models.Model], row: dict[str, Any]) -> set[str]:
    """What names a row: itself, its task, and its account where the row is the account's."""
    pk = row[model._meta.pk.column]
    own = {Transfer: f"transfer {pk}:", UsageLine: f"line {pk}"}.get(model, str(pk))
    account_ = [row["account_id"]] if model in (Transfer, Charge) else []
    tasks = [row.get("task_id"), *account_]
    return {own if not own.isdigit() else "", *(str(id_) for id_ in tasks if id_)} - {""}


def named(cursor: Any, expected: set[str]) -> bool:
    """Whether a check names the row."""
    checks = [check for check in reversed(audit.CHECKS) if check.name not in GUARDED]
    offenders = filter(None, (audit._offender(cursor, check) for check in checks))
    return any(name in offender for offender in offenders for name in expected)


def missed(model: type[models.Model], rows: dict[str, models.Model], users: set[str]) -> set[str]:
    """The columns whose change the audit does not see; with the kind of the row, where it sees that of another."""
    seen: dict[str, dict[str, bool]] = {}
    for kind, row in rows.items():
        before = ids(model, {field.column: getattr(row, field.attname) for field in model._meta.concrete_fields})
        for name, change in changes(model, row):
            if f"{model.__name__}.{name}" in NOTHING_CAN_BE_TOLD and False in seen.get(name, {}).values():
                continue
            for after in changed(change):
                with connection.cursor() as cursor:
                    found = named(cursor, before | ids(model, after) | users)
                seen.setdefault(name, {}).setdefault(kind, True)
                seen[name][kind] &= found
    return {
        f"{model.__name__}.{name}" + (f" of {kind}" if any(kinds.values()) else "")
        for name, kinds in seen.items()
        for kind, found in kinds.items()
        if not found
    }


def changed(change: str) -> Iterator[dict[str, Any]]:
    """The row as it is after the change, which is taken back then; nothing where a unique key refuses it."""
    with transaction.atomic(), connection.cursor() as cursor:
        with suppress(IntegrityError, DataError), transaction.atomic():
            cursor.execute(change)
            names = [column.name for column in cursor.description]
            yield from (dict(zip(names, values, strict=True)) for values in cursor.fetchall())
        transaction.set_rollback(True)


def test_each_change_of_a_row_is_named_or_stands_here_with_its_reason():
    rows = world()
    users = {Price: {str(task.pk) for task in rows[Task].values()}}
    assert audit.run().broken == []

    with transaction.atomic():
        unguard()
        unseen = set().union(*(missed(model, rows[model], users.get(model, set())) for model in OURS))
        transaction.set_rollback(True)

    assert unseen - set(NOTHING_CAN_BE_TOLD) == set()
    assert set(NOTHING_CAN_BE_TOLD) - unseen == set()
