"""Refunds of many tasks: chosen by filters, each once for a batch, however often the batch is begun anew."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from uuid import UUID

from django.db.models import Q, QuerySet

from billing.exceptions import KeyReused, RefundTooLarge, Refusal
from billing.models import Charge, Transfer
from tasks import lifecycle
from tasks.identifiers import parse_id
from tasks.models import Task
from tasks.results import clean_text
from tasks.statuses import ErrorCode, Status

PAGE = 500
PLACES = Decimal("0.0001")
EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN)
METADATA = "metadata."


class UnknownFilter(Exception):
    """A filter that nobody can follow; the message says why."""


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _task_id(text: str) -> UUID:
    return parse_id(text) or UUID(text)


# What tasks are chosen by: the look-up, and how its value is read.
FILTERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "id": ("pk", _task_id),
    "account": ("account", UUID),
    "capability": ("capability", str),
    "model": ("model", str),
    "status": ("status", Status),
    "error": ("error__code", ErrorCode),
    "client_reference": ("client_reference", str),
    "created_after": ("created_at__gte", _moment),
    "created_before": ("created_at__lt", _moment),
    "completed_after": ("completed_at__gte", _moment),
    "completed_before": ("completed_at__lt", _moment),
}
KNOWN = f"{', '.join(FILTERS)}, {METADATA}KEY"


def chosen(filters: Iterable[str]) -> QuerySet[Task]:
    """The tasks of these `name=value` filters: one value of each name. Raises UnknownFilter."""
    wanted: dict[str, Q] = {}
    for text in filters:
        name, condition = _condition(text)
        wanted[name] = wanted.get(name, Q()) | condition
    if not wanted:
        raise UnknownFilter(f"Name at least one filter: {KNOWN}.")
    return Task.objects.filter(*wanted.values())


def _condition(text: str) -> tuple[str, Q]:
    if clean_text(text) != text:
        raise UnknownFilter(f"{text!r} holds what no task can: a NUL, or bytes that are not UTF-8.")
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise UnknownFilter(f"{text!r} is not NAME=VALUE.")
    if name.startswith(METADATA):
        return name, Q(metadata__contains={name.removeprefix(METADATA): value})
    if name not in FILTERS:
        raise UnknownFilter(f"There is no filter {name!r}; there are {KNOWN}.")
    lookup, read = FILTERS[name]
    try:
        return name, Q(**{lookup: read(value)})
    except ValueError as error:
        raise UnknownFilter(f"{value!r} is no {name}.") from error


@dataclass(frozen=True)
class Share:
    """What of each charge is given back: a percentage of it, an amount, or all that is left."""

    percent: Decimal | None = None
    amount: Decimal | None = None

    def of(self, charge: Charge) -> Decimal | None:
        """Credits, a percentage rounded half to even to four places; None is all that is left."""
        if self.percent is None:
            return self.amount
        exact = EXACT.multiply(charge.charged, self.percent).scaleb(-2, EXACT)
        return exact.quantize(PLACES, context=EXACT)


@dataclass(frozen=True)
class Row:
    """What became of a task, or would: refunded, already refunded by this batch, not charged, or refused and why."""

    task: Task
    outcome: str
    credits: Decimal = Decimal(0)
    why: str = ""


REFUNDED, ALREADY, NOTHING, REFUSED = "refunded", "already", "nothing charged", "refused"
OUTCOMES = (REFUNDED, ALREADY, NOTHING, REFUSED)
TOO_LITTLE = "The share of this charge rounds to nothing."
ALL_REFUNDED = "All of the charge is refunded."


@dataclass(frozen=True)
class Batch:
    """One decision over many tasks. Its key makes each refund one, whatever cut the batch short."""

    key: UUID
    share: Share
    reason: str
    by: str

    def refund(self, tasks: QuerySet[Task]) -> Iterator[Row]:
        """Refund one task after the other, each in a transaction of its own; what refuses one stops no other."""
        for task, charge, done in self._pages(tasks):
            yield self._refund(task, charge, done)

    def foretell(self, tasks: QuerySet[Task]) -> Iterator[Row]:
        """What `refund` would do now; writes nothing."""
        for task, charge, done in self._pages(tasks):
            yield self._foretell(task, charge, done)

    def key_of(self, task_id: UUID) -> str:
        return f"batch:{self.key}:{task_id}"

    def _pages(self, tasks: QuerySet[Task]) -> Iterator[tuple[Task, Charge | None, Transfer | None]]:
        """The tasks by id, a page in memory at a time, each with its charge and what this batch gave it before."""
        page = list(_in_order(tasks))
        while page:
            ids = [task.pk for task in page]
            charges = Charge.objects.in_bulk(ids)
            done = {t.task_id: t for t in Transfer.objects.filter(key__in=[self.key_of(id_) for id_ in ids])}
            for task in page:
                yield task, charges.get(task.pk), done.get(task.pk)
            page = list(_in_order(tasks.filter(pk__gt=ids[-1])))

    def _refund(self, task: Task, charge: Charge | None, done: Transfer | None) -> Row:
        """The verb decides, on the locked row; only what it need not be asked is answered before."""
        foretold = self._foretell(task, charge, done)
        if charge is None or foretold.outcome not in (REFUNDED, ALREADY):
            return foretold
        try:
            wanted = self.share.of(charge)
            given = lifecycle.refund(task.pk, wanted, key=self.key_of(task.pk), reason=self.reason, by=self.by)
        except Refusal as refusal:
            return Row(task, REFUSED, why=refusal.message)
        return Row(task, foretold.outcome, given.amount)

    def _foretell(self, task: Task, charge: Charge | None, done: Transfer | None) -> Row:
        if charge is None or not charge.charged:
            return Row(task, NOTHING)
        wanted, left = self.share.of(charge), charge.charged - charge.refunded
        if done:
            same = wanted in (None, done.amount)
            return Row(task, ALREADY, done.amount) if same else Row(task, REFUSED, why=KeyReused.message)
        if wanted == 0:
            return Row(task, REFUSED, why=TOO_LITTLE)
        if not left:
            return Row(task, REFUSED, why=ALL_REFUNDED)
        if wanted is not None and wanted > left:
            return Row(task, REFUSED, why=RefundTooLarge.message)
        return Row(task, REFUNDED, left if wanted is None else wanted)


def _in_order(tasks: QuerySet[Task]) -> QuerySet[Task]:
    return tasks.only("id").order_by("pk")[:PAGE]
