"""What needs a person, as cards; and the queues, as a table."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.timezone import now

from billing.admin.account_find import QUESTIONS
from billing.models import Account
from tasks.admin.addresses import narrowed
from tasks.admin.found import task_link
from tasks.needs import FAILED, LATE, MOST, OWED, Need, Queue

URGENT, SOON = "urgent", "soon"


@dataclass(frozen=True)
class Card:
    """A number that somebody has to do something about."""

    title: str
    number: str
    since: datetime | None
    told: str
    url: str
    urgency: str

    @property
    def age(self) -> str:
        return age(self.since)


@dataclass(frozen=True)
class Kind:
    """A kind of need: who may see it, what it is called, and the list of its rows."""

    name: str
    permission: str
    title: str
    told: str
    to: str
    parameters: dict[str, str]
    urgency: str = SOON
    # The list is asked for rows as they were at this distance from now.
    ago: tuple[str, timedelta] | None = None


KINDS = (
    Kind(
        "stuck", "tasks.view_task", "Stuck tasks",
        "Past their time by over ten seconds, and not ended. A sweeper ends such tasks: is one running?",
        "tasks_task", {"need": "stuck"}, URGENT,
    ),
    Kind(
        "lost", "tasks.view_run", "Lost workers",
        "Runs whose worker no longer renews its lease. A sweeper gives their tasks to others within seconds.",
        "tasks_run", {}, URGENT, ago=("lease_to", timedelta(0)),
    ),
    Kind(
        "late", "tasks.view_callback", "Callbacks nobody sends",
        "Due for over a minute. Is a worker for the queue callbacks running, and does it keep up?",
        "tasks_callback", {"need": "owed"}, URGENT, ago=("due_to", LATE),
    ),
    Kind(
        "paused", "tasks.view_receiver", "Paused receivers",
        "URLs that failed ten times in a row. What is owed to them waits, and fails after days: tell their owners.",
        "tasks_receiver", {"need": "paused"},
    ),
    Kind(
        "failing", "tasks.view_receiver", "Failing receivers",
        "URLs whose last tries failed. They are paused at ten in a row.",
        "tasks_receiver", {"need": "failing"},
    ),
    Kind(
        "owed", "tasks.view_callback", "Callbacks owed for over an hour",
        "Of events that are older, and not taken yet: tried again from time to time, or waiting for a paused receiver.",
        "tasks_callback", {}, ago=("owed_to", OWED),
    ),
    Kind(
        "failed", "tasks.view_callback", "Failed callbacks of seven days",
        "Nobody took them, and they are not tried again. Redeliver them when their receiver works.",
        "tasks_callback", {"need": "failed"}, ago=("failed_from", FAILED),
    ),
)  # fmt: skip


def cards(request: HttpRequest, found: dict[str, Need], queues: list[Queue]) -> list[Card]:
    """What needs somebody now, of what this user may see, the urgent first."""
    shown = [_card(kind, found[kind.name]) for kind in KINDS if request.user.has_perm(kind.permission)]
    shown += [_standing(queue) for queue in queues if queue.still]
    shown += [_slow(queue) for queue in queues if queue.slow and not queue.still]
    if request.user.has_perm("billing.view_account"):
        shown += _balances()
    return sorted((card for card in shown if card.number != "0"), key=lambda card: card.urgency != URGENT)


def quiet(request: HttpRequest) -> str:
    """What was looked at, of what this user may see, for a page that has nothing to say."""
    seen = [kind.title.lower() for kind in KINDS if request.user.has_perm(kind.permission)]
    balances = ["low balances", "accounts that cannot pay"] if request.user.has_perm("billing.view_account") else []
    return f"No {', no '.join([*seen, 'queue that stands still or is behind', *balances])}."


def _card(kind: Kind, need: Need) -> Card:
    moment = {kind.ago[0]: (now() - kind.ago[1]).isoformat()} if kind.ago else {}
    url = narrowed(kind.to, **kind.parameters, **moment)
    return Card(kind.title, _counted(need.number), need.since, kind.told, url, kind.urgency)


def _standing(queue: Queue) -> Card:
    last = f"the last was {age(queue.claimed_at)} ago" if queue.claimed_at else "none ever was"
    told = f"Tasks could start and none is claimed: {last}. Is a worker running for this queue?"
    return _of_queue(queue, f"Nobody works on {queue.name}", told, URGENT)


def _slow(queue: Queue) -> Card:
    told = "Tasks could start and wait for longer than ten minutes, though workers take some: more workers would help."
    return _of_queue(queue, f"{queue.name} is behind", told, SOON)


def _of_queue(queue: Queue, title: str, told: str, urgency: str) -> Card:
    return Card(title, _counted(queue.waiting), queue.since, told, waiting_in(queue), urgency)


def _balances() -> list[Card]:
    told = "Accounts below the threshold that they are warned at."
    since = list(_asked("low").values_list("low_since", flat=True)[:MOST])
    low = Card("Low balances", _counted(len(since)), min(since, default=None), told, _accounts("low"), SOON)
    told = "Accounts that have used up their credits and their credit limit: what costs something is refused."
    nothing = len(_asked("exhausted").values_list("pk")[:MOST])
    return [low, Card("Accounts that cannot pay", _counted(nothing), None, told, _accounts("exhausted"), SOON)]


def _asked(need: str) -> QuerySet[Account]:
    return Account.objects.filter(QUESTIONS[need][1])


def _accounts(need: str) -> str:
    return narrowed("billing_account", need=need)


def waiting_in(queue: Queue) -> str:
    return narrowed("tasks_task", need="claimable", queue=queue.name)


def pulses(found: dict[str, Need], queues: list[Queue]) -> list[tuple[str, str, datetime | None]]:
    """The signs of life: how long ago, by name."""
    oldest = min((queue.since for queue in queues if queue.since), default=None)
    claimed = max((queue.claimed_at for queue in queues if queue.claimed_at), default=None)
    delivered = found["delivered"].since
    return [
        ("Oldest task that could start", f"{age(oldest)} old" if oldest else "none waits", oldest),
        ("Last claim by a worker", f"{age(claimed)} ago" if claimed else "never", claimed),
        ("Last callback delivered", f"{age(delivered)} ago" if delivered else "never", delivered),
    ]


def queue_rows(queues: list[Queue]) -> list[dict[str, Any]]:
    return [
        {
            "name": queue.name,
            "waiting": _counted(queue.waiting),
            "url": waiting_in(queue),
            "running": f"{queue.running:,}",
            "run_by": narrowed("tasks_task", status="running", queue=queue.name),
            "oldest": task_link(queue.oldest) if queue.oldest else "",
            "age": age(queue.since),
            "since": queue.since,
            "claimed": f"{age(queue.claimed_at)} ago" if queue.claimed_at else "never",
            "claimed_at": queue.claimed_at,
            "state": "still" if queue.still else "slow" if queue.slow else "well",
        }
        for queue in queues
    ]


def _counted(number: int) -> str:
    return f"{MOST:,}+" if number >= MOST else f"{number:,}"


def age(since: datetime | None) -> str:
    """How long ago, in the largest unit that says enough."""
    if since is None:
        return ""
    seconds = max(0, int((now() - since).total_seconds()))
    for length, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
