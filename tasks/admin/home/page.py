"""The operators' home: what needs a person now, then the last hour, day or week. It draws what `needs` and `overview`
count, and links each number to the list of the rows behind it.

A page in full for whoever comes; for a page that is open, only what changes, which htmx puts in its place.
"""

import json
from typing import Any

from django.http import HttpRequest

from billing.admin.screens import when
from tasks import needs, overview
from tasks.admin.home.charts import charts, tops
from tasks.admin.home.needs import cards, pulses, queue_rows, quiet
from tasks.admin.home.steps import steps

PAGE, PARTS = "admin/base.html", "admin/counterfoil/home/parts.html"
USUAL = overview.WINDOWS["day"]


def home(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """What unfold's index shows: UNFOLD's DASHBOARD_CALLBACK."""
    window = overview.WINDOWS.get(request.GET.get("window", ""), USUAL)
    live = request.headers.get("HX-Request") == "true"
    parts = {
        "title": "Home",
        "frame": PARTS if live else PAGE,
        "live": live,
        "window": window.name,
        "windows": list(overview.WINDOWS),
    }
    return context | parts | (_seen(request, window) if request.user.has_perm("tasks.view_task") else {})


def _seen(request: HttpRequest, window: overview.Window) -> dict[str, Any]:
    figures, found, of_queues = overview.look(window), needs.needs(), needs.of_queues()
    drawn = charts(figures, money=request.user.has_perm("billing.view_transfer"))
    return {
        "sees": True,
        "steps": (left := steps(request)),
        "used": len(left) < 2,
        "quiet": quiet(request),
        "cards": cards(request, found, of_queues),
        "pulses": pulses(found, of_queues),
        "queues": queue_rows(of_queues),
        "charts": drawn,
        "drawn": json.dumps({chart.name: chart.drawn for chart in drawn}),
        "tops": tops(figures, money=request.user.has_perm("billing.view_transfer")),
        "first": when(overview.moment(figures["first"])),
        "last": overview.moment(figures["last"]),
    }
