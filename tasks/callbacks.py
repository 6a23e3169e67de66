"""Callbacks: owed by a row that is written with the final status, delivered by a job, made up for by the sweep."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import uuid_utils
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from typeid import TypeID

from billing.failpoints import once_committed
from billing.statements import one
from tasks import events, queues
from tasks.exceptions import NoCallback, TaskNotFinal, TaskNotFound
from tasks.models import Callback, Task
from tasks.models.deployment import CALLBACKS_QUEUE
from tasks.statuses import FINAL

TRIES = len(settings.CALLBACK_SCHEDULE)


@dataclass(frozen=True)
class Format:
    """How a receiver is written to: `freeze` stores the body, `headers` prove who sent it, anew on every try.

    `headers` takes the callback's id, the body, the account's valid secrets (the current one first) and the second.
    """

    freeze: Callable[[UUID], None]
    headers: Callable[[UUID, bytes, Sequence[str], int], dict[str, str]]


# The body is the task as it is at its end, the callback's own block included; every try sends these bytes.
FREEZE_STANDARD = """
UPDATE tasks_callback
SET body = '{"type":"' || event || '","timestamp":"' || rfc3339(now()) || '","data":' || task_json(task_id) || '}'
WHERE id = %(id)s RETURNING id
"""


def freeze_standard(callback_id: UUID) -> None:
    """Store the Standard Webhooks body of a callback."""
    one(FREEZE_STANDARD, {"id": callback_id})


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


# How receivers are written to, by name. A compat package adds its own when its app is ready.
FORMATS: dict[str, Format] = {"standard": Format(freeze_standard, sign_standard)}


def freeze(callback_id: UUID, format_: str) -> None:
    """Render the body in the transaction of the final status, and wake the deliverer when it commits."""
    FORMATS.get(format_, FORMATS["standard"]).freeze(callback_id)
    queues.wake_on_commit(CALLBACKS_QUEUE)


@transaction.atomic(durable=True)
def redeliver(task_id: UUID, *, by: str) -> None:
    """Owe the callback again: same id, same bytes, fresh tries. Raises TaskNotFound, TaskNotFinal or NoCallback.

    A delivery under way loses its lease: what it hears is not recorded, and the receiver hears of it once more.
    """
    task = Task.objects.select_for_update(no_key=True).only("status").filter(pk=task_id).first()
    if task is None:
        raise TaskNotFound
    if task.status not in FINAL:
        raise TaskNotFinal
    callback = Callback.objects.filter(task=task).exclude(body="").only("pk").order_by("-pk").first()
    if callback is None:
        raise NoCallback
    Callback.objects.filter(pk=callback.pk).update(
        status=Callback.Status.PENDING,
        tries_left=TRIES,
        next_attempt_at=Now(),
        lease_token=None,
        lease_expires_at=None,
        delivered_at=None,
        last_error=None,
    )
    events.record(task_id, "callback.redelivered", actor=by)
    once_committed("redeliver.after")
    queues.wake_on_commit(CALLBACKS_QUEUE)
