"""Engines of a test's own, and lines to them that can be cut: what others work on is not touched."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Self

import redis

from config import engines_layout, engines_postgres, engines_process, engines_valkey
from tests.faults.processes import until


class Broker:
    """A Valkey of the test's own, on a socket."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket, self.process = folder, folder / "valkey.sock", None
        self.url = f"unix://{self.socket}?db=0"

    def start(self) -> None:
        words = ["--port", "0", "--unixsocket", self.socket, "--dir", self.folder, "--appendonly", "yes", "--save", ""]
        log = subprocess.DEVNULL
        self.process = subprocess.Popen([engines_valkey._program(), *words], stdout=log, stderr=log)
        until(self.answers)

    def answers(self) -> bool:
        with redis.from_url(self.url) as client:
            try:
                return client.ping()
            except redis.RedisError:
                return False

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait(10)


class Database:
    """A PostgreSQL of the test's own, in a folder; `with` removes it."""

    def __init__(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="counterfoil-db-"))
        kept = {name: os.environ.pop(name, None) for name in ("COUNTERFOIL_DATA", "DATABASE_URL")}
        os.environ["COUNTERFOIL_DATA"] = str(self.data)
        try:
            self.layout = engines_postgres.settle(engines_layout.layout())
        finally:
            del os.environ["COUNTERFOIL_DATA"]
            os.environ.update({name: value for name, value in kept.items() if value is not None})
        self.engine = engines_postgres.engine(self.layout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        engines_process.stop(self.engine)
        shutil.rmtree(self.layout.home, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """Where its socket is."""
        return self.layout.postgres_sockets

    def start(self) -> None:
        engines_process.start(self.engine)

    def crash(self) -> None:
        """End it at once, as `pg_ctl stop -m immediate` does: it recovers from its log when it is started again."""
        pid = engines_process.running(self.engine)
        os.kill(pid, signal.SIGQUIT)
        until(lambda: engines_process.running(self.engine) is None)


class Line:
    """A socket through which another is reached, until the line is cut, or swallows what is said."""

    def __init__(self, here: Path, there: Path) -> None:
        self.here, self.there = here, there
        self.dumb: set[socket.socket] = set()
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.listening: socket.socket | None = None

    def __enter__(self) -> Self:
        self.join()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()

    def join(self) -> None:
        """Let everybody through."""
        self.here.unlink(missing_ok=True)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.here))
        self.listening.listen(64)
        threading.Thread(target=self._serve, args=(self.listening,), daemon=True).start()

    def cut(self) -> None:
        """Break every connection and accept no other."""
        if self.listening:
            self.here.unlink(missing_ok=True)
            self.listening.shutdown(socket.SHUT_RDWR)
            self.listening.close()
            self.listening = None
        pairs, self.pairs = self.pairs, []
        for end in (end for pair in pairs for end in pair):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def swallow(self) -> None:
        """Pass nothing on by the connections there are, and break none: nobody at either end is told."""
        self.dumb |= {end for pair in self.pairs for end in pair}

    def _serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.socket(socket.AF_UNIX)
                try:
                    server.connect(str(self.there))
                except OSError:
                    client.close()
                    continue
                self.pairs.append((client, server))
                threading.Thread(target=self._carry, args=(client, server), daemon=True).start()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=self._pass_on, args=(server, client), daemon=True)
        back.start()
        with client, server:
            self._pass_on(client, server)
            back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source not in self.dumb:
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
