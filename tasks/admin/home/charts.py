"""The charts of a window: each with its numbers, their lists, and what a browser draws of it."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from django.urls import reverse

from tasks.admin.addresses import between, narrowed
from tasks.overview import Figures, moment

TASKS, CALLBACKS, TRANSFERS = "tasks_task", "tasks_callback", "billing_transfer"
ENDS = ("succeeded", "failed", "canceled")


@dataclass(frozen=True)
class Figure:
    """A number of a chart, in the colour of its line, and the list of the rows that it counts."""

    label: str
    number: str
    url: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Chart:
    """`lines` are as `home.js` draws them: a label, a colour, a number a piece, and the list behind a piece."""

    name: str
    title: str
    told: str
    figures: list[Figure]
    drawn: dict[str, Any] = field(repr=False)


def charts(figures: Figures, *, money: bool) -> list[Chart]:
    """In the order of an operator's questions; credits only for whoever may see them."""
    shown = [_tasks(figures), _open(figures), _times(figures)]
    return [*shown, *([_money(figures)] if money else []), _callbacks(figures)]


def tops(figures: Figures, *, money: bool) -> dict[str, list[dict[str, Any]]]:
    """The models with the most ends, and the accounts with the highest charges."""
    tables = {"models": [_model(model, figures) for model in figures["models"]]}
    if money:
        tables["accounts"] = [_account(account, figures) for account in figures["money"]["accounts"]]
    return tables


def _tasks(figures: Figures) -> Chart:
    work, total = figures["work"], figures["total"]
    shown = [Figure("submitted", _whole(total["submitted"]), _listed(figures, TASKS, "created"), "submitted")]
    shown += [Figure(end, _whole(total[end]), _listed(figures, TASKS, "ended", status=end), end) for end in ENDS]
    lines = [_line("submitted", "submitted", work["submitted"], TASKS, "created")]
    lines += [_bar(end, end, work[end], TASKS, "ended", status=end) for end in ENDS]
    told = "Submitted, by the time of submission; ended, by the time of the end. Test tasks count, too."
    return Chart("tasks", "Tasks", told, shown, _drawn(figures, lines))


def _open(figures: Figures) -> Chart:
    total = figures["total"]
    shown = [Figure(now, _whole(total[now]), narrowed(TASKS, status=now), now) for now in ("queued", "running")]
    told = "Tasks that were accepted and had not ended, at the end of each piece of time: queued or running."
    line = _line("open", "queued", figures["work"]["open"]) | {"fill": True}
    return Chart("open", "Queue depth", told, shown, _drawn(figures, [line]))


def _times(figures: Figures) -> Chart:
    work, total = figures["work"], figures["total"]
    ended = _listed(figures, TASKS, "ended")
    shown = [Figure("p50", _long(total["half"]), ended, "half"), Figure("p95", _long(total["most"]), ended, "most")]
    lines = [_line("p50", "half", work["half"], TASKS, "ended"), _line("p95", "most", work["most"], TASKS, "ended")]
    told = "From a task's first start to its end: half took p50 or less, 19 of 20 took p95 or less, to a tenth."
    return Chart("times", "Run time", told, shown, _drawn(figures, lines) | {"unit": "s"})


def _money(figures: Figures) -> Chart:
    money = figures["money"]
    total = money["total"]
    shown, lines = [], []
    for name, kind in (("charged", "capture"), ("refunded", "refund")):
        asked = {"kind__exact": kind, "test": "no"}
        shown.append(Figure(name, _credits(total[name]), _listed(figures, TRANSFERS, "created", **asked), name))
        lines.append(_bar(name, name, money[name], TRANSFERS, "created", **asked) | {"down": name == "refunded"})
    moves = f"{_whole(total['charges'])} charges and {_whole(total['refunds'])} refunds"
    told = f"Credits of {moves}. Test credits and test runs of the house are left out."
    return Chart("money", "Credits", told, shown, _drawn(figures, lines))


def _callbacks(figures: Figures) -> Chart:
    callbacks = figures["callbacks"]
    shown, lines = [], []
    for end in ("delivered", "failed"):
        colour = "succeeded" if end == "delivered" else end
        shown.append(Figure(end, _whole(callbacks["total"][end]), _listed(figures, CALLBACKS, end), colour))
        lines.append(_bar(end, colour, callbacks[end], CALLBACKS, end))
    told = "Delivered: the receiver answered with 2xx. Failed: every try did, or its receiver was gone for days."
    return Chart("callbacks", "Callbacks", told, shown, _drawn(figures, lines))


def _model(model: dict[str, Any], figures: Figures) -> dict[str, Any]:
    def listed(**parameters: str) -> str:
        return _listed(figures, TASKS, "ended", model=model["name"], **parameters)

    ends = [(_whole(model[end]), listed(status=end)) for end in ENDS]
    times = {"half": _long(model["half"]), "most": _long(model["most"])}
    return {"name": model["name"], "url": listed(), "ends": ends, **times}


def _account(account: dict[str, Any], figures: Figures) -> dict[str, Any]:
    moved = []
    for name, kind in (("charged", "capture"), ("refunded", "refund")):
        asked = {"kind__exact": kind, "account__id__exact": account["id"]}
        moved.append((_credits(account[name]), _listed(figures, TRANSFERS, "created", **asked)))
    url = reverse("admin:billing_account_change", args=[account["id"]])
    return {"name": account["name"], "url": url, "moved": moved, "charges": _whole(account["charges"])}


def _listed(figures: Figures, to: str, span: str, **parameters: str) -> str:
    return narrowed(to, **parameters, **between(span, figures["first"], figures["last"]))


def _line(label: str, colour: str, data: list[Any], to: str = "", span: str = "", **parameters: str) -> dict[str, Any]:
    behind = {"list": narrowed(to, **parameters), "span": span} if to else {}
    return {"label": label, "colour": colour, "type": "line", "data": data} | behind


def _bar(label: str, colour: str, data: list[Any], to: str, span: str, **parameters: str) -> dict[str, Any]:
    return _line(label, colour, data, to, span, **parameters) | {"type": "bar", "stack": "all"}


def _drawn(figures: Figures, lines: list[dict[str, Any]]) -> dict[str, Any]:
    starts = figures["starts"]
    return {
        "labels": [_label(start, figures["window"]) for start in starts],
        "bounds": [*starts, figures["last"]],
        "lines": lines,
    }


def _label(start: str, window: str) -> str:
    return f"{moment(start):%a %H:%M}" if window == "week" else f"{moment(start):%H:%M}"


def _whole(number: int) -> str:
    return f"{number:,}"


def _credits(amount: str) -> str:
    return f"{Decimal(amount):,.4f}"


def _long(seconds: float | None) -> str:
    """A run time with three digits, in its unit."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
