"""The web: granian runs the WSGI application, `python -m config.server [--host HOST] [--port PORT]`.

Whoever streams is told to end by a pipe, which is at its end as soon as the server stops or is gone. Signals will not
do, since granian takes them for itself in its workers.
"""

import argparse
import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import traceback
from functools import partial
from typing import Any

from django.conf import settings
from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels

from config import ports
from config.processes import report_ready

APPLICATION = "config.wsgi:application"
THREADS_BESIDE = 64  # for requests that neither wait nor send nor read
MOST_CONNECTIONS = 16_384
FILES_BESIDE = 512
KILL_AFTER = 5  # seconds that requests have to end


class Server(Granian):
    """granian, which tells its workers to drain by closing a pipe that they have inherited."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reader, self.writer = os.pipe()

    def _stop_workers(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.writer)
        super()._stop_workers()


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    with contextlib.ExitStack() as claims:
        try:
            claims.enter_context(ports.claimed(options.host, options.port))
        except OSError as error:
            sys.exit(str(error))
        serve(options.host, options.port)


def serve(host: str, port: int) -> None:
    os.environ["DATABASE_POOL"] = "1"  # one process, many threads: they share connections
    load_or_exit()
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
    server = launch(host, port)
    server.serve(target_loader=partial(load, server.reader, server.writer), wrap_loader=False)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="config.server", description="Serve the API and the admin.")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
    return parser.parse_args(arguments)


def load_or_exit() -> None:
    """Load the application before there are workers: they share its memory, and an error is said once."""
    try:
        from config import wsgi  # noqa: F401
    except Exception as error:
        traceback.print_exc()
        sys.exit(f"The application cannot be loaded: {type(error).__name__}: {error}")


def launch(host: str, port: int) -> Server:
    threads = settings.WEB_STREAMS + settings.WEB_FILES + settings.WEB_BODIES + THREADS_BESIDE
    return Server(
        APPLICATION,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        workers=settings.WEB_WORKERS,
        blocking_threads=threads,
        backpressure=max(threads, _connections()),
        http=HTTPModes.http1,  # of a body in HTTP/2 granian does not tell whether it is whole
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_AFTER,
        log_level=LogLevels.error,
        log_dictconfig=settings.LOGGING,
        websockets=False,
        process_name="counterfoil: web",
    )


def _connections() -> int:
    """How many a worker may have open: those that say nothing cost a file each, and keep no thread."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_CONNECTIONS + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < most:
        soft = most if hard == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(soft, most) - FILES_BESIDE


def load(reader: int, writer: int) -> Any:
    """The application, for a worker; one that was forked has inherited the pipe and watches it."""
    from config.wsgi import application

    if multiprocessing.get_start_method() == "fork":
        os.close(writer)
        threading.Thread(target=_end_with_the_server, args=(reader,), daemon=True).start()
    report_ready()
    return application


def _end_with_the_server(reader: int) -> None:
    """End the streams and stop when the server stops; also when it was killed and nobody is left to signal us."""
    from tasks.api.hub import hub

    os.read(reader, 1)
    hub.drain()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(KILL_AFTER + 1)
    os._exit(1)


if __name__ == "__main__":
    main()
