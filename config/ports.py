"""A port for one web only. granian would share one that another granian has, so a lock stands for it."""

import contextlib
import os
import socket
from collections.abc import Iterator

from config.engines_layout import SHORT_HOME, EngineError, private_folder

CLAIMED = "COUNTERFOIL_PORT"  # the port that whoever started us has claimed


@contextlib.contextmanager
def claimed(host: str, port: int) -> Iterator[None]:
    """Have the port until the end of the block, for us and those we start; OSError says why we cannot listen there."""
    if os.environ.get(CLAIMED) == str(port):
        refuse_taken(host, port)
        yield
        return
    with contextlib.ExitStack() as held:
        held.callback(os.close, _lock(host, port))
        refuse_taken(host, port)
        before = os.environ.get(CLAIMED)
        os.environ[CLAIMED] = str(port)
        held.callback(_restore, before)
        yield


def refuse_taken(host: str, port: int) -> None:
    """Raise OSError with a sentence where we cannot listen."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise OSError(f"Cannot listen on {host} port {port}: {error.strerror or error}.") from error


def _lock(host: str, port: int) -> int:
    """The open file that is the claim; where no folder can be had, the look at the port alone must do."""
    import fcntl

    folder = SHORT_HOME / f"counterfoil-{os.geteuid()}-ports"
    try:
        private_folder(folder, owner=os.geteuid())
        handle = os.open(folder / f"{port}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except (OSError, EngineError):
        return os.open(os.devnull, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise OSError(f"Cannot listen on {host} port {port}: another Counterfoil has this port.") from None
    return handle


def _restore(before: str | None) -> None:
    os.environ.pop(CLAIMED, None)
    if before is not None:
        os.environ[CLAIMED] = before
