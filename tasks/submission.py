"""How a task begins: find the offer, check the input, quote it, and write it all in one statement."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import DatabaseError, transaction
from django.db.models import Count
from psycopg.types.json import Json, Jsonb
from rest_framework.exceptions import ValidationError
from uuid_utils.compat import uuid7

from billing import pricing
from billing.exceptions import REFUSALS, ChangedSince, InsufficientBalance, Refusal
from billing.failpoints import here
from billing.statements import constraint_of, one, rows
from tasks import capabilities, events, queues, results
from tasks.exceptions import (
    ContentDeleted,
    IdempotencyKeyReused,
    Invalid,
    TaskNotFinal,
    TaskNotFound,
    TooManyPendingTasks,
    UnsupportedCapability,
    UnsupportedModel,
)
from tasks.identifiers import new_id
from tasks.models import Task
from tasks.models.fields import dumps
from tasks.models.task import NO_PROGRESS
from tasks.pointers import first_error
from tasks.sql import load
from tasks.statuses import FINAL, UNFINISHED, Created

# More than any account can hold.
TOO_MUCH = Decimal(10) ** 15
SLACK = timedelta(seconds=300)
CREDITS_PER_USD = Decimal(1000)
FULL = """
SELECT count(*) >= %(most)s FROM (
    SELECT 1 FROM tasks_task WHERE deployment_id = %(id)s AND status IN ('queued', 'running') LIMIT %(most)s) pending
"""
PLACES = """
SELECT d.id, greatest(0, d.max_pending - (SELECT count(*) FROM (
    SELECT FROM tasks_task WHERE deployment_id = d.id AND status IN ('queued', 'running') LIMIT d.max_pending) pending))
FROM tasks_deployment d WHERE d.id = ANY (%(ids)s) AND d.max_pending IS NOT NULL
"""
FREE = {"ceiling_credits": "0.0000"}


@dataclass(frozen=True)
class Request:
    """What a client asks for. `model` names a deployment; either it or `capability` is given.

    `because` is an operator's reason, `waived` says that nothing is charged, and `agreed` is the price that the
    operator saw: another is refused, as is another number of `reruns` of the same task. `first` is done with the
    ceiling, in the task's transaction. No API sets them.
    """

    account_id: UUID
    api_key_id: UUID | None
    actor: str
    input: dict[str, Any]
    capability: str | None = None
    model: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    callback_url: str | None = None
    callback_format: str = "standard"
    client_reference: str | None = None
    priority: int = 5
    timeout: int | None = None
    max_retries: int | None = None
    deadline: datetime | None = None
    not_before: datetime | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None
    rerun_of: UUID | None = None
    rerun_root: UUID | None = None
    because: str | None = None
    waived: bool = False
    agreed: Decimal | None = None
    reruns: int | None = None
    test_outcome: str | None = None
    first: Callable[[Decimal], object] | None = None


@dataclass(frozen=True)
class Submitted:
    """The task's id and JSON; `replayed` says that an earlier request with the same key made it."""

    task_id: UUID
    json: str
    replayed: bool


@dataclass(frozen=True)
class Quoted:
    """What a request would cost at most, and why: the bound on each meter at the prices of now."""

    capability: str
    model: str
    resolved_model: str
    ceiling_credits: Decimal
    ceiling_credits_usd_reference: Decimal
    bound: dict[str, Decimal]
    lines: list[pricing.Line]
    bills_partial_output: bool


@dataclass(frozen=True)
class Offer:
    """A deployment and its prices, as they are now."""

    deployment_id: UUID
    name: str
    capability: str
    resolved_model: str
    queue: str
    timeout: int
    max_retries: int
    ttl: int
    max_lifetime: int
    bills_partial_output: bool
    now: datetime
    clock: datetime
    max_pending: int | None
    full: bool
    rates: list[dict[str, Any]]
    test: bool


def submit(request: Request) -> Submitted:
    """Accept a task: quoted, held and queued, or refused with nothing written."""
    if request.idempotency_key and (replay := _replay(request)):
        return replay
    try:
        submitted = _create(request)
    except Refusal:
        if request.idempotency_key and (replay := _replay(request)):
            return replay
        raise
    return submitted or _replay(request) or submit(request)


def quote(request: Request) -> Quoted:
    """Price a request without writing anything; refused as its submission would be, but for balance and room."""
    offer = _offer(request)
    quoted = _quote(offer, request.input)
    _params(request, offer, quoted)
    bound = {meter: Decimal(most) for meter, most in quoted["bound"].items()}
    ceiling = Decimal(quoted["ceiling_credits"])
    return Quoted(
        capability=offer.capability,
        model=offer.name,
        resolved_model=offer.resolved_model,
        ceiling_credits=ceiling,
        ceiling_credits_usd_reference=pricing.usd(ceiling, credits_per_usd=CREDITS_PER_USD),
        bound=bound,
        lines=pricing.listed(bound, _priced(quoted["rates"])),
        bills_partial_output=offer.bills_partial_output,
    )


def _create(request: Request) -> Submitted | None:
    """Write the task, or None: somebody else has just used the key."""
    offer = _offer(request)
    quote = _quote(offer, request.input) | (FREE if request.waived else {})
    if request.agreed not in (None, Decimal(quote["ceiling_credits"])):
        raise ChangedSince(f"The price changed since you looked: {quote['ceiling_credits']}, not {request.agreed:f}.")
    with transaction.atomic(durable=True):
        if request.first:
            request.first(Decimal(quote["ceiling_credits"]))
        if request.reruns is not None:
            _find_as_seen(request)
        if offer.max_pending is not None:
            _find_room(offer)
        row = _insert(_params(request, offer, quote))
        if row:
            queues.wake_on_commit(offer.queue)
        else:
            transaction.set_rollback(True)
    here("submit.after_commit")
    return Submitted(row[0], row[1], replayed=False) if row else None


def requoted(tasks: Iterable[Task]) -> dict[UUID, Decimal | Refusal]:
    """What each of these tasks would be quoted at the prices of now, or why it would be refused; writes nothing.

    It is asked once for each deployment, and not about balance and room. Tasks come with their deployments.
    """
    tasks = list(tasks)
    unfinished = _chains_that_run(tasks)
    offers: dict[tuple[UUID, bool], Offer | Refusal] = {}
    found: dict[UUID, Decimal | Refusal] = {}
    for task in tasks:
        asked = (task.deployment_id, task.test)
        try:
            if (task.rerun_root or task.pk) in unfinished:
                raise TaskNotFinal
            if asked not in offers:
                offers[asked] = _offered(task)
            found[task.pk] = _requoted(task, offers[asked])
        except Refusal as refusal:
            found[task.pk] = refusal
    return found


def _chains_that_run(tasks: list[Task]) -> set[UUID]:
    """The first tasks of those chains whose newest rerun has not ended."""
    roots = [task.rerun_root or task.pk for task in tasks]
    found = Task.objects.filter(rerun_root__in=roots, status__in=sorted(UNFINISHED))
    return set(found.values_list("rerun_root", flat=True))


def reruns_of(tasks: Iterable[Task]) -> dict[UUID, int]:
    """How many reruns of each of these tasks there are."""
    ids = [task.pk for task in tasks]
    found = Task.objects.filter(rerun_of__in=ids).values_list("rerun_of").annotate(Count("pk")).order_by()
    return dict.fromkeys(ids, 0) | dict(found)


def places(deployments: Iterable[UUID]) -> dict[UUID, int]:
    """How many more unfinished tasks each of these deployments takes, where it has a limit."""
    return dict(rows(PLACES, {"ids": list(deployments)}))


def _offered(task: Task) -> Offer | Refusal:
    try:
        return _offer(_again(task, api_key_id=None, actor=""))
    except Refusal as refusal:
        return refusal


def _requoted(task: Task, offer: Offer | Refusal) -> Decimal:
    if isinstance(offer, Refusal):
        raise offer
    if task.status not in FINAL:
        raise TaskNotFinal
    if task.content_deleted_at:
        raise ContentDeleted
    return Decimal(_quote(offer, task.input)["ceiling_credits"])


def _find_as_seen(request: Request) -> None:
    """Take turns with other operators on the task; raises ChangedSince when one has rerun it meanwhile."""
    one("SELECT FROM tasks_task WHERE id = %(id)s FOR NO KEY UPDATE", {"id": request.rerun_of})
    if Task.objects.filter(rerun_of=request.rerun_of).count() != request.reruns:
        raise ChangedSince("It changed since you looked: somebody has rerun it.")


def _find_room(offer: Offer) -> None:
    """Take turns with other submissions to the deployment, so that its limit is exact. Raises TooManyPendingTasks."""
    one("SELECT 1 FROM tasks_deployment WHERE id = %(id)s FOR NO KEY UPDATE", {"id": offer.deployment_id})
    if one(FULL, {"id": offer.deployment_id, "most": offer.max_pending}) == (True,):
        raise TooManyPendingTasks


def rerun(
    task_id: UUID,
    *,
    account_id: UUID,
    api_key_id: UUID | None,
    actor: str,
    because: str | None = None,
    agreed: Decimal | None = None,
    reruns: int | None = None,
    **idempotency: str,
) -> Submitted:
    """Submit a final task again, at today's prices, as a new task that points back.

    An operator says why, which price was agreed, and how many reruns of the task there were then. Raises TaskNotFinal,
    ContentDeleted, or ChangedSince at another price or after another rerun.
    """
    task = _final(task_id, account_id=account_id)
    said = {"because": because, "agreed": agreed, "reruns": reruns}
    return _submit_again(task, _again(task, api_key_id=api_key_id, actor=actor, **said, **idempotency))


def rerun_free(task_id: UUID, *, by: str, reason: str, reruns: int | None = None, **idempotency: str) -> Submitted:
    """Submit a final task again at the operator's expense: its usage is listed in full, held and charged is nothing.

    A rerun of the new task is charged as any other. Raises TaskNotFinal, ContentDeleted, Invalid without a reason, or
    ChangedSince when there are not as many `reruns` of the task as were seen.
    """
    if not reason.strip():
        raise Invalid("A free rerun has a reason.")
    task = _final(task_id)
    said = {"because": reason, "reruns": reruns, "waived": True}
    return _submit_again(task, _again(task, api_key_id=None, actor=by, **said, **idempotency))


def _final(task_id: UUID, **owner: UUID) -> Task:
    task = Task.objects.select_related("deployment").filter(pk=task_id, **owner).first()
    if task is None:
        raise TaskNotFound
    if task.status not in FINAL:
        raise TaskNotFinal
    return task


def _submit_again(task: Task, request: Request) -> Submitted:
    """Submit what the task was; one whose content is gone can only be found by the key that has submitted it."""
    if task.content_deleted_at is None:
        return submit(request)
    if request.idempotency_key and (replay := _replay(request)):
        return replay
    raise ContentDeleted


def _again(task: Task, **fields: Any) -> Request:
    """What the task's client asked for, as far as its deployment still allows it."""
    return Request(
        account_id=task.account_id,
        input=task.input,
        model=task.deployment.name,
        metadata=task.metadata,
        callback_url=task.callback_url,
        callback_format=task.callback_format,
        client_reference=task.client_reference,
        priority=task.priority,
        timeout=min(task.timeout, task.deployment.timeout),
        max_retries=min(task.max_retries, task.deployment.max_retries),
        rerun_of=task.pk,
        rerun_root=task.rerun_root or task.pk,
        test_outcome=task.test_outcome,
        **fields,
    )


def fingerprint(body: object) -> str:
    """What two requests must share to be the same: SHA-256 of the canonical parsed body."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def stored_key(*parts: str) -> str:
    """How an Idempotency-Key is kept: SHA-256 over API, route, account and key."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()


def _replay(request: Request) -> Submitted | None:
    row = one(
        "SELECT id, idempotency_fingerprint, task_json(id) FROM tasks_task"
        " WHERE account_id = %(account)s AND idempotency_key = %(key)s",
        {"account": request.account_id, "key": request.idempotency_key},
    )
    if row is None:
        return None
    if row[1] != request.fingerprint:
        raise IdempotencyKeyReused
    return Submitted(row[0], row[2], replayed=True)


def _offer(request: Request) -> Offer:
    if request.capability is None and request.model is None:
        raise Invalid("Name a capability, a model or both.", param="/capability")
    row = one(load("offer"), {"model": request.model, "capability": request.capability, "account": request.account_id})
    if row is None:
        raise UnsupportedModel(param="/model") if request.model else UnsupportedCapability(param="/capability")
    offer = Offer(*row)
    if request.test_outcome and not offer.test:
        raise Invalid("Only a test key may say how a task ends.", param="/test_outcome")
    if request.capability not in (None, offer.capability):
        raise UnsupportedModel(f"The model {offer.name} is not for {request.capability}.", param="/model")
    capability = capabilities.get(offer.capability)
    if capability is None or not capability.available():
        raise UnsupportedCapability(param="/capability")
    return offer


def _quote(offer: Offer, input_: dict[str, Any]) -> dict[str, Any]:
    """The bound on every meter and the price rows that turn it into the ceiling. Raises CapabilityError for a bound
    that is no usage: the capability's fault, and ours."""
    capability = capabilities.get(offer.capability)
    most = results.measured(capability, capability.bound(clean(capability, input_)))
    rates = sorted(offer.rates, key=lambda rate: pricing.place_of(rate["meter"]))
    ceiling = pricing.ceiling(most, _priced(rates))
    if ceiling >= TOO_MUCH:
        raise InsufficientBalance
    return {
        "bound": {meter: f"{quantity:f}" for meter, quantity in most.items()},
        "rates": rates,
        "ceiling_credits": str(ceiling),
        "bills_partial_output": offer.bills_partial_output,
    }


def _priced(rates: list[dict[str, Any]]) -> list[pricing.Rate]:
    return [pricing.Rate(**rate | {"credits": Decimal(rate["credits"])}) for rate in rates]


def clean(capability: capabilities.Capability, input_: dict[str, Any]) -> dict[str, Any]:
    """The input as its serializer understands it. Raises Invalid with a pointer below `/input`."""
    form = capability.input(data=input_)
    try:
        form.is_valid(raise_exception=True)
    except ValidationError as error:
        pointer, message = first_error(error.detail)
        raise Invalid(message, param="/input" + pointer) from error
    return form.validated_data


def _params(request: Request, offer: Offer, quote: dict[str, Any]) -> dict[str, Any]:
    start = max(offer.now, request.not_before or offer.now)
    timeout = _at_most(request.timeout, offer.timeout, "timeout")
    max_retries = _at_most(request.max_retries, offer.max_retries, "max_retries")
    expires_at = start + timedelta(seconds=offer.ttl)
    last = offer.now + timedelta(seconds=offer.max_lifetime)
    default = expires_at + (max_retries + 1) * timedelta(seconds=timeout) + SLACK
    _check_times(request, offer.now, last)
    return {
        "id": new_id(offer.clock),
        "created_at": offer.now,
        "run": uuid7(),
        "account": request.account_id,
        "api_key": request.api_key_id,
        "deployment": offer.deployment_id,
        "capability": offer.capability,
        "model": offer.name,
        "resolved_model": offer.resolved_model,
        "queue": offer.queue,
        "test": offer.test,
        "test_outcome": request.test_outcome,
        "priority": request.priority,
        "not_before": request.not_before,
        "metadata": Jsonb(request.metadata),
        "input": Json(request.input, dumps=dumps),
        "progress": Jsonb(NO_PROGRESS),
        "quote": Jsonb(quote),
        "quoted": Decimal(quote["ceiling_credits"]),
        "waived": request.waived,
        "told": Jsonb(({"waived": True} if request.waived else {}) | events.private(request.because)),
        "usd_rate": CREDITS_PER_USD,
        "client_reference": request.client_reference,
        "idempotency_key": request.idempotency_key,
        "fingerprint": request.fingerprint,
        "callback_url": request.callback_url,
        "callback_format": request.callback_format,
        "max_retries": max_retries,
        "timeout": timeout,
        "deadline": request.deadline or min(default, last),
        "expires_at": expires_at,
        "rerun_of": request.rerun_of,
        "rerun_root": request.rerun_root,
        "reason_created": Created.RERUN if request.rerun_of else Created.SCHEDULED,
        "actor": request.actor,
    }


def _at_most(wanted: int | None, limit: int, name: str) -> int:
    if wanted is not None and wanted > limit:
        raise Invalid(f"This model allows {name} up to {limit}.", param=f"/{name}")
    return limit if wanted is None else wanted


def _check_times(request: Request, now: datetime, last: datetime) -> None:
    if request.deadline and not now < request.deadline <= last:
        raise Invalid(f"The deadline lies in the future, until {last.isoformat()}.", param="/deadline")
    if request.not_before and request.not_before >= (request.deadline or last):
        raise Invalid("not_before lies before the deadline.", param="/not_before")


def _insert(params: dict[str, Any]) -> tuple | None:
    try:
        return one(load("submit"), params)
    except DatabaseError as error:
        if refusal := REFUSALS.get(constraint_of(error) or ""):
            raise refusal from error
        raise
