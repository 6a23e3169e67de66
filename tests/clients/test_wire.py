"""What comes over the wire in a shape that no client of ours would send, to every operation of a running service."""

import contextlib
import re
import socket

import pytest

from tasks.api.operations import OPERATIONS

pytestmark = [pytest.mark.clients, pytest.mark.timeout(200)]

JSON = ["Content-Type: application/json"]
WIRES = {
    "many headers": (JSON + [f"X-Flood-{number}: 1" for number in range(2000)], b"{}"),
    "a long header": ([*JSON, "X-Flood: " + "x" * 300_000], b"{}"),
    "a header twice": ([*JSON, "Authorization: Bearer other"], b"{}"),
    "a header with a NUL": ([*JSON, "X-Request-Id: a\0b"], b"{}"),
    "a header that is no text": ([*JSON, "Idempotency-Key: \xff\xfe"], b"{}"),
    "chunks": ([*JSON, "Transfer-Encoding: chunked"], b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"),
    "chunks that are none": ([*JSON, "Transfer-Encoding: chunked"], b"zz\r\n{}\r\n"),
    "two lengths": ([*JSON, "Content-Length: 2", "Content-Length: 3"], b"{}"),
    "a length that is no number": ([*JSON, "Content-Length: two"], b"{}"),
    "less than was said": ([*JSON, "Content-Length: 9000"], b'{"input": {'),
    "more than is taken": ([*JSON, "Content-Length: 2000000"], b" " * 2_000_000),
}

# What a server may end the connection at, instead of an answer.
HUNG_UP = ("many headers", "a long header", "less than was said", "more than is taken")


def sent(service, method, path, headers, body):
    """The statuses that came back, if any did before the connection ended."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {service.key}",
        "Connection: close",
    ]
    if not any("Length" in header or "Encoding" in header for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body
    answer = b""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", service.up.port), 20) as wire:
        wire.sendall(request)
        if b"9000" in request:
            wire.shutdown(socket.SHUT_WR)  # there is no more to come
        while piece := wire.recv(65536):
            answer += piece
    return [int(status) for status in re.findall(rb"^HTTP/1.1 (\d{3})", answer, re.MULTILINE)]


@pytest.mark.parametrize("wire", WIRES)
def test_nothing_on_the_wire_is_a_fault_of_ours(service, wire):
    headers, body = WIRES[wire]

    for method, path in OPERATIONS:
        at = path.replace("{task_id}", "task_01m806yepge72v4969hdkw0ka7").replace("{", "").replace("}", "")
        statuses = sent(service, method, at, headers, body)

        assert all(status < 500 for status in statuses), (method, path, statuses)
        assert len(statuses) == 1 or (wire in HUNG_UP and not statuses), (method, path, statuses)

    assert sent(service, "GET", "/v1/tasks", [], b"") == [200]
