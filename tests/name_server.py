"""A DNS server on loopback, and the C library's own resolver pointed at it: look-ups go their way of production."""

import ctypes
import ipaddress
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

LIBC = ctypes.CDLL(None)
# Only glibc lets a thread name its own name servers; elsewhere these tests cannot be.
POINTABLE = hasattr(LIBC, "__res_state") and hasattr(LIBC, "gnu_get_libc_version")
A, CNAME, AAAA = 1, 5, 28


class NameServer:
    """`with NameServer() as server`: `zone` says what a name is, `asked` what was asked.

    A name is a list of addresses, a name (an alias), bytes to answer with as they are, or a function of how many times
    that kind of address was asked for before. A name that is not there is `otherwise`, or does not exist.
    """

    def __init__(self) -> None:
        self.zone: dict[str, Any] = {}
        self.otherwise: list[str] | None = None
        self.asked: Counter[tuple[str, int]] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def pointed(self, look_up: Callable[..., Any]) -> Callable[..., Any]:
        """The look-up, with this server as the one that the calling thread asks."""

        def pointed(*args: Any) -> Any:
            _ask(self._socket.getsockname()[1])
            return look_up(*args)

        return pointed

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(4096)
            if not question:
                return
            with suppress(OSError):
                self._socket.sendto(self._answer(question), sender)

    def _answer(self, question: bytes) -> bytes:
        name, kind, end = _read(question)
        before = self.asked[name, kind]
        self.asked[name, kind] += 1
        found = self.zone.get(name, self.otherwise)
        if callable(found):
            found = found(before)
        if isinstance(found, bytes):
            return question[:2] + found
        records = self._records(found, kind)
        flags = 0x8180 if found is not None else 0x8183
        head = struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
        return question[:2] + head + question[12:end] + b"".join(records)

    def _records(self, found: Any, kind: int, owner: bytes = b"\xc0\x0c") -> list[bytes]:
        """What a name is, an alias followed to its end."""
        if isinstance(found, str):
            to = _written(found)
            return [_record(owner, CNAME, to), *self._records(self.zone.get(found, []), kind, to)]
        addresses = [ipaddress.ip_address(address) for address in found or []]
        wanted = [address for address in addresses if (address.version == 4) == (kind == A)]
        return [_record(owner, kind, address.packed) for address in wanted] if kind in (A, AAAA) else []


def _ask(port: int) -> None:
    """Let this thread's look-ups ask one name server, on loopback: one try, one second."""
    state_of = LIBC["__res_state"]
    state_of.restype = ctypes.c_void_p
    LIBC["__res_init"]()
    state = state_of()
    server = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton("127.0.0.1") + b"\0" * 8
    for offset in (0, 4, 16):  # retrans, retry, nscount
        ctypes.c_int.from_address(state + offset).value = 1
    ctypes.memmove(state + 20, server, len(server))  # nsaddr_list[0]


def _read(question: bytes) -> tuple[str, int, int]:
    labels, at = [], 12
    while length := question[at]:
        labels.append(question[at + 1 : at + 1 + length].decode("latin-1").lower())
        at += length + 1
    return ".".join(labels), struct.unpack("!H", question[at + 1 : at + 3])[0], at + 5


def _record(owner: bytes, kind: int, data: bytes) -> bytes:
    """It is kept by nobody: its time to live is 0."""
    return owner + struct.pack("!HHIH", kind, 1, 0, len(data)) + data


def _written(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
