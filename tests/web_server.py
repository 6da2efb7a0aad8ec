"""A small web server on this machine alone, for tests of what rows name by address."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]
"""Writes the answer to one request."""


class WebServer:
    """What is served, and what was asked for."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.answers: dict[str, Answer] = {}
        """By path."""
        self.asked: list[str] = []
        """Paths in the order in which they were asked for."""
        self.closes = threading.Event()
        """Set at the end, for answers that wait."""

    def serve(self, path: str, data: bytes, *, kind: str = "application/octet-stream") -> str:
        """Serve bytes, and return their address."""

        def answer(request: BaseHTTPRequestHandler) -> None:
            send(request, data, kind=kind)

        return self.serve_by(path, answer)

    def serve_by(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return self.address + path


def send(
    request: BaseHTTPRequestHandler,
    data: bytes = b"",
    *,
    status: int = 200,
    kind: str = "application/octet-stream",
    num_announced: int | None = None,
    **headers: str,
) -> None:
    """Send an answer; `num_announced` may be another length than it has."""
    request.send_response(status)
    for name, value in {"Content-Type": kind, **headers}.items():
        request.send_header(name, value)
    request.send_header(
        "Content-Length", str(len(data) if num_announced is None else num_announced)
    )
    request.end_headers()
    request.wfile.write(data)


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Serve on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path
            served.asked.append(path)
            answer = served.answers.get(path.partition("?")[0])
            if answer is None:
                send(self, b"nothing here", status=404)
            else:
                answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exception(), ConnectionError):  # who has heard enough hangs up
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", 0), Handler) as server:
        served = WebServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            served.closes.set()
            server.shutdown()
            thread.join()
