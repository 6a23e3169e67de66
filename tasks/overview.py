"""What the last hour, day or week was like, in numbers: tasks, run times, credits, callbacks. The admin draws them.

All of a window is counted from rows, by indexes alone; nothing is kept but the answer itself, for some seconds, so that
any number of operators who watch cost what one does. `last` says of when an answer is.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.statements import one, rows
from tasks import queues
from tasks.identifiers import first_id
from tasks.sql import load

# How many models and accounts are named, those with the most first.
MOST_MODELS = MOST_ACCOUNTS = 8
MILLISECOND = timedelta(milliseconds=1)
NONE = Decimal("0.0000")
# An id is made a little after its task's time: what has one of the next piece for that is looked at.
SOON = timedelta(seconds=1)
# The steps that run times are told apart by: a tenth each, from a millisecond to three weeks.
LENGTHS = [timedelta(milliseconds=1.1**step) for step in range(225)]

Figures = dict[str, Any]


@dataclass(frozen=True)
class Window:
    """A time up to now in equal pieces that begin at whole multiples of their length; the last is not over yet."""

    name: str
    piece: timedelta
    pieces: int
    kept_seconds: int

    def starts(self, last: datetime) -> list[datetime]:
        """When each piece begins."""
        latest = last - (last - datetime(1970, 1, 1, tzinfo=UTC)) % self.piece
        return [latest - self.piece * back for back in reversed(range(self.pieces))]


WINDOWS = {
    window.name: window
    for window in (
        Window("hour", timedelta(minutes=1), 60, kept_seconds=2),
        Window("day", timedelta(minutes=30), 48, kept_seconds=10),
        Window("week", timedelta(hours=3), 56, kept_seconds=60),
    )
}


def look(window: Window) -> Figures:
    """The figures of a window, counted now or, where somebody has just asked, some seconds ago. Plain JSON: moments in
    ISO 8601, credits as text, run times in seconds."""
    if kept := _kept(window):
        return kept
    figures: Figures = json.loads(json.dumps(count(window), default=str))
    _keep(window, figures)
    return figures


def count(window: Window) -> Figures:
    """The figures of a window up to now, read from the rows."""
    last = _now()
    starts = window.starts(last)
    asked = {"step": window.piece, "first": starts[0], "last": last}
    return {
        "window": window.name,
        "starts": [start.isoformat() for start in starts],
        "first": starts[0].isoformat(),
        "last": last.isoformat(),
        **_work(starts, asked),
        "money": _money(starts, asked),
        "callbacks": _callbacks(starts, asked),
    }


def moment(text: str) -> datetime:
    """A moment of the figures."""
    return datetime.fromisoformat(text)


def _now() -> datetime:
    """The database's time, up to the next whole millisecond: ids tell no less."""
    row = one("SELECT date_trunc('milliseconds', clock_timestamp())", {})
    assert row is not None  # noqa: S101 - for the types
    now: datetime = row[0]
    return now.astimezone(UTC) + MILLISECOND


def _work(starts: list[datetime], asked: Figures) -> Figures:
    ids = [first_id(start) for start in [*starts, asked["last"]]]
    bounds = {"starts": starts, "first_ids": ids[:-1], "next_ids": ids[1:]}
    bounds["soon_ids"] = [first_id(start + SOON) for start in starts]
    found = rows(load("overview_work"), asked | bounds | {"lengths": LENGTHS, "models": MOST_MODELS})
    names = ("submitted", "succeeded", "failed", "canceled", "half", "most")
    told = [(at, model, dict(zip(names, figures, strict=True))) for at, model, *figures, _, _ in found]
    pieces = {at: figures for at, _, figures in told if at}
    empty = dict.fromkeys(names[:4], 0) | dict.fromkeys(names[4:])
    series = {name: [pieces.get(start, empty)[name] for start in starts] for name in names}
    total = next((figures for at, model, figures in told if at is None and model is None), empty)
    *_, running, still_open = found[0]
    now = {"submitted": sum(series["submitted"]), "running": running, "queued": still_open - running}
    return {
        "work": series | {"open": _open(series, now=still_open)},
        "total": total | now,
        "models": [{"name": model} | figures for _, model, figures in told if model is not None],
    }


def _open(series: dict[str, list[int]], *, now: int) -> list[int]:
    """How many tasks were neither ended nor begun anew at the end of each piece: counted back from now, exactly."""
    ended = [sum(ends) for ends in zip(series["succeeded"], series["failed"], series["canceled"], strict=True)]
    still = [now]
    for more, fewer in zip(reversed(series["submitted"]), reversed(ended), strict=True):
        still.append(max(0, still[-1] - more + fewer))
    return still[-2::-1]


def _money(starts: list[datetime], asked: Figures) -> Figures:
    found = rows(load("overview_money"), asked | {"accounts": MOST_ACCOUNTS})
    names = ("charged", "refunded", "charges", "refunds")
    told = [(at, account, name, dict(zip(names, sums, strict=True))) for at, account, name, *sums in found]
    pieces = {at: sums for at, *_, sums in told if at}
    empty: Figures = {"charged": NONE, "refunded": NONE, "charges": 0, "refunds": 0}
    return {
        "charged": [pieces.get(start, empty)["charged"] for start in starts],
        "refunded": [pieces.get(start, empty)["refunded"] for start in starts],
        "total": next((sums for at, account, _, sums in told if at is None and account is None), empty),
        "accounts": [{"id": account, "name": name} | sums for _, account, name, sums in told if account],
    }


def _callbacks(starts: list[datetime], asked: Figures) -> Figures:
    ends: dict[tuple[datetime, str], int] = defaultdict(int)
    for at, end, callbacks in rows(load("overview_callbacks"), asked):
        ends[at, end] = callbacks
    series = {end: [ends[start, end] for start in starts] for end in ("delivered", "failed")}
    return series | {"total": {end: sum(counts) for end, counts in series.items()}}


def _kept(window: Window) -> Figures | None:
    text: Any = None
    with queues.broker("overview") as client:
        text = client.get(_key(window)) if client else None
    return json.loads(text) if text else None


def _keep(window: Window, figures: Figures) -> None:
    with queues.broker("overview") as client:
        if client:
            client.set(_key(window), json.dumps(figures), ex=window.kept_seconds)


def _key(window: Window) -> str:
    return f"overview:1:{window.name}"
