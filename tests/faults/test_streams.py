"""Streams and waits of a real web server: what they cost others, and how they end."""

import contextlib
import resource
import select
import signal
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.utils.timezone import now

from tasks import lifecycle
from tasks.identifiers import public_id
from tests.builders import account, claim, deployment, submit
from tests.config.running import free_port
from tests.faults.processes import Crew, until
from tests.faults.promises import Client
from tests.tasks.api.sse import Listener, rows, text_of

pytestmark = pytest.mark.django_db(transaction=True)

STREAMS, BEAT = 12, 0.5
QUICK = {"STREAM_HEARTBEAT_SECONDS": str(BEAT), "DATABASE_POOL_SIZE": "2"}


class Web:
    """A running server, and one of its clients."""

    def __init__(self, crew, **settings):
        crew.environment |= settings
        self.port = free_port()
        self.process = crew.web(self.port)
        self.client = Client(self.port, account("100"))
        self.open: list[Listener] = []
        self.client.insist("GET", "/v1/tasks")

    def follow(self, task, client=None, **headers):
        """A stream that the server has begun, or has refused."""
        client = client or self.client
        listener = Listener(self.port, client.secret, f"{path_of(task)}/events", **headers)
        self.open.append(listener)
        return listener

    def crowd(self, task, count):
        """As many streams, two of a key."""
        clients = [Client(self.port, self.client.account) for _ in range((count + 1) // 2)]
        return [self.follow(task, clients[number // 2]) for number in range(count)]

    def poll(self, task):
        """The status of a poll, and how long it took."""
        began = time.monotonic()
        return self.client.call("GET", path_of(task)).status, time.monotonic() - began


def path_of(task):
    return f"/v1/tasks/{public_id(task.pk)}"


@pytest.fixture(scope="module")
def crew(django_db_setup, django_db_blocker, tmp_path_factory):
    with django_db_blocker.unblock():
        hired = Crew(tmp_path_factory.mktemp("crew"), WEB_STREAMS=str(STREAMS), KEY_STREAMS="2", **QUICK)
    yield hired
    hired.dismiss()


@pytest.fixture
def start(crew):
    """Starts a server, whose streams and process end with the test."""
    started = []

    def web(**settings):
        started.append(Web(crew, **settings))
        return started[-1]

    yield web
    for web in started:
        web.process.terminate()
        assert web.process.wait(10) == 0
        for listener in web.open:
            listener.hang_up()


def test_a_stream_tells_a_life_as_it_goes_and_closes(start):
    web = start()
    task = submit(web.client.account, deployment(max_retries=1))
    stream, late, took = web.follow(task), web.follow(task, Last_Event_ID="1"), {}

    def timed(kind, act):
        began = time.monotonic()
        done = act()
        stream.next(kind)
        took[kind] = time.monotonic() - began
        return done

    claimed = timed("task.running", lambda: claim(task))
    timed("output.delta", lambda: lifecycle.publish(claimed, text="Grüße, ", offset=0, usage={}))
    timed("task.progress", lambda: lifecycle.progress(claimed, percent=50, stage=None, message=None))
    time.sleep(2.5 * BEAT)
    lifecycle.publish(claimed, text="𝄞", offset=7, usage={})
    timed("task.succeeded", lambda: lifecycle.succeed(claimed, output="done", usage={}, warnings=[]))
    events = late.rest()

    assert stream.rest() == []
    assert max(took.values()) < 0.9
    assert rows(events) == [(2, "task.running"), (4, "task.succeeded")]
    assert text_of(events) == "Grüße, 𝄞"
    assert (stream.over, late.over) == (True, True)
    assert 2 <= late.comments <= 4
    assert web.follow(task, Last_Event_ID="4").status == 204


def test_streams_and_waits_at_their_cap_leave_polls_alone_and_the_dead_give_their_places_back(start):
    web = start()
    task = submit(web.client.account)
    open_ones = web.crowd(task, STREAMS)
    assert {stream.status for stream in open_ones} == {200}

    refused = web.follow(task)
    wait = web.client.call("GET", path_of(task), prefer="wait=30")
    with ThreadPoolExecutor(8) as pool:
        polls = list(pool.map(lambda _: web.poll(task), range(100)))

    assert (refused.status, refused.answer.headers["Retry-After"], wait.status) == (503, "5", 503)
    assert {status for status, _ in polls} == {200}
    assert max(took for _, took in polls) < 2

    for stream in open_ones[: STREAMS // 2]:
        stream.hang_up()
    left = time.monotonic()
    again = until(lambda: (stream := web.follow(task)).status == 200 and stream)
    assert time.monotonic() - left < 4 * BEAT

    lifecycle.cancel(task.pk, by="test")
    assert again.rest()[-1].type == "task.canceled"
    assert {stream.rest()[-1].type for stream in open_ones[STREAMS // 2 :]} == {"task.canceled"}


def test_a_server_that_stops_ends_its_streams_and_waits_cleanly(start):
    web = start(WEB_WORKERS="2")
    task = submit(web.client.account)
    streams = web.crowd(task, STREAMS)
    with ThreadPoolExecutor(2) as pool:
        waits = [pool.submit(web.client.call, "GET", path_of(task), prefer="wait=60") for _ in range(2)]
        time.sleep(0.3)
        began = time.monotonic()
        web.process.send_signal(signal.SIGTERM)
        ends = [stream.rest() for stream in streams]
        took = time.monotonic() - began
        answers = [wait.result(5) for wait in waits]

    assert web.process.wait(5) == 0
    assert took < 2
    assert all(stream.over and stream.hints for stream in streams)
    assert [rows(end) for end in ends] == [[(1, "task.queued")]] * STREAMS
    assert [(answer.status, answer.body["status"]) for answer in answers] == [(200, "queued")] * 2


def test_a_key_has_its_places_over_two_processes(start):
    web = start(WEB_WORKERS="2")
    task = submit(web.client.account)

    tried = [web.follow(task).status for _ in range(12)]

    assert sorted(tried) == [200] * 2 + [503] * 10


def test_a_revoked_key_hears_no_more(start):
    web = start()
    task = submit(web.client.account)
    stream = web.follow(task)
    stream.next("task.progress")

    web.client.account.api_keys.update(revoked_at=now())
    claim(task)
    began = time.monotonic()

    assert [event.type for event in stream.rest()] == []
    assert time.monotonic() - began < 3
    assert web.follow(task).status == 401


def begin(web, said):
    """A connection on which no more is said than this."""
    connection = socket.create_connection(("127.0.0.1", web.port), timeout=5)
    connection.sendall(said)
    return connection


def post(path, secret="", announced=b"Content-Length: 100"):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\n".encode()
    return head + b"Content-Type: application/json\r\n" + announced + b"\r\n\r\n"


def test_bodies_that_do_not_come_keep_neither_connections_nor_the_threads_of_others(start):
    web = start(WEB_WORKERS="1", WEB_BODIES="6")
    task = submit(web.client.account)
    other = Client(web.port, web.client.account)
    kinds = [post("/v1/tasks", web.client.secret), post("/admin/login/")]
    kinds += [post("/v1/tasks", announced=b"Transfer-Encoding: chunked") + b"1\r\n{\r\n"]

    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(begin(web, kind)) for kind in kinds * 80]
        told = until(lambda: [web.poll(task) for _ in range(10)])
        refused = until(lambda: len(said := select.select(slow, [], [], 0)[0]) == len(slow) - 6 and said)
        refusals = Counter(connection.recv(12)[-3:] for connection in refused)
        full = other.call("POST", "/v1/tasks", {})
        polls = [web.poll(task) for _ in range(20)]
    empty = until(lambda: (answer := other.call("POST", "/v1/tasks", {})).status != 503 and answer)

    assert {status for status, _ in told + polls} == {200}
    assert max(took for _, took in told + polls) < 2
    assert refusals == {b"503": 154, b"401": 80}
    assert (full.status, full.headers["Retry-After"], empty.status) == (503, "5", 422)


def test_connections_that_say_nothing_keep_nobody_out(start):
    web, many = start(), 1100
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * many)), hard))

    with contextlib.ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(begin(web, b""))
        answer = web.client.call("GET", "/v1/tasks")

    assert answer.status == 200


def test_a_body_that_breaks_off_does_nothing_and_http_2_is_not_spoken(start):
    web = start()
    task = submit(web.client.account)
    broken = (
        post(f"{path_of(task)}/cancel", web.client.secret, b"Transfer-Encoding: chunked") + b"ZZ\r\n{}\r\n0\r\n\r\n"
    )

    with begin(web, broken) as connection, begin(web, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)) as modern:
        told, preface = connection.recv(12), modern.recv(12)

    assert (told, preface) in {(b"HTTP/1.1 400", b""), (b"HTTP/1.1 400", b"HTTP/1.1 400")}
    assert web.client.call("GET", path_of(task)).body["status"] == "queued"
