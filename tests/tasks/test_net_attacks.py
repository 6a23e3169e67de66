"""The way out, attacked: every row goes by the C library's resolver to a name server on loopback, and no forbidden
connection is made.

127.0.0.2 stands for the public internet: it alone is opened. A trap listens on the same port of 127.0.0.1 and of ::1,
and Python itself reports every address that anything in this process connects to.
"""
# ruff: noqa: RUF001

import asyncio
import gzip
import itertools
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import pytest

from tasks import net
from tests.name_server import POINTABLE, NameServer

pytestmark = pytest.mark.skipif(not POINTABLE, reason="the resolver can be pointed at a name server with glibc only")

OUTSIDE = "127.0.0.2"
PUBLIC = "93.184.215.14"
NOT_ALLOWED = "The address is not allowed: it must be public, on port 80 or 443."
SECONDS = 0.3
MOST = 10_000
TOO_MUCH = 8 * 2**20

_seen: list[tuple] = []
sys.addaudithook(lambda event, args: _seen.append(args[1]) if event == "socket.connect" else None)


class Listener:
    """Listens on this address, answers by what `script` yields, and counts who came. A trap has no script."""

    def __init__(self, host, port=0, script=None):
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.came = 0
        self.script = script or (lambda: [b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ntrapped"])
        self._listening = socket.create_server((host, port), family=self.family, backlog=64)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def port(self):
        return self._listening.getsockname()[1]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self):
        while not self._over.is_set():
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self.came += 1
            threading.Thread(target=self._answer, args=(connected,), daemon=True).start()

    def _answer(self, connected):
        with connected, suppress(OSError):
            connected.settimeout(2)
            self.heard = connected.recv(65536)
            for part in self.script():
                if self._over.is_set():
                    return
                connected.sendall(part)
            self._over.wait(SECONDS * 2)


@pytest.fixture(scope="module")
def ground():
    """The name server, the outside, and the traps on its port."""
    with ExitStack() as servers:
        trap = servers.enter_context(Listener("127.0.0.1"))
        outside = servers.enter_context(Listener(OUTSIDE, trap.port))
        traps = [trap]
        with suppress(OSError):
            traps.append(servers.enter_context(Listener("::1", trap.port)))
        names = servers.enter_context(NameServer())
        yield SimpleNamespace(traps=traps, outside=outside, names=names, port=trap.port)


@pytest.fixture(autouse=True)
def watched(ground, settings, monkeypatch):
    """Whatever the test does, nothing was connected to but the outside."""
    settings.CALLBACK_ALLOWED_NETWORKS = [f"{OUTSIDE}/32"]
    settings.CALLBACK_TIMEOUT_SECONDS = settings.FETCH_TIMEOUT_SECONDS = 10
    monkeypatch.setattr(socket, "getaddrinfo", ground.names.pointed(socket.getaddrinfo))
    ground.names.zone.clear()
    ground.names.asked.clear()
    ground.names.otherwise = None
    before = len(_seen)
    yield
    assert {address[0] for address in _seen[before:]} <= {OUTSIDE}
    assert [trap.came for trap in ground.traps] == [0] * len(ground.traps)


def post(url):
    async def go():
        async with net.Client() as client:
            return await client.post(url, body=b"{}", headers={})

    return said(lambda: asyncio.run(go()))


def fetch(url):
    return said(lambda: net.fetch(url, most=MOST))


def said(call):
    try:
        return call()
    except (net.Unreachable, net.ForbiddenUrl, net.Unacceptable) as error:
        return str(error)


WAYS = pytest.mark.parametrize("way", [post, fetch])
REFUSALS = (NOT_ALLOWED, "The host name could not be resolved.")

# Inside, as an address may be.
INSIDE_V4 = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255",
    "127.0.0.1", "127.0.0.3", "127.1.2.3", "127.255.255.255", "168.63.129.16", "169.254.169.254", "169.254.170.2",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.0.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255",
]  # fmt: skip
INSIDE_V6 = [
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:7f00:1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:1", "64:ff9b:1::7f00:1", "64:ff9b:1:a00:0:100::",
    "64:ff9b:1::5db8:d70e", "100::1", "100:0:0:1::1", "2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:0:7f00:1::", "2001:2::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::1", "2002:a00:1::", "2002:a9fe:a9fe::",
    "2002:c0a8:1::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fd00:a9fe:a9fe::254", "fe80::1",
    "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip


@WAYS
@pytest.mark.parametrize("address", INSIDE_V4 + INSIDE_V6)
def test_no_name_leads_inside(ground, way, address):
    ground.names.zone["inside.example.com"] = [address]

    for port in ("", ":443", f":{ground.port}"):
        assert way(f"http://inside.example.com{port}/") == NOT_ALLOWED
    assert sum(ground.names.asked.values()) >= 3


# Inside, as a host may be written. What becomes a name is looked up, and every name leads inside.
WRITTEN = [
    "127.0.0.1", "127.0.0.3", "127.1", "127.0.1", "127.0.0.1.", "127.0.0.1..", "2130706433", "2130706433.",
    "0x7f000001", "0x7f.0.0.1", "0x7f.1", "0x7F.0X0.0x0.0X1", "0x0000007f000001", "017700000001", "0177.0.0.1",
    "0177.1", "00000177.0.0.1", "0177.0x0.0.1", "127.0.0.01", "127.0.0.1e0", "127.000.000.001", "4294967297",
    "6425673729", "0", "0.0.0.0", "00", "0x0", "1", "0x", "127.0.0.0x1", "127.65536", "127.0.256", "256.256.256.256",
    "①②⑦.⓪.⓪.①", "１２７.０.０.１", "𝟏𝟐𝟕.𝟎.𝟎.𝟏", "١٢٧.٠.٠.١", "१२७.०.०.१", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1",
    "127%2e0%2e0%2e1", "%31%32%37.0.0.1", "127.0.0.1%00.example.com", "127.0.0.1%0a", "127.0.0.1%20",
    "%6c%6f%63alhost", "localhost", "LOCALHOST", "localhost.", "LocalHost.",
    "localhost..", "ⓛocalhost", "ｌｏｃａｌｈｏｓｔ",
    "loc\u00adalhost", "localhoſt", "xn--localhost-", "foo.localhost", "localhost.localdomain", "ip6-localhost",
    "ip6-loopback", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::1%25lo]", "[::1%lo]", "[::127.0.0.1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:7F00:0001]", "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::127.0.0.1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]",
    "[127.0.0.1]", "[::ffff:0x7f.1]", "[v1.127.0.0.1]", "[::1", "::1", "[::1].example.com", "[[::1]]",
    "127.0.0.2@127.0.0.1", "user:pass@127.0.0.1", "127.0.0.2:80@127.0.0.1", "127.0.0.2%40127.0.0.1",
    "127.0.0.2\\@127.0.0.1", "127.0.0.2\t@127.0.0.1", "127.0.0.2 127.0.0.1", "127.0.0.1\\",
    "127.0.0.2\r\nhost: 127.0.0.1", "127.0.0.2,127.0.0.1", "127.0.0.2;127.0.0.1", "{127.0.0.1}", "127.0.0.1\u200b",
    "169.254.169.254", "[fd00:ec2::254]", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:a9fe:a9fe]",
    "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "[fe80::1]", "[fc00::1]",
]  # fmt: skip


@WAYS
@pytest.mark.parametrize("host", WRITTEN)
def test_no_spelling_leads_inside(ground, way, host):
    ground.names.otherwise = ["127.0.0.1", "::1"]
    said = {way(f"http://{host}{port}/") for port in ("", ":443", f":{ground.port}")}

    assert all(isinstance(each, str) for each in said), said


@WAYS
def test_this_machines_own_name_leads_nowhere(ground, way):
    for name in (socket.gethostname(), socket.getfqdn()):
        assert way(f"http://{name}:{ground.port}/") in (*REFUSALS, "The URL's host is not valid.")


@WAYS
def test_what_is_outside_is_reached(ground, way):
    ground.names.zone["good.example.com"] = [OUTSIDE]
    before = ground.outside.came

    way(f"http://good.example.com:{ground.port}/")
    way(f"http://{OUTSIDE}:{ground.port}/?@127.0.0.1/#".rstrip("#"))

    assert ground.outside.came == before + 2


@WAYS
@pytest.mark.parametrize(
    "answer",
    [
        *itertools.permutations([OUTSIDE, "127.0.0.1"]),
        [OUTSIDE, "::1"],
        [OUTSIDE, "::ffff:127.0.0.1"],
        [PUBLIC, "10.0.0.1"],
        ["2606:4700::1111", "fd00::1"],
        [*[OUTSIDE] * 15, "127.0.0.1", *[OUTSIDE] * 4],
    ],
)
def test_one_bad_address_spoils_the_answer(ground, way, answer):
    ground.names.zone["mixed.example.com"] = list(answer)

    assert way(f"http://mixed.example.com:{ground.port}/") == NOT_ALLOWED


ALIASES = {
    "to-inside.example.com": "inside.example.com",
    "inside.example.com": ["127.0.0.1"],
    "to-localhost.example.com": "localhost",
    "localhost": ["127.0.0.1", "::1"],
    "long.example.com": "to-inside.example.com",
    "metadata.example.com": "metadata.google.internal",
    "metadata.google.internal": ["169.254.169.254"],
    "round.example.com": [],
    "127.0.0.1.nip.io": ["127.0.0.1"],
    "wpad": ["127.0.0.1"],
}


@WAYS
@pytest.mark.parametrize("name", ALIASES)
def test_no_alias_leads_inside(ground, way, name):
    ground.names.zone.update(ALIASES)

    assert way(f"http://{name}:{ground.port}/") in REFUSALS


@WAYS
def test_an_alias_of_what_is_outside_is_followed(ground, way):
    ground.names.zone.update({"alias.example.com": "good.example.com", "good.example.com": [OUTSIDE]})
    before = ground.outside.came

    way(f"http://alias.example.com:{ground.port}/")

    assert ground.outside.came == before + 1


@WAYS
def test_a_name_that_is_rebound_is_connected_to_as_it_was_checked(ground, way):
    ground.names.zone["rebound.example.com"] = lambda before: [OUTSIDE] if before == 0 else ["127.0.0.1"]
    url = f"http://rebound.example.com:{ground.port}/"
    before = ground.outside.came

    way(url)
    asked = dict(ground.names.asked)
    again = way(url)

    assert ground.outside.came == before + 1
    assert set(asked.values()) == {1}
    assert again == NOT_ALLOWED


def test_a_name_that_is_rebound_between_calls_of_one_client_is_never_followed(ground):
    ground.names.zone["rebound.example.com"] = lambda before: [OUTSIDE] if before % 2 == 0 else ["127.0.0.1"]

    async def go():
        async with net.Client() as client:
            for _ in range(5):
                with suppress(net.Unreachable):
                    await client.post(f"http://rebound.example.com:{ground.port}/", body=b"{}", headers={})

    asyncio.run(go())


@pytest.fixture
def hasty(settings):
    """What hangs is given up soon."""
    settings.CALLBACK_TIMEOUT_SECONDS = settings.FETCH_TIMEOUT_SECONDS = SECONDS


@WAYS
@pytest.mark.parametrize(
    "answer",
    [b"", b"\x81", b"\x81\x80" + b"\xff" * 8, b"\x81\x80\0\1\0\1\0\0\0\0\xc0\x0c\xc0\x0c", b"\x81\x82\0\1\0\0\0\0\0\0"],
)
def test_a_name_server_that_talks_nonsense_leads_nowhere(ground, hasty, way, answer):
    ground.names.zone["nonsense.example.com"] = answer

    assert way("http://nonsense.example.com/") in ("The host name could not be resolved.", *given_up())


def given_up():
    return (f"No answer within {SECONDS:g} s.", f"No whole answer within {SECONDS:g} s.")


@WAYS
@pytest.mark.parametrize("port", [1, 22, 25, 53, 81, 444, 2375, 5432, 6379, 8000, 8080, 8443, 11211, 65535])
def test_what_is_public_is_called_on_the_webs_ports_only(ground, way, port):
    ground.names.zone["public.example.com"] = [PUBLIC]

    assert way(f"http://public.example.com:{port}/") == NOT_ALLOWED
    assert way(f"https://{PUBLIC}:{port}/") == NOT_ALLOWED


@WAYS
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["http://127.0.0.1:{port}/", "//localhost:{port}/", "http://inside.example.com:{port}/"])
def test_no_redirect_is_followed(ground, way, status, to):
    ground.names.zone["inside.example.com"] = ["127.0.0.1"]
    location = to.format(port=ground.port)
    answer = f"HTTP/1.1 {status} See\r\nlocation: {location}\r\nrefresh: 0; url={location}\r\ncontent-length: 0\r\n\r\n"
    with Listener(OUTSIDE, script=lambda: [answer.encode()]) as server:
        came = way(f"http://{OUTSIDE}:{server.port}/")

    assert server.came == 1
    assert str(status) in str(came)


@WAYS
def test_no_header_or_environment_sends_us_elsewhere(ground, way, monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SOCKS_PROXY"):
        for spelled in (name, name.lower()):
            monkeypatch.setenv(spelled, f"http://127.0.0.1:{ground.port}")
    monkeypatch.setenv("LOCALDOMAIN", "inside.example.com")
    ground.names.zone["good.example.com"] = [OUTSIDE]
    answer = f'HTTP/1.1 200 OK\r\nalt-svc: h2="127.0.0.1:{ground.port}"\r\ncontent-length: 0\r\n\r\n'
    with Listener(OUTSIDE, script=lambda: [answer.encode()]) as server:
        way(f"http://good.example.com:{server.port}/")
        way(f"https://{OUTSIDE}:{server.port}/")

    assert server.came == 2


def drip(head, byte=b"x"):
    def script():
        yield head
        while True:
            time.sleep(0.02)
            yield byte

    return script


def flood(head, part, *, of=4096):
    def script():
        yield head
        yield from itertools.repeat(part * (of // len(part)))

    return script


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
BOMB = gzip.compress(bytes(50 * 2**20))
HOSTILE = {
    "silence": list,
    "status line that drips": drip(b"", b"H"),
    "headers that drip": drip(HEAD + b"x: "),
    "body that drips": drip(HEAD + b"content-length: 100000\r\n\r\n"),
    "chunks that drip": drip(CHUNKED, b"1\r\na\r\n"),
    "endless reason": flood(b"HTTP/1.1 200 ", b"a"),
    "endless header": flood(HEAD + b"x: ", b"a"),
    "endless header name": flood(HEAD, b"a"),
    "endless headers": flood(HEAD, b"x: y\r\n"),
    "endless folded header": flood(HEAD + b"x: y\r\n", b" z\r\n"),
    "endless cookies": flood(HEAD, b"set-cookie: a=b\r\n"),
    "endless blank lines": flood(b"", b"\r\n"),
    "endless 100": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless 103": flood(b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n"),
    "100s that drip": drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "HTTP/0.9": flood(b"hello\n", b"a"),
    "another protocol": flood(b"SSH-2.0-OpenSSH_9.6\r\n", b"a"),
    "switched protocol": flood(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", b"a"),
    "endless body": flood(HEAD + b"\r\n", b"a"),
    "huge body": flood(HEAD + b"content-length: 1000000000000\r\n\r\n", b"a"),
    "endless chunk size": flood(CHUNKED, b"0"),
    "endless chunk extension": flood(CHUNKED + b"1;", b"a"),
    "chunk extensions": flood(CHUNKED, b"1;" + b"a" * 1000 + b"\r\na\r\n"),
    "tiny chunks": flood(CHUNKED, b"1\r\na\r\n"),
    "endless trailers": flood(CHUNKED + b"1\r\na\r\n0\r\n", b"x: y\r\n"),
    "endless trailer": flood(CHUNKED + b"1\r\na\r\n0\r\nx: ", b"a"),
    "more after the end": flood(HEAD + b"content-length: 1\r\n\r\na", b"a"),
    "answers after the answer": flood(HEAD + b"content-length: 1\r\n\r\na", HEAD + b"content-length: 1\r\n\r\na"),
    "two lengths": lambda: [HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"],
    "length and chunks": lambda: [HEAD + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
    "gzip bomb": lambda: [HEAD + f"content-encoding: gzip\r\ncontent-length: {len(BOMB)}\r\n\r\n".encode(), BOMB],
    "chunked gzip bomb": lambda: [HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n", b"%x\r\n" % len(BOMB), BOMB],
    "NUL": flood(b"", b"\0"),
}


@WAYS
@pytest.mark.parametrize("script", HOSTILE.values(), ids=HOSTILE)
def test_no_answer_takes_more_than_its_time_and_room(hasty, way, script):
    with Listener(OUTSIDE, script=script) as server:
        tracemalloc.start()
        started = time.monotonic()
        came = way(f"http://{OUTSIDE}:{server.port}/")
        took = time.monotonic() - started
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert server.came == 1
    assert took < SECONDS + 2
    assert most < TOO_MUCH
    match came:
        case net.Answer():
            assert len(came.body) <= net.MOST_BODY
        case bytes():
            assert len(came) <= MOST
        case _:
            assert len(came) < 200


# In a process of its own, so that what it costs us is ours alone.
FLOOD = """
import socket, sys, threading
def flood(connected):
    try:
        connected.recv(65536)
        while True:
            connected.sendall(b"HTTP/1.1 100 Continue\\r\\n\\r\\n" * 200)
    except OSError:
        pass
listening = socket.create_server((sys.argv[1], 0), backlog=64)
print(listening.getsockname()[1], flush=True)
while True:
    threading.Thread(target=flood, args=(listening.accept()[0],), daemon=True).start()
"""


def test_ten_that_flood_us_with_interim_answers_delay_no_other(settings):
    settings.CALLBACK_TIMEOUT_SECONDS = 1.5
    answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    command = [sys.executable, "-c", FLOOD, OUTSIDE]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as flood, Listener(OUTSIDE, script=lambda: [answer]) as well:
        flooding = f"http://{OUTSIDE}:{int(flood.stdout.readline())}/"

        async def timed(client, url):
            began = time.monotonic()
            with suppress(net.Unreachable):
                await client.post(url, body=b"{}", headers={})
            return time.monotonic() - began

        async def meanwhile(client):
            await asyncio.sleep(0.2)
            return [await timed(client, f"http://{OUTSIDE}:{well.port}/") for _ in range(5)]

        async def go():
            async with net.Client() as client:
                return await asyncio.gather(meanwhile(client), *[timed(client, flooding) for _ in range(10)])

        others, *floods = asyncio.run(go())
        flood.kill()

    assert max(others) < 0.75
    assert max(floods) < 1.5 + 0.75


@WAYS
def test_a_request_carries_nothing_of_ours_but_what_was_given(way):
    with Listener(OUTSIDE) as server:
        way(f"http://{OUTSIDE}:{server.port}/a%0d%0aX-Evil:%201?b=c")

    head = server.heard.split(b"\r\n\r\n")[0].decode().split("\r\n")
    assert head[0].split(" ", 1)[1] == "/a%0D%0AX-Evil:%201?b=c HTTP/1.1"
    assert {line.split(":")[0].lower() for line in head[1:]} <= {
        "host", "user-agent", "accept", "accept-encoding", "content-length", "content-type",
    }  # fmt: skip
