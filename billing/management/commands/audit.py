"""`audit`: prove the books over all rows, and name the first row that breaks each check."""

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from billing import audit


class Command(BaseCommand):
    help = "Prove that the books balance. Exits with 0 when every check holds, 1 otherwise; changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print the report as JSON.")

    def handle(self, *, json: bool, **options: Any) -> None:
        report = audit.run()
        self.stdout.write(as_json(report) if json else as_text(report))
        if not report.holds:
            sys.exit(1)


def as_text(report: audit.Report) -> str:
    """A line per check, the equation over all accounts, what was looked at and the verdict."""
    width = max(len(result.check.name) for result in report.results)
    lines = [_line(result, width) for result in report.results]
    return "\n".join([*lines, "", _equation(report.totals), _counted(report.counts), _verdict(report)])


def _line(result: audit.Result, width: int) -> str:
    if result.holds:
        return f"ok      {result.check.name:<{width}}  {result.check.promise}"
    return f"BROKEN  {result.check.name:<{width}}  {result.offender}"


def _equation(totals: dict[str, Any]) -> str:
    granted, *parts = totals.items()
    sign = "=" if granted[1] == sum(value for _, value in parts) else "IS NOT"
    return f"granted {granted[1]} {sign} " + " + ".join(f"{bucket} {value}" for bucket, value in parts)


def _counted(counts: dict[str, int]) -> str:
    return "looked at " + ", ".join(f"{count} {rows}" for rows, count in counts.items())


def _verdict(report: audit.Report) -> str:
    if report.holds:
        return f"The books balance: all {len(report.results)} checks hold."
    return f"The books do NOT balance: {len(report.broken)} of {len(report.results)} checks are broken."


def as_json(report: audit.Report) -> str:
    """The same for programs: `holds`, `checks` with their first offender, `totals` as strings, `counts`."""
    checks = [
        {"name": r.check.name, "promise": r.check.promise, "holds": r.holds, "offender": r.offender}
        for r in report.results
    ]
    totals = {bucket: str(value) for bucket, value in report.totals.items()}
    return json.dumps(
        {"holds": report.holds, "checks": checks, "totals": totals, "counts": dict(report.counts)}, indent=2
    )
