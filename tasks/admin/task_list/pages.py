"""A page of tasks, the newest first, that costs the same however many there are and however few are meant.

A page begins below an id, never after a number of rows. What is asked for is looked for in windows along the index
that knows most about it: its newest few thousand entries, then more. So a filter that hardly anything meets reads a
bounded part of the table, and the page says how far it looked. Pairs of metadata have an index of their own for what is
rare.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet
from psycopg.types.json import Jsonb

from billing.models import Charge
from tasks.admin.task_list.filters import PARAMETERS, PAUSED, SLACK, moment, unreadable
from tasks.admin.task_list.search import Understood
from tasks.identifiers import first_id, made_at
from tasks.models import Callback, Task
from tasks.statuses import UNFINISHED, Status

WINDOWS = (8_000, 64_000)
# Of tasks that share a pair of metadata, so many are looked at.
RARE = 5_000
# Of tasks that ended in a time, so many are looked at whatever their ids.
FEW = 2_000
WITH_METADATA = """
WITH found AS MATERIALIZED (SELECT id FROM tasks_task WHERE ({pairs}) AND id < %s)
SELECT id FROM found ORDER BY id DESC LIMIT %s
"""
FIRST, LAST = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True)
class Page:
    """Ids, the newest first; where the next page begins, if there is one; how far was looked, where that was no end."""

    ids: list[UUID]
    older: UUID | None = None
    looked_until: datetime | None = None


@dataclass(frozen=True)
class Entries:
    """Rows whose index has the ids of their tasks in order."""

    rows: QuerySet
    column: str = "pk"

    def below(self, start: UUID, number: int) -> QuerySet:
        """The id of that entry, counted down from the start."""
        ids = self.rows.filter(**{f"{self.column}__lt": start}).order_by(f"-{self.column}")
        return ids.values_list(self.column, flat=True)[number : number + 1]


def page(
    tasks: QuerySet, params: Mapping[str, str], asked: Understood | None, *, before: UUID | None, size: int
) -> Page:
    """The newest of these tasks below an id; `params` and `asked` are what they were narrowed by."""
    ids: list[UUID] = []
    if _mean_nothing(tasks):
        return Page(ids)
    for floor, found in _windows(tasks.order_by("-pk"), params, asked, before or LAST, size + 1):
        ids += found
        if len(ids) > size:
            return Page(ids[:size], older=ids[size - 1])
        if floor is None:
            return Page(ids)
        start = floor
    return Page(ids, older=start, looked_until=made_at(start))


def _mean_nothing(tasks: QuerySet) -> bool:
    """Whether no row can meet the conditions: a model that nobody has, a value that means nothing."""
    try:
        tasks.query.sql_with_params()
    except EmptyResultSet:
        return True
    return False


def _windows(
    tasks: QuerySet, params: Mapping[str, str], asked: Understood | None, start: UUID, size: int
) -> Iterator[tuple[UUID | None, list[UUID]]]:
    """Where each window ends, None for the last one, and the first of what was found in it."""
    pairs = asked.pairs if asked else ()
    first, last = _bounds(params, asked)
    start, entries = min(start, last), _entries(params, asked)
    if entries is None and (ids := _ended(params)) is not None:
        yield None, list(tasks.filter(pk__in=ids, pk__lt=start).values_list("pk", flat=True)[:size])
        return
    entries = _known(params, MANY) if entries is None else entries
    entries = [Entries(Task.objects.all())] if entries is None else entries
    for number in WINDOWS[: 1 if pairs else None]:
        floor = _floor(entries, start, number)
        floor = None if floor is None or floor < first else floor
        found = tasks.filter(pk__lt=start, pk__gte=floor or first).values_list("pk", flat=True)
        yield floor, list(found[:size])
        if floor is None:
            return
        start = floor
    if pairs:
        yield _rare(tasks, pairs, start, size)


def _floor(entries: list[Entries], start: UUID, number: int) -> UUID | None:
    """An id above which there are about so many entries, in all; None when there are fewer."""
    ends = [each.below(start, number // len(entries)) for each in entries]
    return max(ends[0].union(*ends[1:], all=True), default=None) if ends else None


def _rare(tasks: QuerySet, pairs: tuple[dict[str, str], ...], start: UUID, size: int) -> tuple[UUID | None, list[UUID]]:
    """Those with one of these pairs, by their own index: what was not found among the newest is rare."""
    with connection.cursor() as cursor:
        cursor.execute(with_metadata(len(pairs)), [*map(Jsonb, pairs), start, RARE])
        ids = [row[0] for row in cursor.fetchall()]
    found = list(tasks.filter(pk__in=ids).values_list("pk", flat=True)[:size])
    return (ids[-1] if len(ids) == RARE else None), found


def with_metadata(pairs: int) -> str:
    """The statement for so many pairs: each by the index, which ANY of them would not use."""
    return WITH_METADATA.format(pairs=" OR ".join(["metadata @> %s"] * pairs))


def _bounds(params: Mapping[str, str], asked: Understood | None) -> tuple[UUID, UUID]:
    """Between which ids the times and the search can be met at all."""
    first, last = [FIRST], [LAST]
    for name in ("created_from", "created_to", "ended_to"):
        if (value := params.get(name, "").strip()) and name not in unreadable({name: value}):
            first += [first_id(moment(value))] if name == "created_from" else []
            last += [] if name == "created_from" else [first_id(moment(value) + SLACK)]
    if asked and asked.spans:
        first.append(min(span[0] for span in asked.spans))
        last.append(UUID(int=min(max(span[1] for span in asked.spans).int + 1, LAST.int)))
    return max(first), min(last)


def _entries(params: Mapping[str, str], asked: Understood | None) -> list[Entries] | None:
    """Where to look: by what is asked for that has an index of its own in the order of ids; None: nothing helps."""
    if asked and asked.reference is not None:
        return [Entries(Task.objects.filter(client_reference=asked.reference))]
    if (entries := _known(params, FEWEST)) is not None:
        return entries
    if asked and asked.accounts is not None:
        return [Entries(Task.objects.filter(account=account)) for account in asked.accounts]
    return _known(params, FEWER)


def _known(
    params: Mapping[str, str], known: Mapping[str, Callable[[str], list[Entries] | None]]
) -> list[Entries] | None:
    for name, entries_of in known.items():
        value = params.get(name, "").strip()
        if value and not unreadable({name: value}) and (entries := entries_of(value)) is not None:
            return entries
    return None


def _ended(params: Mapping[str, str]) -> list[UUID] | None:
    """The tasks that ended in the time that is asked for, by the index of ends, if they are few."""
    times = [name for name in ("ended_from", "ended_to") if params.get(name, "").strip()]
    if not times or unreadable({name: params[name] for name in times}):
        return None
    ended = Task.objects.filter(completed_at__isnull=False)
    for name in times:
        ended = ended.filter(PARAMETERS[name](params[name].strip()))
    ids = list(ended.order_by("-completed_at").values_list("pk", flat=True)[: FEW + 1])
    return ids if len(ids) <= FEW else None


def _of_need(value: str) -> list[Entries]:
    """Callbacks owed and failed and charges refunded are few, and know their tasks."""
    undelivered = {"owed": Callback.Status.PENDING, "failed_callback": Callback.Status.FAILED}
    if value in undelivered:
        return [Entries(Callback.objects.filter(task__isnull=False, status=undelivered[value]), "task_id")]
    if value == "refunded":
        return [Entries(Charge.objects.filter(refunded__gt=0), "task_id")]
    unfinished = [Entries(Task.objects.filter(status=status)) for status in (Status.QUEUED, Status.RUNNING)]
    return unfinished if value == "stuck" else unfinished[:1]


def _of_status(value: str) -> list[Entries] | None:
    """Nearly all tasks have succeeded, which helps nothing."""
    known = Status.QUEUED if value == PAUSED else value
    return None if value == Status.SUCCEEDED else [Entries(Task.objects.filter(status=known))]


def _alone(name: str) -> Callable[[str], list[Entries] | None]:
    return lambda value: [Entries(Task.objects.filter(PARAMETERS[name](value)))]


def _by_model(name: str) -> Callable[[str], list[Entries] | None]:
    def entries(value: str) -> list[Entries]:
        ((_, models),) = PARAMETERS[name](value).children
        return [Entries(Task.objects.filter(deployment=model)) for model in models]

    return entries


def _unfinished(value: str) -> list[Entries] | None:
    return _of_status(value) if value in (*UNFINISHED, PAUSED) else None


Known = Callable[[str], list[Entries] | None]
# What knows the fewest first; the last know so many that a short time of ends is asked before.
FEWEST: dict[str, Known] = {"need": _of_need, "status": _unfinished}
FEWER: dict[str, Known] = {"account": _alone("account"), "code": _alone("code"), "status": _of_status}
MANY: dict[str, Known] = {"model": _by_model("model"), "capability": _by_model("capability")}
