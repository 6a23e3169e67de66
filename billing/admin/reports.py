"""What became of many rows that were acted on at once: a page that stays, with a sentence for each."""

from collections import Counter
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from billing.admin.screens import Screen, Table, label, link, table
from billing.models import ActReport

COLOURS = {"done": "success", "refused": "danger", "repeated": "info"}


def keep_report(act: str, *, rows: list[tuple[str, str, str, str]], **of: Any) -> ActReport:
    """Keep what became of these rows: their keys, names, outcomes and sentences."""
    outcomes = Counter(outcome for _, _, outcome, _ in rows)
    return ActReport.objects.create(act=act, rows=rows, **{kind: outcomes[kind] for kind in COLOURS}, **of)


@admin.register(ActReport)
class ActReportScreen(Screen):
    list_display = ("created_at", "act", "by", "done", "refused", "repeated", "reason")
    list_filter = ("act",)
    list_display_links = ("created_at", "act")
    fieldsets = (
        (None, {"fields": (("act", "by", "created_at"), "reason", ("done", "refused", "repeated"))}),
    )  # fmt: skip

    def for_list(self, queryset: Any) -> Any:
        return super().for_list(queryset).defer("rows")

    def tables(self, request: HttpRequest, obj: ActReport) -> list[Table]:
        return [
            table(
                "Rows",
                obj.rows,
                ("Row", lambda row: link(obj.screen, row[0], row[1])),
                ("Outcome", lambda row: label(row[2], COLOURS[row[2]])),
                ("What happened", lambda row: row[3]),
            )
        ]
