"""What a task's input may name by its URL: fetched from real servers, whole or not at all."""

import math
import signal
import socket
import sys
import time

import pytest

from tasks import interrupts, net
from tasks.interrupts import Interrupted, Watch
from tests.receiver import RawServer, Receiver, Reply

MOST = 100_000
COMPLETE = "The connection was closed before the whole answer came."


def fetch(answer, *, most=MOST):
    with Receiver([answer]) as server:
        return net.fetch(server.url, most=most), server


@pytest.mark.parametrize("size", [0, 1, 5000, MOST])
def test_a_body_comes_whole(size):
    body, server = fetch(Reply(200, {"content-type": "image/png"}, b"\x00" * size))

    assert body == b"\x00" * size
    (asked,) = server.requests
    assert (asked.headers["accept-encoding"], asked.headers["user-agent"]) == ("identity", net.USER_AGENT)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Reply(200, body=b"x" * (MOST + 1)), "longer than 100000 bytes"),
        (Reply(200, body=b"x" * 1000, endless=True), "longer than 100000 bytes"),
        (Reply(200, {"content-encoding": "gzip"}, b"\x1f\x8b"), "compressed"),
        (Reply(204), "answered 204"),
        (Reply(206, body=b"part"), "answered 206"),
        (Reply(302, {"location": "http://127.0.0.1/"}), "302; redirects are not followed"),
        (Reply(404), "answered 404"),
    ],
)
def test_an_answer_that_is_of_no_use_now_or_later(answer, says):
    with pytest.raises(net.Unacceptable, match=says):
        fetch(answer)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_an_answer_that_may_be_another_in_a_moment(status):
    with pytest.raises(net.Unreachable, match=str(status)):
        fetch(status)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", COMPLETE),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf", COMPLETE),
        (b"nonsense\r\n\r\n", "not valid HTTP"),
    ],
)
def test_half_an_answer_is_none(answer, says):
    with RawServer(answer, hang=False) as url, pytest.raises(net.Unreachable, match=says):
        net.fetch(url, most=MOST)


def test_a_length_that_is_too_much_is_refused_before_it_comes():
    with RawServer(b"HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n") as url:
        started = time.monotonic()
        with pytest.raises(net.Unacceptable, match="longer"):
            net.fetch(url, most=MOST)

    assert time.monotonic() - started < 1


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n\r\nhalf"])
def test_who_is_slow_is_not_waited_for(settings, answer):
    settings.FETCH_TIMEOUT_SECONDS = 0.2
    with RawServer(answer) as url, pytest.raises(net.Unreachable, match=r"within 0\.2 s"):
        net.fetch(url, most=MOST)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
def test_a_forbidden_address_is_not_connected_to(settings, host):
    settings.CALLBACK_ALLOWED_NETWORKS = []
    with Receiver() as server:
        for url in (f"http://{host}:{server.port}/", f"https://{host}/", f"http://me@{host}/"):
            with pytest.raises(net.ForbiddenUrl):
                net.fetch(url, most=MOST)

    assert server.connections == 0


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    with Receiver() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        fetch(Reply(200, body=b"x"))

    assert proxy.connections == 0


@pytest.fixture
def _stoppable(settings):
    settings.HEARTBEAT_SECONDS = 0.02
    before, hook = signal.getsignal(signal.SIGUSR2), sys.unraisablehook
    interrupts.install()
    yield
    signal.signal(signal.SIGUSR2, before)
    sys.unraisablehook, interrupts._leaving = hook, False


def watched(left):
    """A watch that hears this of its lease, with all the time there is."""
    return Watch(lambda: left, timeout=60, left=math.inf, abandon=None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_stoppable")
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\nhalf"])
def test_an_interruption_ends_the_wait_for_a_silent_server(answer):
    started = time.monotonic()

    with RawServer(answer) as url, pytest.raises(Interrupted, match="lost"):
        watched(None)(lambda: net.fetch(url, most=MOST))

    assert time.monotonic() - started < 1
    assert watched(math.inf)(lambda: fetch(Reply(200, body=b"next"))[0]) == b"next"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_stoppable")
def test_an_interruption_ends_the_wait_for_a_slow_name_server(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(2) or [])
    started = time.monotonic()

    with pytest.raises(Interrupted):
        watched(None)(lambda: net.fetch("http://slow.example.com/", most=MOST))

    assert time.monotonic() - started < 1.5
