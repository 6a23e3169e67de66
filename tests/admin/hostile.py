"""What customers, receivers and strangers may write, in every column that holds text, whatever wrote there before."""

from typing import Any

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import connection, models

# What a page would run, were it to write this as it stands: as an element, as an attribute of any script of ours, as a
# template. 7 * 191 is 1337.
HOSTILE = "'\"><script>alert('canary')</script><b x-init=canary @click=canary hx-get=/canary onclick=canary>{{7*191}}"
LINK = "javascript:alert('canary')//"
# Columns that nobody but us writes, from words, digests, ids and numbers of ours.
OURS = {
    "admin.LogEntry": {"object_id"},
    "auth.User": {"password"},
    "axes.AccessLog": {"session_hash"},
    "billing.Account": {"callback_secret", "callback_secret_previous"},
    "billing.ActReport": {"screen", "act", "rows"},
    "billing.ApiKey": {"prefix", "digest", "scopes", "previous_prefix", "previous_digest"},
    "billing.Price": {"meter", "unit"},
    "billing.SentForm": {"key"},
    "billing.Transfer": {"kind", "key"},
    "billing.UsageLine": {"meter", "unit"},
    "tasks.Artifact": {"sha256", "key"},
    "tasks.BulkAction": {"act", "data", "status", "foretold"},
    "tasks.BulkActionRow": {"outcome", "foretold"},
    "tasks.Callback": {"event", "format", "status"},
    "tasks.Deployment": {"capability", "name", "queue"},
    "tasks.Run": {"status", "reason_created", "reason_resolved", "usage"},
    "tasks.Task": {
        "status", "test_outcome", "depends_on", "usage", "quote", "idempotency_key", "idempotency_fingerprint",
        "callback_format", "capability", "queue",
    },
    "tasks.TaskEvent": {"type"},
    "tasks.Turn": {"queue"},
    "tasks.Upload": {"keys"},
    "tasks.WebhookEndpoint": {"events"},
}  # fmt: skip
# What a task's error and the parts of a payload are read by; the rest of them is anybody's.
KEPT = {"code", "field", "percent", "number", "reason_resolved", "bound", "usage"}


def fields_of_text() -> list[models.Field]:
    """Every column of text or JSON that somebody else than us may write, of every table that the admin may show."""
    shown = [
        model
        for app in ("admin", "auth", "axes", "billing", "tasks")
        for model in apps.get_app_config(app).models.values()
    ]
    kinds = (models.CharField, models.TextField, models.JSONField, ArrayField)
    concrete = [model for model in shown if model._meta.managed and model._meta.label != "auth.Permission"]
    found = [field for model in concrete for field in model._meta.concrete_fields if isinstance(field, kinds)]
    return [field for field in found if field.name not in OURS.get(field.model._meta.label, ())]


def poison() -> dict[models.Field, int]:
    """Write it everywhere, past the guards; in how many rows of each column it is."""
    fields = fields_of_text()
    tables = {field.model._meta.db_table for field in fields}
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in tables:
            cursor.execute(f'ALTER TABLE "{table}" DISABLE TRIGGER USER')
    written = {field: _write(field) for field in fields}
    with connection.cursor() as cursor:
        for table in tables:
            cursor.execute(f'ALTER TABLE "{table}" ENABLE TRIGGER USER')
    return written


def _write(field: models.Field) -> int:
    manager, count = field.model._base_manager, 0
    for pk, value in manager.values_list("pk", field.name):
        text = _hostile(field, pk, value)
        count += manager.filter(pk=pk).update(**{field.name: text})
    return count


def _hostile(field: models.Field, pk: Any, value: Any) -> Any:
    if isinstance(field, models.JSONField):
        return _poisoned(value)
    text = f"{LINK}{HOSTILE}" if "url" in field.name else HOSTILE
    return (f"{pk} {text}" if field.unique else text)[: field.max_length]


def _poisoned(value: Any) -> Any:
    if isinstance(value, dict):
        inside = {name: each if name in KEPT else _poisoned(each) for name, each in value.items()}
        return inside | ({} if "code" in value else {HOSTILE: HOSTILE})
    if isinstance(value, list):
        return [_poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) else value
