"""A real receiver on loopback: answers as told, and keeps what it was sent."""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext
from typing import Self


@dataclass(frozen=True)
class Reply:
    """An answer: after `delay` seconds; `endless` sends its body again and again."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    delay: float = 0
    endless: bool = False


@dataclass(frozen=True)
class Received:
    path: str
    headers: Message
    body: bytes
    at: float


class Receiver:
    """`with Receiver(answers=[500, 500, 200]) as receiver`: the last answer is given from then on.

    `requests` holds what came, `connections` counts who connected, `most_at_once` how many were answered at a time;
    `on_request` is called before the answer.
    """

    def __init__(
        self,
        answers: Iterable[int | Reply] = (200,),
        *,
        tls: SSLContext | None = None,
        on_request: Callable[[Received], None] | None = None,
    ) -> None:
        self.answers = [Reply(answer) if isinstance(answer, int) else answer for answer in answers]
        self.requests: list[Received] = []
        self.connections = 0
        self.most_at_once = self._at_once = 0
        self.on_request = on_request
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(self)
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}/hook"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Read a request, keep it, answer it."""
        length = int(handler.headers.get("content-length", 0))
        received = Received(handler.path, handler.headers, handler.rfile.read(length), time.time())
        with self._lock:
            reply = self.answers[min(len(self.requests), len(self.answers) - 1)]
            self.requests.append(received)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        if self.on_request:
            self.on_request(received)
        over = self._closing.wait(reply.delay) if reply.delay else False
        with self._lock:
            self._at_once -= 1
        if not over:
            self._send(handler, reply)

    def _send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if reply.endless:
            handler.close_connection = True
        else:
            handler.send_header("content-length", str(len(reply.body)))
        handler.end_headers()
        handler.wfile.write(reply.body)
        while reply.endless and not self._closing.is_set():
            handler.wfile.write(reply.body)


class RawServer:
    """`with RawServer(answer) as url`: sends these bytes to whoever connects first, then hangs, or hangs up."""

    def __init__(self, answer: bytes, *, hang: bool = True) -> None:
        self.answer, self.hang = answer, hang
        self._over = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/"

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        connected, _ = self._listening.accept()
        with connected, suppress(OSError):
            connected.recv(65536)
            connected.sendall(self.answer)
            self._over.wait(5 if self.hang else 0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        self.server.receiver.take(self)

    def do_GET(self) -> None:
        self.server.receiver.take(self)

    def log_message(self, *_: object) -> None:
        """Tests read `requests` instead."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request, client_address) -> None:
        self.receiver.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request, client_address) -> None:
        """A client that goes away is what some tests are about."""
