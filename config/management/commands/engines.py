"""`engines status` and `engines stop`: the embedded PostgreSQL and Valkey, seen from outside."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from config import embedded


class Command(BaseCommand):
    help = "Show or stop the embedded engines. `status` exits with 0 when all run, 3 when one is stopped."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("act", choices=["status", "stop"])

    def handle(self, *, act: str, **options: Any) -> None:
        if act == "stop":
            embedded.stop(embedded.layout())
        else:
            self.show(embedded.status(embedded.layout()))

    def show(self, states: list[embedded.State]) -> None:
        for state in states:
            self.stdout.write(describe(state))
        if any(state.state == "stopped" for state in states):
            sys.exit(3)


def describe(state: embedded.State) -> str:
    """One line: what runs, as which process and version, and where it listens and keeps its data."""
    if state.state == "external":
        return f"{state.engine}: external"
    where = f"socket {state.socket}, data {state.data}"
    if state.state == "stopped":
        return f"{state.engine}: stopped, {where}"
    return f"{state.engine}: running, pid {state.pid}, version {state.version}, {where}"
