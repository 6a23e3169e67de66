"""The only way out to addresses that users name.

What is connected to is what was checked: names are looked up once, by our own resolver, which refuses the whole answer
if one address of it is not allowed; and no socket is made for an address that is not allowed, whoever asks.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
import threading
import tomllib
from collections import Counter
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from unicodedata import category

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import Connection
from django.conf import settings
from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_URL = 2048
MOST_BODY = 2048
READ = 2**16
# What one socket may hand over at a time. Answers of receivers are short, and their tries share a loop: a flood of one
# is parsed in small parts. A file has its loop to itself.
ANSWERS = 2**12
FILES = 2**16
# Answers before the answer (100 Continue, 103 Early Hints) that are listened to.
INTERIM = 10
PORTS = (80, 443)
# Answers that may be others in a moment, beside those from 500 on.
PASSING = (408, 425, 429)
# Connections are kept for a moment only: a receiver that closes an idle one would cost the next callback a try.
KEEPALIVE_SECONDS = 2
VERSION = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]["version"]
USER_AGENT = f"Counterfoil/{VERSION}"

AUTHORITY = re.compile(r"(?i:https?)://([^/?#]+)[^#]*")
HOST_AND_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?")
NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

PUBLIC_V6 = ipaddress.ip_network("2000::/3")
DOCUMENTATION = ipaddress.ip_network("3fff::/20")
NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What `is_global` lets pass, in some Python or formally: protocol assignments, 6to4 relays, a cloud's own host.
NOT_PUBLIC = [ipaddress.ip_network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")]

# A look-up may outlive its try several times, and its thread with it. Who named the slow ones has a share of the
# threads, and none is waited for: a try that finds no thread is not made.
LOOKUPS = 1024
LOOKUPS_EACH = 64
_lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")
_looking: Counter[Hashable] = Counter()
_counting = threading.Lock()
_on_behalf_of: ContextVar[Hashable] = ContextVar("on_behalf_of", default=None)
_sent: ContextVar["Sent | None"] = ContextVar("sent", default=None)


class ForbiddenUrl(ValueError):
    """The URL is not one that we would call; the message says why, to whoever wrote it."""


class Unreachable(Exception):
    """No answer came; the message says why, to whoever named the address."""


class Unacceptable(Exception):
    """An answer came that is of no use, now or later; the message says why, to whoever named the address."""


class Busy(Exception):
    """Nothing was tried: as many names as may be are being looked up."""


class NoThread(OSError):
    """No thread is free to look the name up."""


class Forbidden(OSError):
    """The address is not one that users may name."""


@dataclass
class Sent:
    """A request as it left: every header, and the address that it went to. Empty while no connection was made."""

    headers: dict[str, str] = field(default_factory=dict)
    address: str = ""


@dataclass(frozen=True)
class Answer:
    """What a receiver said: of `body` and `headers` at most the first 2 kB, `retry_after` the header as it was sent."""

    status: int
    body: bytes
    retry_after: str | None = None
    headers: str = ""


@lru_cache(maxsize=4096)
def check_url(url: str) -> URL:
    """The parsed URL: http or https, at most 2,048 characters, no user, no fragment. Raises ForbiddenUrl.

    Nothing is looked up: where the host leads is found out when it is called.
    """
    if len(url) > MOST_URL:
        raise ForbiddenUrl(f"A URL has at most {MOST_URL} characters.")
    if any(letter.isspace() or letter == "\\" or category(letter)[0] == "C" for letter in url):
        raise ForbiddenUrl("A URL has no spaces, backslashes or control characters.")
    if "#" in url:
        raise ForbiddenUrl("The URL must not have a fragment.")
    found = AUTHORITY.fullmatch(url)
    if found is None:
        raise ForbiddenUrl("The URL must begin with http:// or https:// and a host.")
    if "@" in found[1]:
        raise ForbiddenUrl("The URL must not have a user name or password.")
    return _check_host(found[1], url)


def _check_host(authority: str, url: str) -> URL:
    found = HOST_AND_PORT.fullmatch(authority)
    if found is None or (found[3] and not 0 < int(found[3]) < 65536):
        raise ForbiddenUrl("The URL's host or port is not valid.")
    try:
        parsed = URL(url)
        host = parsed.raw_host or ""
        if found[1]:
            ipaddress.IPv6Address(found[1].replace("%", " "))
        elif NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            ipaddress.IPv4Address(host)
        elif not NAME.fullmatch(host.removesuffix(".")):
            raise ValueError
        spellings = (host, parsed.host)
    except ValueError as error:
        raise ForbiddenUrl("The URL's host is not valid.") from error
    _check_spelling(found, parsed, spellings)
    return parsed


def _check_spelling(found: re.Match[str], parsed: URL, spellings: tuple[str | None, ...]) -> None:
    """One host and port is written in one way, but for the case of ASCII letters: receivers take turns by it."""
    if (found[1] or found[2]).encode().lower().decode() not in spellings:
        raise ForbiddenUrl(f"The URL's host must be written as {parsed.host_subcomponent}.")
    if (found[3] or "").startswith("0"):
        raise ForbiddenUrl(f"The URL's port must be written as {parsed.port}.")


def permits(address: str, port: int, allowed: list[Network]) -> bool:
    """Whether users may name this address: public, on port 80 or 443, or any port of an allowed network."""
    real = _unwrap(ipaddress.ip_address(address))
    if any(real in network for network in allowed):
        return True
    return port in PORTS and _public(real)


def _unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (mapped, 6to4, NAT64), or itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


def _public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or any(address in network for network in NOT_PUBLIC):
        return False
    return address.version == 4 or (address in PUBLIC_V6 and address not in DOCUMENTATION)


def allowed_networks() -> list[Network]:
    """The networks that this installation opens, with every port inside them."""
    return [ipaddress.ip_network(network) for network in settings.CALLBACK_ALLOWED_NETWORKS]


def _look_up(of: Hashable, host: str, port: int, family: socket.AddressFamily) -> Future[list[Any]]:
    """The system's answer, from a thread of its own. Raises NoThread, and never waits for one."""
    with _counting:
        if _looking[of] >= LOOKUPS_EACH or _looking.total() >= LOOKUPS:
            raise NoThread
        _looking[of] += 1
    found = _lookups.submit(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
    found.add_done_callback(lambda _: _looked_up(of))
    return found


def _looked_up(of: Hashable) -> None:
    with _counting:
        _looking[of] -= 1
        if not _looking[of]:
            del _looking[of]


class Resolver(AbstractResolver):
    """Looks a name up and hands out the answer only if all of it is allowed."""

    def __init__(self, allowed: list[Network]) -> None:
        self.allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.wrap_future(_look_up(_on_behalf_of.get(), host, port, family))
        addresses = [(family, sockaddr[0]) for family, _, _, _, sockaddr in found]
        if not addresses or not all(permits(str(address), port, self.allowed) for _, address in addresses):
            raise Forbidden
        return [
            ResolveResult(
                hostname=host, host=str(address), port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
            )
            for family, address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Patient(aiohttp.ClientResponse):
    """An answer that comes after a few interim ones at the most; by itself aiohttp would listen to them for ever."""

    async def start(self, connection: Connection) -> Self:
        _note(self.request_info, connection)
        protocol = connection.protocol
        assert protocol is not None  # noqa: S101 - for the types: a connection that starts has one
        read, left = protocol.read, iter(range(INTERIM + 1))

        async def read_few() -> Any:
            if next(left, None) is None:
                raise aiohttp.ClientResponseError(self.request_info, self.history, message="interim answers")
            return await read()

        protocol.read = read_few  # type: ignore[method-assign]
        try:
            await super().start(connection)
        finally:
            del protocol.read
        return self


def _note(request: aiohttp.RequestInfo, connection: Connection) -> None:
    """Keep what leaves for whoever asked for it."""
    if (sent := _sent.get()) is not None:
        sent.headers = dict(request.headers)
        peer = connection.transport.get_extra_info("peername") if connection.transport else None
        sent.address = str(peer[0]) if peer else ""


class Client:
    """Speaks HTTP with receivers, within one event loop: `async with Client() as client`.

    It follows no redirects, keeps no cookies, heeds no proxy of the environment and decompresses nothing.
    """

    def __init__(self, *, buffer: int = ANSWERS) -> None:
        self.allowed = allowed_networks()
        self.buffer = buffer
        self.timeout = settings.CALLBACK_TIMEOUT_SECONDS

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=Resolver(self.allowed),
            socket_factory=self._socket,
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            response_class=Patient,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
            auto_decompress=False,
            trust_env=False,
            read_bufsize=4096,
            max_line_size=4096,
            max_field_size=8190,
            max_headers=100,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, url: str, *, most: int) -> bytes:
        """The whole body, at most that many bytes, within FETCH_TIMEOUT_SECONDS.

        Raises ForbiddenUrl, for addresses that are not allowed too, Unacceptable or Unreachable.
        """
        target = check_url(url)
        try:
            async with asyncio.timeout(settings.FETCH_TIMEOUT_SECONDS):
                async with self._session.get(target, allow_redirects=False) as response:
                    return await _body(response, most)
        except TimeoutError as error:
            raise Unreachable(f"No whole answer within {settings.FETCH_TIMEOUT_SECONDS:g} s.") from error
        except aiohttp.ClientPayloadError as error:
            raise Unreachable("The connection was closed before the whole answer came.") from error
        except (aiohttp.ClientError, OSError) as error:
            wrong = ForbiddenUrl if isinstance(_cause(error), Forbidden) else Unreachable
            raise wrong(_readable(error)) from error

    async def post(
        self, url: str, *, body: bytes, headers: dict[str, str], of: Hashable = None, sent: Sent | None = None
    ) -> Answer:
        """The receiver's answer, within CALLBACK_TIMEOUT_SECONDS. Raises ForbiddenUrl, Unreachable or Busy.

        `of` is whoever named the URL: look-ups on behalf of one leave threads for those of others. `sent` is filled in
        with what left, whatever comes of it.
        """
        target = check_url(url)
        _on_behalf_of.set(of)
        _sent.set(sent)
        try:
            async with asyncio.timeout(self.timeout) as limit:
                response = await self._session.post(target, data=body, headers=headers, allow_redirects=False)
                return await _answer(response, limit)
        except TimeoutError as error:
            raise Unreachable(f"No answer within {self.timeout:g} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(_cause(error), NoThread):
                raise Busy from error
            raise Unreachable(_readable(error)) from error

    def _socket(self, info: Any) -> socket.socket:
        """A socket for an allowed address: the last door, also for those written as numbers, which nobody resolves."""
        family, kind, proto, _, (host, port, *_) = info
        if not permits(host, port, self.allowed):
            raise Forbidden
        made = socket.socket(family, kind, proto)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        return made


def fetch(url: str, *, most: int) -> bytes:
    """What `Client.get` brings, for code that has no event loop; an interruption of the main thread ends it at once."""

    async def get() -> bytes:
        async with Client(buffer=FILES) as client:
            return await client.get(url, most=most)

    return asyncio.run(get())


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body of a 200, read no further than it may be long. Raises Unacceptable or Unreachable."""
    if response.status in PASSING or response.status >= 500:
        raise Unreachable(f"The server answered {response.status}.")
    if response.status != 200:
        follows = "; redirects are not followed" if 300 <= response.status < 400 else ""
        raise Unacceptable(f"The server answered {response.status}{follows}.")
    if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Unacceptable("The answer is compressed, which it was not asked to be.")
    body = bytearray()
    too_long = (response.content_length or 0) > most
    while not too_long and (more := await response.content.read(READ)):
        body += more
        too_long = len(body) > most
    if too_long:
        raise Unacceptable(f"The answer is longer than {most} bytes.")
    return bytes(body)


async def _answer(response: aiohttp.ClientResponse, limit: asyncio.Timeout) -> Answer:
    """The status decides; of the body we take what comes in time."""
    body = b""
    try:
        with suppress(aiohttp.ClientError, OSError):
            while len(body) < MOST_BODY and (more := await response.content.read(MOST_BODY - len(body))):
                body += more
    except asyncio.CancelledError:
        if not limit.expired():
            raise
    finally:
        response.close() if not response.content.at_eof() else response.release()
    return Answer(response.status, body, response.headers.get("retry-after"), _told(response))


def _told(response: aiohttp.ClientResponse) -> str:
    """The headers of an answer, a line each. A cookie is the receiver's own affair: only its name is kept."""
    lines = [f"{_text(name)}: {_shown(_text(name), _text(value))}" for name, value in response.raw_headers]
    return "\n".join(lines)[:MOST_BODY]


def _shown(name: str, value: str) -> str:
    return value if name.lower() != "set-cookie" else f"{value.partition('=')[0]}=(left out)"


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _cause(error: Exception) -> Exception:
    return getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error


def _readable(error: Exception) -> str:
    cause = _cause(error)
    match cause:
        case Forbidden():
            return "The address is not allowed: it must be public, on port 80 or 443."
        case NoThread():
            return "Too many host names are being looked up."
        case socket.gaierror():
            return "The host name could not be resolved."
        case ConnectionRefusedError():
            return "The connection was refused."
        case ssl.SSLCertVerificationError():
            return f"The certificate is not valid: {cause.verify_message}."
        case ssl.SSLError():
            return f"TLS failed: {(cause.reason or 'no reason given').replace('_', ' ').lower()}."
        case aiohttp.ClientResponseError():
            return "The answer was not valid HTTP."
        case aiohttp.ServerDisconnectedError() | ConnectionResetError() | BrokenPipeError():
            return "The connection was closed before an answer came."
        case OSError(strerror=str(reason)):
            return f"The connection failed: {reason.lower()}."
    return "The connection failed."
