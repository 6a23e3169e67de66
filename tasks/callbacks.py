"""Callbacks: owed by a row that is written with the final status, delivered by a job, made up for by the sweep."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import uuid_utils
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet, Value
from django.db.models.functions import MD5, Now
from psycopg.types.json import Jsonb
from typeid import TypeID

from billing.failpoints import once_committed
from billing.statements import rows
from tasks import events, queues
from tasks.exceptions import NoCallback, TaskNotFinal, TaskNotFound
from tasks.models import Callback, Receiver, Task
from tasks.models.callback import ENDED_BADLY, OPEN
from tasks.models.deployment import CALLBACKS_QUEUE
from tasks.models.receiver import ENDPOINT
from tasks.statuses import FINAL

TRIES = len(settings.CALLBACK_SCHEDULE)
# Callbacks of which one transaction owes anew: it holds as many tasks.
BATCH = 500


@dataclass(frozen=True)
class Format:
    """How a receiver is written to: `freeze` stores the bodies, `headers` prove who sent it, anew on every try.

    `headers` takes the callback's id, the body, the account's valid secrets (the current one first) and the second.
    """

    freeze: Callable[[Sequence[UUID]], None]
    headers: Callable[[UUID, bytes, Sequence[str], int], dict[str, str]]


# The body is the task as it is at its end, the callback's own block included; every try sends these bytes.
# A task is rendered once for all that are told of it.
FREEZE_STANDARD = """
WITH told AS MATERIALIZED (
    SELECT task_id, task_json(task_id) AS task FROM (
        SELECT DISTINCT task_id FROM tasks_callback WHERE id = ANY (%(ids)s)) ended
)
UPDATE tasks_callback c
SET body = '{"type":"' || event || '","timestamp":"' || rfc3339(now()) || '","data":' || told.task || '}'
FROM told WHERE c.id = ANY (%(ids)s) AND c.task_id = told.task_id RETURNING c.id
"""


def freeze_standard(callback_ids: Sequence[UUID]) -> None:
    """Store the Standard Webhooks bodies of callbacks."""
    rows(FREEZE_STANDARD, {"ids": list(callback_ids)})


# An event of a task for the endpoints that ask for it.
TELL = """
WITH endpoint AS MATERIALIZED (
    SELECT e.id, e.account_id, e.url FROM tasks_task t JOIN tasks_webhookendpoint e ON e.account_id = t.account_id
    WHERE t.id = %(task)s AND e.deleted_at IS NULL AND %(event)s = ANY (e.events) FOR SHARE OF e
)
INSERT INTO tasks_callback (id, task_id, account_id, endpoint_id, event, url, format, body, status, tries_left)
SELECT uuid7(), %(task)s, account_id, id, %(event)s, url, 'standard', '', 'pending', %(tries)s FROM endpoint
RETURNING id, format
"""


def message_id(callback_id: UUID) -> str:
    """The id that a receiver knows the callback by, the same on every try."""
    return str(TypeID.from_uuid(uuid_utils.UUID(bytes=callback_id.bytes), prefix="msg"))


def sign_standard(callback_id: UUID, body: bytes, secrets: Sequence[str], at: int) -> dict[str, str]:
    """The Standard Webhooks headers, with a signature by each secret."""
    message = message_id(callback_id)
    content = f"{message}.{at}.".encode() + body
    return {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def proves(headers: Mapping[str, str], body: bytes, *, secret: str) -> bool:
    """Whether Standard Webhooks headers carry a signature of this body by this secret."""
    content = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    return f"v1,{_signature(secret, content)}" in headers.get("webhook-signature", "").split()


# How receivers are written to, by name. A compat package adds its own when its app is ready.
FORMATS: dict[str, Format] = {"standard": Format(freeze_standard, sign_standard)}


def freeze(owed: Iterable[tuple[UUID, str]]) -> None:
    """Render the bodies of callbacks, by their formats, in the transaction of what they tell; wake the deliverer when
    it commits."""
    by_format: dict[str, list[UUID]] = {}
    for callback_id, format_ in owed:
        by_format.setdefault(format_ if format_ in FORMATS else "standard", []).append(callback_id)
    for format_, callback_ids in by_format.items():
        FORMATS[format_].freeze(callback_ids)
    if by_format:
        queues.wake_on_commit(CALLBACKS_QUEUE)


def tell_endpoints(task_id: UUID, event: str) -> None:
    """Owe an event of the task, as it is now, to the endpoints of its account that ask for it."""
    freeze(rows(TELL, {"task": task_id, "event": event, "tries": TRIES}))


@transaction.atomic(durable=True)
def redeliver(task_id: UUID, *, by: str, reason: str | None = None, key: str | None = None) -> None:
    """Owe the callback again: same id, same bytes, fresh tries; once for a key. Raises TaskNotFound, TaskNotFinal or
    NoCallback.

    A delivery under way loses its lease: what it hears is logged, and the receiver hears of it once more. A paused
    receiver is probed with it at once.
    """
    task = Task.objects.select_for_update(no_key=True).only("status").filter(pk=task_id).first()
    if task is None:
        raise TaskNotFound
    if task.status not in FINAL:
        raise TaskNotFinal
    if events.was_done(task_id, key):
        return
    callback = Callback.objects.filter(task=task, endpoint=None).exclude(body="").only("pk").order_by("-pk").first()
    if callback is None:
        raise NoCallback
    _owe_again([callback.pk], by=by, reason=reason, key=key)


def redeliver_many(chosen: QuerySet[Callback], *, since: datetime, by: str, reason: str | None = None) -> int:
    """Owe each of these callbacks again, as `redeliver` does, batch by batch; returns how many.

    `since` is when this was asked for: whoever asks again with the same moment finishes what was begun, and none is
    owed twice. Those whose content, or whose endpoint, was deleted are left out.
    """
    left = chosen.exclude(body="").exclude(endpoint__deleted_at__isnull=False)
    left = left.filter(Q(redelivered_at=None) | Q(redelivered_at__lt=since)).order_by("pk")
    after, owed = UUID(int=0), 0
    while batch := list(left.filter(pk__gt=after).values_list("pk", "task_id")[:BATCH]):
        owed += _owe_batch_again(dict(batch), since=since, by=by, reason=reason)
        after = batch[-1][0]
    return owed


@transaction.atomic(durable=True)
def _owe_batch_again(tasks: dict[UUID, UUID | None], *, since: datetime, by: str, reason: str | None) -> int:
    """One batch: callbacks and their tasks. Whoever was here first since then has owed them, or deleted the content."""
    list(
        Task.objects.select_for_update(no_key=True)
        .filter(pk__in=filter(None, tasks.values()))
        .order_by("pk")
        .values_list("pk")
    )
    due = Callback.objects.filter(Q(redelivered_at=None) | Q(redelivered_at__lt=since), pk__in=tasks).exclude(body="")
    return _owe_again(list(due.values_list("pk", flat=True)), by=by, reason=reason)


# The tasks are locked. A receiver's row is locked before its callbacks, as when tries are recorded.
PROBE_WITH = """
WITH asked AS (
    SELECT account_id, split_part(url, '?', 1) AS url, (array_agg(id ORDER BY id))[1] AS id
    FROM tasks_callback WHERE id = ANY (%(ids)s) GROUP BY 1, 2
), known AS MATERIALIZED (
    SELECT r.id, a.id AS callback FROM asked a JOIN tasks_receiver r
        ON r.account_id = a.account_id AND md5(r.url) = md5(a.url) AND r.url = a.url
    WHERE r.paused_at IS NOT NULL ORDER BY r.account_id, r.url FOR NO KEY UPDATE OF r
)
UPDATE tasks_receiver r SET next_probe_at = now(), probe_id = known.callback FROM known WHERE r.id = known.id
RETURNING r.id
"""
OWE_AGAIN = """
WITH endpoint AS MATERIALIZED (
    SELECT e.id FROM tasks_webhookendpoint e WHERE e.deleted_at IS NULL
        AND e.id IN (SELECT endpoint_id FROM tasks_callback WHERE id = ANY (%(ids)s)) ORDER BY e.id FOR SHARE
), owed AS (
    UPDATE tasks_callback SET status = 'pending', tries_left = %(tries)s, next_attempt_at = now(),
        redelivered_at = now(), delivered_at = NULL, last_error = NULL, lease_token = NULL, lease_expires_at = NULL,
        waits_for_id = NULL, waits_since = NULL
    WHERE id = ANY (%(ids)s) AND body <> '' AND (endpoint_id IS NULL OR endpoint_id IN (SELECT id FROM endpoint))
    RETURNING id, task_id, endpoint_id
), told AS (
    UPDATE tasks_task t SET seq = t.seq + o.changes
    FROM (SELECT task_id, count(*) AS changes FROM owed WHERE endpoint_id IS NULL GROUP BY task_id) o
    WHERE t.id = o.task_id RETURNING t.id, t.seq, o.changes
), event AS (
    INSERT INTO tasks_taskevent (task_id, seq, type, data, actor)
    SELECT id, seq - change, 'callback.redelivered', %(data)s, %(by)s
    FROM told, generate_series(0, changes - 1) AS change
)
SELECT id FROM owed
"""


def _owe_again(callback_ids: list[UUID], *, by: str, reason: str | None, key: str | None = None) -> int:
    rows(PROBE_WITH, {"ids": callback_ids})
    told = Jsonb(events.private(reason, key))
    owed = rows(OWE_AGAIN, {"ids": callback_ids, "tries": TRIES, "by": by, "data": told})
    once_committed("redeliver.after")
    queues.wake_on_commit(CALLBACKS_QUEUE)
    return len(owed)


def failed_of(receiver: Receiver) -> QuerySet[Callback]:
    """The callbacks to this URL of this account, whatever its query, that ended as failed."""
    return _to(receiver).filter(ENDED_BADLY)


def owed_to(receiver: Receiver) -> QuerySet[Callback]:
    """The callbacks to this URL of this account that have their next try before them, and wait for nothing else."""
    return _to(receiver).filter(OPEN)


def _to(receiver: Receiver) -> QuerySet[Callback]:
    """Found by the hash that the indexes have."""
    asked = Callback.objects.annotate(address=ENDPOINT, hashed=MD5(ENDPOINT))
    return asked.filter(account_id=receiver.account_id, hashed=MD5(Value(receiver.url)), address=receiver.url)


def probe(receiver_id: int) -> bool:
    """Let a paused receiver be probed at once, with what waits for it; False when it is not paused."""
    asked = Receiver.objects.filter(pk=receiver_id, paused_at__isnull=False).update(next_probe_at=Now())
    queues.wake(CALLBACKS_QUEUE)
    return asked > 0
