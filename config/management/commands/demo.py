"""`demo`: the main job, end to end, before your eyes."""

import json
import secrets
import sys
import time
from argparse import ArgumentParser
from contextlib import suppress
from decimal import Decimal
from io import StringIO
from pathlib import Path
from shutil import get_terminal_size
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.json import JSON
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from config import demo
from tasks import lifecycle
from tasks.first_start import activate_test_capabilities
from tasks.identifiers import parse_id

CREDITS = 1000
MONEY = ("quoted", "charged", "refunded")
COLOURS = {"succeeded": "green", "failed": "red", "canceled": "yellow", "running": "cyan", "queued": "dim"}


class Command(BaseCommand):
    help = (
        "Show the whole service at work: tasks, charges, a refund, signed callbacks, the audit. Exits 0 if all is true."
    )

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        """`--dat` is no `--data`: the data folder is looked for before this parser is."""
        return super().create_parser(prog_name, subcommand, allow_abbrev=False, **options)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--keep", action="store_true", help="Keep the service running afterwards, until Ctrl-C.")
        parser.add_argument("--data", metavar="DIR", help="The embedded engines' data folder (COUNTERFOIL_DATA).")

    def handle(self, *, keep: bool, **options: Any) -> None:
        log = Path(settings.EMBEDDED.data) / "demo.log"
        console = open_console()
        console.print(f"Starting the web, the workers and the sweeper (log: {log}) ...")
        try:
            broken = perform(console, log, keep=keep)
        except demo.DemoError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            with suppress(OSError):  # the terminal may be gone
                console.print("Stopped.")
            raise
        finally:
            forbid_again()
        if broken:
            raise CommandError(f"Not true: {'; '.join(broken)}.")


def open_console() -> Console:
    """The terminal as wide as it is; a pipe or a file wide enough for every line."""
    if sys.stdout.isatty():
        return Console()
    return Console(width=max(100, get_terminal_size().columns))


def perform(console: Console, log: Path, *, keep: bool) -> list[str]:
    """Run the service and the story; once the verdicts are there, an interruption only ends the stay."""
    with demo.service(log=log) as url:
        broken = show(console, url)
        with suppress(KeyboardInterrupt):
            say_where(console, url, keep=keep)
            while keep:
                time.sleep(1)
    return broken


def forbid_again() -> None:
    """Leave the test capabilities as the settings have them: only our own service had them switched on."""
    with suppress(DatabaseError):
        activate_test_capabilities()


def show(console: Console, url: str) -> list[str]:
    """Run the story and print it; what was not true is returned."""
    started = time.monotonic()
    before = audit()
    account = create_account()
    receiver = demo.Receiver(account["callback_secret"])
    consumer = demo.Consumer(url, account["api_key"])
    try:
        jobs = demo.submit_all(consumer, receiver)
        bars(console, consumer, jobs)
        demo.await_callbacks(consumer, receiver, jobs)
        refund_part(jobs[0])
        for job in jobs:
            job.task = consumer.get(job.task["links"]["self"])
    finally:
        receiver.close()
    after = audit()
    verdicts = demo.verdicts(jobs, receiver, before, after)
    console.print("\n[bold]One finished task[/], as the API shows it")
    console.print(JSON(json.dumps(jobs[0].task)), soft_wrap=not console.is_terminal)
    console.print("\n[bold]What became of them[/]; each callback came in with the signature of the account")
    console.print(outcome(jobs, receiver))
    print_money(console, after)
    for sentence, true in verdicts.items():
        console.print(f"  [{'green' if true else 'red'}]{'yes' if true else 'NO '}[/]  {sentence}")
    console.print(f"\n{len(jobs)} tasks in {time.monotonic() - started:.1f} s.")
    return [sentence for sentence, true in verdicts.items() if not true]


def create_account() -> dict[str, Any]:
    return said("create_account", "Demo", credits=str(CREDITS), json=True)


def audit() -> dict[str, Any]:
    """The audit's report: `holds`, `checks`, `totals`, `counts`."""
    return said("audit", json=True)


def said(command: str, *arguments: str, **options: Any) -> dict[str, Any]:
    """What a command prints as JSON, whatever it exits with."""
    out = StringIO()
    with suppress(SystemExit):
        call_command(command, *arguments, stdout=out, **options)
    report: dict[str, Any] = json.loads(out.getvalue())
    return report


def bars(console: Console, consumer: demo.Consumer, jobs: list[demo.Job]) -> None:
    """A progress bar per task, drawn from what the API answers."""
    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        lines = {job.id: progress.add_task(job.title, total=100, status=coloured(job.status)) for job in jobs}
        for shown in demo.watch(consumer, jobs):
            for job in shown:
                progress.update(lines[job.id], completed=job.percent, status=coloured(job.status))


def coloured(status: str) -> str:
    return f"[{COLOURS[status]}]{status}[/]"


def refund_part(job: demo.Job) -> None:
    """What an operator does in the admin: give half of a charge back."""
    task_id = parse_id(job.id)
    half = (job.amount("charged_credits") / 2).quantize(Decimal("0.0001"))
    if task_id is None or half <= 0:
        raise demo.DemoError(f"{job.title} was not charged, so nothing can be refunded.")
    lifecycle.refund(task_id, half, key=f"refund:{uuid4()}", reason="half of it, to show how", by="operator:demo")


def outcome(jobs: list[demo.Job], receiver: demo.Receiver) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("task", "status", *MONEY, "callback", "signature"):
        table.add_column(name, justify="right" if name in MONEY else "left", no_wrap=True)
    for job in jobs:
        verified = all(delivery.verified for delivery in receiver.of(job.id))
        money = [job.task["billing"][f"{name}_credits"] for name in MONEY]
        callback = job.task["callback"]["status"]
        table.add_row(job.title, coloured(job.status), *money, callback, "verified" if verified else "[red]WRONG[/]")
    return table


def print_money(console: Console, after: dict[str, Any]) -> None:
    totals = after["totals"]
    console.print("\n[bold]The money[/], over all accounts, by the audit")
    console.print(
        f"  granted {totals['granted']} = available {totals['available']} + held {totals['held']}"
        f" + charged {totals['charged']}"
    )
    holding = sum(check["holds"] for check in after["checks"])
    rows = ", ".join(f"{count} {name}" for name, count in after["counts"].items())
    console.print(f"  audit: {holding} of {len(after['checks'])} checks hold, over {rows}")


def say_where(console: Console, url: str, *, keep: bool) -> None:
    """The URLs, and a login for the admin."""
    console.print(f"\nadmin   {url}/admin/\nAPI     {url}/v1/tasks")
    console.print(f"login   demo / {let_in('demo')}", highlight=False)
    kept = "Ctrl-C stops it." if keep else "It stops now; `manage.py up` serves the same data, `demo --keep` stays."
    console.print(kept)
    sys.stdout.flush()


def let_in(name: str) -> str:
    """The new password of the user of this name, who may do everything, whoever it was before."""
    password = secrets.token_urlsafe(9)
    rights = {"password": make_password(password), "is_staff": True, "is_superuser": True, "is_active": True}
    get_user_model().objects.update_or_create(username=name, defaults=rights)
    return password
