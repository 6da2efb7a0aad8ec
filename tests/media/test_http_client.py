"""`smolvlm.media.http_client`: one deadline for all of an answer, and public addresses alone."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import SampleError
from smolvlm.media import http_client
from smolvlm.media.downloads import DownloadLimits, fetch_missing, kept_file
from smolvlm.media.http_client import NotPublicError, Patience, open_url
from tests.web_server import WebServer, send, web_server

LIMITS = DownloadLimits(
    kind="picture", max_bytes=1 << 20, timeout_s=5.0, total_s=0.5, pauses_s=(0.0, 0.0)
)
DRIP_S = 0.05


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache folder, and no proxy between here and the server."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "cache"))


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as served:
        yield served


@contextmanager
def raw_server(
    talk: Callable[[socket.socket, threading.Event], None], *, reads: bool = True
) -> Iterator[str]:
    """Serve connections by a function that writes whatever it likes, the request read before it
    where `reads`."""
    is_over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not is_over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                try:
                    if reads:
                        connection.recv(65536)
                    talk(connection, is_over)
                except OSError:
                    pass  # who has heard enough hangs up

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
        finally:
            is_over.set()
            thread.join()


def drips(data: bytes, *, before: bytes = b"", again: bool = False) -> Callable[..., None]:
    """Return what writes `before` at once and then a byte at a time, for ever where `again`."""

    def talk(connection: socket.socket, is_over: threading.Event) -> None:
        connection.sendall(before)
        while True:
            for number in range(len(data)):
                if is_over.wait(DRIP_S):
                    return
                connection.sendall(data[number : number + 1])
            if not again:
                return

    return talk


def floods(data: bytes, before: bytes = b"") -> Callable[..., None]:
    def talk(connection: socket.socket, is_over: threading.Event) -> None:
        connection.sendall(before)
        while not is_over.is_set():
            connection.sendall(data)

    return talk


OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SLOW = {
    "status line": drips(OK + b"\r\n" * 100),
    "headers": drips(b"X-A: b\r\n", before=OK, again=True),
    "continue": floods(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow continue": drips(b"HTTP/1.1 100 Continue\r\n\r\n", again=True),
    "body": drips(b"x" * 1000, before=OK + b"Content-Length: 1000\r\n\r\n"),
    "chunk sizes": drips(b"1\r\nx\r\n", before=CHUNKED, again=True),
    "chunk extension": drips(b"x" * 1000, before=CHUNKED + b"1;"),
    "trailers": floods(b"X-A: b\r\n", before=CHUNKED + b"1\r\nx\r\n0\r\n"),
    "slow trailers": drips(b"X-A: b\r\n", before=CHUNKED + b"1\r\nx\r\n0\r\n", again=True),
    "redirects": drips(
        b"Location: /a.png\r\nContent-Length: 0\r\n\r\n", before=b"HTTP/1.1 302 Found\r\n"
    ),
}


@pytest.mark.parametrize("way", SLOW)
def test_the_deadline_holds_however_an_answer_drips(way: str) -> None:
    with raw_server(SLOW[way]) as url:
        start = time.monotonic()
        with pytest.raises(SampleError, match=r"not done after 0\.5 s|no proper answer") as caught:
            fetch_missing(url, kept_file(url), LIMITS, allow_private=True)
        assert time.monotonic() - start < 10 * LIMITS.total_s, caught.value
    assert not kept_file(url).exists()


def test_a_flood_is_cut_at_its_size() -> None:
    limits = replace(LIMITS, total_s=30.0)
    with (
        raw_server(floods(b"x" * 65536, before=OK + b"\r\n")) as url,
        pytest.raises(SampleError, match="larger than the limit of 1,048,576 bytes"),
    ):
        fetch_missing(url, kept_file(url), limits, allow_private=True)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for localhost that this process trusts, with its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("makes its certificate with openssl, which is not installed")
    key, file = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    command = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject)
    subprocess.run(
        [program, *command, "-keyout", str(key), "-out", str(file)], check=True, capture_output=True
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    file.write_text(file.read_text() + key.read_text())
    return file


def test_tls_names_the_host_and_keeps_the_deadline(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    whole = OK + b"Content-Length: 4\r\n\r\ndata"

    def secured(talk: Callable[..., None]) -> Callable[..., None]:
        def within(connection: socket.socket, is_over: threading.Event) -> None:
            with context.wrap_socket(connection, server_side=True) as safe:
                safe.recv(65536)
                talk(safe, is_over)

        return within

    def says_it(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(whole)

    for talk, result in ((says_it, b"data"), (drips(whole * 9), None)):
        with raw_server(secured(talk), reads=False) as url:
            by_name = url.replace("http://127.0.0.1", "https://localhost")
            file = kept_file(by_name)
            if result is not None:
                fetch_missing(by_name, file, replace(LIMITS, total_s=20.0), allow_private=True)
                assert file.read_bytes() == result
                by_number = url.replace("http", "https")
                with pytest.raises(SampleError, match=r"certificate"):
                    fetch_missing(by_number, kept_file(by_number), LIMITS, allow_private=True)
                continue
            start = time.monotonic()
            with pytest.raises(SampleError, match=r"not done after 0\.5 s"):
                fetch_missing(by_name, file, LIMITS, allow_private=True)
            assert time.monotonic() - start < 10 * LIMITS.total_s


def asked(url: str) -> Any:
    patience = Patience(deadline=time.monotonic() + 5, silence_s=5.0)
    return open_url(url, patience, allow_private=False)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "0177.1", "2130706433", "127.1", "0.0.0.0", "[::1]"),
        *("[::ffff:127.0.0.1]", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254"),
        *("[fe80::1]", "[fc00::1]", "100.64.0.1", "224.0.0.1", "[64:ff9b::7f00:1]"),
        *("[2002:7f00:1::]", "255.255.255.255"),
    ],
)
def test_what_is_not_public_is_not_asked(host: str, server: WebServer) -> None:
    port = server.address.rpartition(":")[2]
    server.serve("/a.png", b"secret")
    url = f"http://{host}:{port}/a.png"
    with pytest.raises(SampleError, match=r"no public address; `data\.allow_private_urls: true`"):
        fetch_missing(url, kept_file(url), LIMITS)
    assert server.asked == []


def test_a_name_is_resolved_once_and_that_address_asked(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that is public when it is looked at, and private when it is connected to."""
    real, answers = socket.getaddrinfo, ["93.184.215.14", "127.0.0.1"]
    connected: list[Any] = []

    def rebinding(host: str, port: int, **named: Any) -> Any:
        return real(answers.pop(0), port, **named)

    def connect(self: socket.socket, place: Any) -> None:
        connected.append(place[0])
        raise ConnectionRefusedError("not here")

    class Unreachable(socket.socket):
        pass

    Unreachable.connect = connect  # type: ignore[method-assign]
    monkeypatch.setattr(http_client.socket, "getaddrinfo", rebinding)
    monkeypatch.setattr(http_client.socket, "socket", Unreachable)
    with pytest.raises(OSError, match="not here"):
        asked("http://rebinding.example/a.png")
    assert connected == ["93.184.215.14"]
    assert answers == ["127.0.0.1"]


@pytest.mark.parametrize("target", ["http://127.0.0.1:{}/b.png", "http://0177.1:{}/b.png"])
def test_a_redirect_does_not_lead_inside(
    target: str, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = server.address.rpartition(":")[2]
    server.serve("/b.png", b"secret")
    server.serve_by(
        "/a.png", lambda request: send(request, status=302, Location=target.format(port))
    )
    judged: list[str] = []

    def is_public(text: str) -> bool:
        judged.append(text)
        return len(judged) == 1  # the first server is taken for a public one

    monkeypatch.setattr(http_client, "_is_public", is_public)
    with pytest.raises(NotPublicError):
        asked(f"{server.address}/a.png")
    assert server.asked == ["/a.png"]
    assert len(judged) == 2


def test_a_proxy_is_trusted_and_what_it_is_asked_for_looked_at(
    server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def through(request: BaseHTTPRequestHandler) -> None:
        send(request, b"by proxy")

    server.serve_by("http://example.org/a.png", through)
    monkeypatch.setenv("http_proxy", server.address)
    with asked("http://example.org/a.png") as response:
        assert response.read() == b"by proxy"
    for host in ("127.0.0.1", "0177.1", "localhost", "printer", "db.internal", "169.254.169.254"):
        with pytest.raises(NotPublicError):
            asked(f"http://{host}/a.png")
    assert server.asked == ["http://example.org/a.png"]
