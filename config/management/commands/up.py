"""`up`: everything in one terminal. Ctrl-C stops it."""

import http.client
import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, connection
from django.templatetags.static import static

from config import embedded, interruptions, ports, session
from config.processes import GivenUp, Program, Supervisor
from config.worker import TO_GIVE_BACK
from tasks.first_start import activate_test_capabilities
from tasks.models.bulk import BULK_QUEUE
from tasks.models.deployment import CALLBACKS_QUEUE

PREPARING = 0x636F756E746572  # the advisory lock under which a database is prepared
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Command(BaseCommand):
    help = "Run everything: the engines, the web, the workers and the sweeper. Ctrl-C stops it."

    def create_parser(self, prog_name: str, subcommand: str, **options: Any) -> CommandParser:
        """`--dat` is no `--data`: the data folder is looked for before this parser is."""
        return super().create_parser(prog_name, subcommand, allow_abbrev=False, **options)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="Where the web listens (127.0.0.1).")
        parser.add_argument("--port", type=port_number, default=8000, help="The web's port (8000).")
        parser.add_argument("--workers", type=positive, default=2, help="Tasks that run at once (2).")
        parser.add_argument("--data", metavar="DIR", help="The embedded engines' data folder (COUNTERFOIL_DATA).")

    def handle(self, *, host: str, port: int, workers: int, **options: Any) -> None:
        url = f"http://{_in_url(host)}:{port}"
        os.environ.setdefault("PUBLIC_URL", url)
        with claimed(host, port):
            self.prepare()
            try:
                self.run(url, programs(host, port, workers))
            except GivenUp as error:
                raise CommandError(f"Everything is stopped: {error}") from error

    def prepare(self) -> None:
        """Bring the database up to date, one process at a time."""
        try:
            with one_at_a_time():
                call_command("migrate", interactive=False, verbosity=0)
                activate_test_capabilities()
        except DatabaseError as error:
            raise CommandError(str(error).splitlines()[0]) from error
        connection.close()

    def run(self, url: str, programs: list[Program]) -> None:
        supervisor = Supervisor(programs, out=sys.stdout)

        def announce() -> bool:
            if answers(url):
                supervisor.say(f"Counterfoil is ready at {url}")
                return True
            return False

        def tend() -> None:
            if not embedded.alive(embedded.layout()):
                revive(supervisor)

        interruptions.check()
        supervisor.say(f"Counterfoil starts: {url}, admin {url}/admin/, data {data_folder()}. Ctrl-C stops it.")
        supervisor.run(ready=announce, tend=tend)
        supervisor.say("Counterfoil has stopped.")


@contextmanager
def claimed(host: str, port: int) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(ports.claimed(host, port))
        except OSError as error:
            raise CommandError(str(error)) from error
        yield


def revive(supervisor: Supervisor) -> None:
    """Start the engines again that have died under us. Raises GivenUp."""
    place = embedded.layout()
    if not place.data.exists():
        raise GivenUp(f"the data folder {place.data} was removed.")
    try:
        started = embedded.ensure(session.note)
    except embedded.EngineError as error:
        raise GivenUp(str(error)) from error
    names = [name for name, again in (("PostgreSQL", started.postgres), ("Valkey", started.valkey)) if again]
    if names:
        supervisor.say(f"{' and '.join(names)} had ended; it is started again.")


def port_number(text: str) -> int:
    number = positive(text)
    if number > 65535:
        raise ArgumentTypeError("a port is at most 65535")
    return number


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the database's lock for those who prepare it."""
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = 0")  # the other one may take its time
        cursor.execute("SELECT pg_advisory_lock(%s)", [PREPARING])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [PREPARING])


def programs(host: str, port: int, workers: int) -> list[Program]:
    """The web, the workers and the sweeper, in the order in which they stop."""
    patience = ((signal.SIGTERM, settings.STOP_SECONDS + 2 * TO_GIVE_BACK),)
    shared = {"COUNTERFOIL_DATA": str(embedded.layout().data)}
    web = (sys.executable, "-m", "config.server", "--host", host, "--port", str(port))
    return [
        Program("web", web, shared, farewell=((signal.SIGTERM, 8.0),)),
        Program(
            "worker",
            worker("worker", "--all-queues", "--concurrency", str(workers)),
            shared,
            farewell=patience,
            orphaned=signal.SIGQUIT,
            stage=1,
            silence=settings.WATCHDOG_SECONDS,
        ),
        Program(
            "callbacks",
            worker("callbacks", "--queues", f"{CALLBACKS_QUEUE},{BULK_QUEUE}", "--concurrency", "3"),
            shared,
            farewell=patience,
            orphaned=signal.SIGQUIT,
            stage=1,
            silence=settings.WATCHDOG_SECONDS,
        ),
        Program("sweeper", (sys.executable, "manage.py", "sweep"), shared, stage=2, reports=False),
    ]


def worker(name: str, *options: str) -> tuple[str, ...]:
    """A Celery worker whose name no other has."""
    unique = f"{name}-{os.getpid()}@%h"
    celery = (sys.executable, "-m", "celery", "--quiet", "-A", "config", "worker", "--pool", "prefork")
    return (*celery, *options, "--hostname", unique, *QUIET)


def answers(url: str) -> bool:
    """Whether the web serves a file, under the name by which it is known."""
    parts = urlsplit(url)
    web = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=1)
    try:
        web.request("GET", static("admin/css/base.css"), headers={"Host": urlsplit(settings.PUBLIC_URL).netloc})
        return web.getresponse().status < 500
    except (OSError, http.client.HTTPException):
        return False
    finally:
        web.close()


def data_folder() -> str:
    place = embedded.layout()
    return str(place.data) if place.embeds_postgres or place.embeds_valkey else "external"


def _in_url(host: str) -> str:
    """The host as a browser here may name it."""
    if host in ("", "0.0.0.0", "::"):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
