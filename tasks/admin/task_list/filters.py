"""What the list of tasks can be narrowed by, as parameters of its address, and the tasks that they mean.

    status        queued, running, succeeded, failed, canceled; paused: queued and held back
    need          stuck, owed, failed_callback, refunded, waiting, claimable
    code          an error code; capability, model, queue: a name; account: an id
    created_from, created_to, ended_from, ended_to    ISO 8601, the later one excluded
    q             what `task_search` understands

A value that cannot be read means no task: a slip must not act on all of them.
"""

from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_date, parse_datetime
from django.utils.timezone import is_naive, make_aware, now

from billing.models import Charge
from tasks.admin.task_list.search import NOBODY, understood
from tasks.identifiers import first_id
from tasks.models import Callback, Deployment, Task
from tasks.needs import GRACE
from tasks.statuses import UNFINISHED, ErrorCode, Status

PAUSED = "paused"
LONG = timedelta(minutes=15)
# How much later than its transaction a task's id may have been made.
SLACK = timedelta(minutes=5)
# How other pages have named what they link to.
ALIASES = {"status__exact": "status", "account__exact": "account", "account__id__exact": "account"}


class Unreadable(ValueError):
    """A parameter's value that means nothing."""


def by_name(params: Mapping[str, str]) -> dict[str, str]:
    """These parameters by the list's own names; what is asked twice, and not alike, is a value that means nothing."""
    asked: dict[str, dict[str, None]] = {}
    for name, value in params.items():
        asked.setdefault(ALIASES.get(name, name), {})[value.strip()] = None
    return {name: " and ".join(filter(None, values)) for name, values in asked.items()}


def matching(params: Mapping[str, str], *, tasks: QuerySet | None = None) -> QuerySet:
    """The tasks that these parameters mean together; those of other names are not looked at."""
    found = Task.objects.all() if tasks is None else tasks
    for name, narrow in PARAMETERS.items():
        if value := params.get(name, "").strip():
            found = found.filter(_read(narrow, value))
    return found


def _read(narrow: Callable[[str], Q], value: str) -> Q:
    try:
        return narrow(value)
    except (ValueError, OverflowError):
        return NOBODY


def unreadable(params: Mapping[str, str]) -> list[str]:
    """The names of parameters whose values mean nothing."""
    return [name for name in PARAMETERS if params.get(name, "").strip() and _unread(name, params[name].strip())]


def _unread(name: str, value: str) -> bool:
    try:
        PARAMETERS[name](value)
    except (ValueError, OverflowError):
        return True
    return False


def of_status(value: str) -> Q:
    if value == PAUSED:
        return Q(status=Status.QUEUED, paused_at__isnull=False)
    return Q(status=Status(value))


def stuck() -> Q:
    """Unfinished, though its time is over: what only a sweeper that stands still leaves behind."""
    late = now() - GRACE
    unstarted = Q(status=Status.QUEUED, started_at__isnull=True, expires_at__lte=late)
    return Q(status__in=sorted(UNFINISHED), deadline__lte=late) | unstarted


def waiting() -> Q:
    """Could have been claimed for long, and was not."""
    since = now() - LONG
    held_back = Q(paused_at__isnull=False) | Q(blocked__gt=0)
    return Q(status=Status.QUEUED, available_at__lte=since, pk__lt=first_id(since + SLACK)) & ~held_back


def claimable() -> Q:
    """Queued, and held back by nothing of its own."""
    return Q(status=Status.QUEUED, paused_at__isnull=True, blocked=0)


def owed() -> Q:
    return Q(pk__in=Callback.objects.filter(status=Callback.Status.PENDING).values("task_id"))


def failed_callback() -> Q:
    return Q(pk__in=Callback.objects.filter(status=Callback.Status.FAILED).values("task_id"))


def refunded() -> Q:
    return Q(pk__in=Charge.objects.filter(refunded__gt=0).values("task_id"))


NEEDS: dict[str, tuple[str, Callable[[], Q]]] = {
    "stuck": ("Stuck: past their deadline", stuck),
    "waiting": ("Waiting for over 15 minutes", waiting),
    "claimable": ("Waiting for a worker", claimable),
    "owed": ("Owed a callback", owed),
    "failed_callback": ("Callback failed", failed_callback),
    "refunded": ("Refunded", refunded),
}


def of_need(value: str) -> Q:
    if value not in NEEDS:
        raise Unreadable(value)
    return NEEDS[value][1]()


def of_code(value: str) -> Q:
    return Q(status=Status.FAILED, error__code=str(ErrorCode(value)))


def of_capability(value: str) -> Q:
    """Of the models of this capability, asked for first so that their tasks are found by index."""
    models = Deployment.objects.filter(capability=_text(value)).values_list("pk", flat=True)
    return Q(deployment__in=list(models))


def of_model(value: str) -> Q:
    return Q(deployment__in=list(Deployment.objects.filter(name=_text(value)).values_list("pk", flat=True)))


def of_queue(value: str) -> Q:
    return Q(queue=_text(value))


def of_account(value: str) -> Q:
    return Q(account=UUID(value))


def created_from(value: str) -> Q:
    since = moment(value)
    return Q(created_at__gte=since, pk__gte=first_id(since))


def created_to(value: str) -> Q:
    until = moment(value)
    return Q(created_at__lt=until, pk__lt=first_id(until + SLACK))


def ended_from(value: str) -> Q:
    return Q(completed_at__gte=moment(value))


def ended_to(value: str) -> Q:
    until = moment(value)
    return Q(completed_at__lt=until, pk__lt=first_id(until + SLACK))


def of_search(value: str) -> Q:
    return understood(value).condition


PARAMETERS: dict[str, Callable[[str], Q]] = {
    "status": of_status,
    "need": of_need,
    "code": of_code,
    "capability": of_capability,
    "model": of_model,
    "queue": of_queue,
    "account": of_account,
    "created_from": created_from,
    "created_to": created_to,
    "ended_from": ended_from,
    "ended_to": ended_to,
    "q": of_search,
}


def moment(text: str) -> datetime:
    """A moment or the beginning of a day, in our time zone where none is named. Raises Unreadable for others, and for
    those that no clock of ours will show."""
    found: datetime | date | None = parse_datetime(text) or parse_date(text)
    if found is None:
        raise Unreadable(text)
    at = found if isinstance(found, datetime) else datetime.combine(found, time())
    at = make_aware(at) if is_naive(at) else at
    if not 1970 < at.year < 9000:
        raise Unreadable(text)
    return at


def _text(value: str) -> str:
    if "\x00" in value:
        raise Unreadable(value)
    return value
