"""`smolvlm.media.downloads`: fetched once, whole or not at all, and every failure said with its
address."""

import errno
import multiprocessing
import os
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.error import URLError
from urllib.request import OpenerDirector

import pytest

from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.downloads import (
    CLIP_LIMITS,
    PICTURE_LIMITS,
    DownloadLimits,
    fetch_missing,
    kept_file,
)
from smolvlm.terminal import visible
from tests.web_server import WebServer, send, web_server

QUICK = DownloadLimits(kind="picture", max_bytes=1 << 20, timeout_s=5.0, pauses_s=(0.0, 0.01))
DATA = os.urandom(70_000)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no proxy between here and the server."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server() -> Iterator[WebServer]:
    with web_server() as served:
        yield served


def fetch(url: str, limits: DownloadLimits = QUICK) -> bytes:
    fetch_missing(url, kept_file(url), limits, allow_private=True)
    return kept_file(url).read_bytes()


def failure(url: str, limits: DownloadLimits = QUICK) -> str:
    """Return what is said of an address; nothing of it is kept."""
    with pytest.raises(SampleError) as caught:
        fetch(url, limits)
    text = str(caught.value)
    assert text.startswith(visible(f"picture {url} cannot be downloaded: "))
    assert "\n  fix: check the address and the network, or give the path of a file" in text
    file = kept_file(url)
    assert not file.exists()
    assert not list(file.parent.glob(".download-*"))
    return caught.value.what.partition("cannot be downloaded: ")[2]


def test_fetched_once_and_kept_by_its_address(server: WebServer, cache: Path) -> None:
    url, other = server.serve("/a.png", DATA), server.serve("/b.png", b"other")
    assert fetch(url) == fetch(url) == DATA
    assert fetch(other) == b"other"
    assert server.asked == ["/a.png", "/b.png"]
    assert kept_file(url) != kept_file(other)
    kept = [path for path in cache.rglob("*") if path.is_file()]
    assert sorted(kept) == sorted([kept_file(url), kept_file(other)])
    assert cache / "media" in kept[0].parents


def test_several_processes_that_want_the_same_get_it_whole(server: WebServer, cache: Path) -> None:
    url = server.serve("/a.png", DATA)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(fetch, [url] * 6, chunksize=1) == [DATA] * 6
    assert 1 <= len(server.asked) <= 2
    assert [path for path in cache.rglob("*") if path.is_file()] == [kept_file(url)]


def test_the_file_may_be_read_by_whoever_may_read_others(server: WebServer, tmp_path: Path) -> None:
    url = server.serve("/a.png", DATA)
    fetch(url)
    (tmp_path / "plain").touch()
    assert kept_file(url).stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (500, 3), (503, 3), (429, 3)])
def test_a_refusal_is_said_and_what_may_pass_is_tried_again(
    server: WebServer, status: int, tries: int
) -> None:
    url = server.serve_by("/a.png", lambda request: send(request, status=status))
    text = failure(url)
    assert re.fullmatch(rf"status {status} [\w ]+{', 3 times' if tries > 1 else ''}", text)
    assert len(server.asked) == tries


def test_an_error_that_passes_is_no_error(server: WebServer) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if len(server.asked) == 1:
            send(request, DATA, num_announced=len(DATA) + 5)  # longer than what comes later
        else:
            send(request, DATA[:10], status=503 if len(server.asked) == 2 else 200)

    assert fetch(server.serve_by("/a.png", answer)) == DATA[:10]
    assert len(server.asked) == 3


def test_too_large_is_refused_by_what_is_announced_and_by_what_comes(server: WebServer) -> None:
    limits = replace(QUICK, max_bytes=len(DATA) - 1)
    announced = server.serve("/announced", DATA)
    assert failure(announced, limits) == f"it is larger than the limit of {len(DATA) - 1:,} bytes"

    def unannounced(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(DATA)

    url = server.serve_by("/unannounced", unannounced)
    assert "larger than the limit" in failure(url, limits)
    assert server.asked == ["/announced", "/unannounced"]
    assert fetch(url, QUICK) == DATA
    assert (PICTURE_LIMITS.max_bytes, CLIP_LIMITS.max_bytes) == (64 << 20, 1 << 30)


def test_half_a_body_is_not_kept(server: WebServer) -> None:
    url = server.serve_by(
        "/a.png", lambda request: send(request, DATA, num_announced=2 * len(DATA))
    )
    assert failure(url) == "70,000 of 140,000 bytes came, 3 times"

    def chunked(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"10\r\n0123456789abcdef\r\n")

    assert "the answer broke off" in failure(server.serve_by("/chunked", chunked))


@pytest.mark.parametrize(
    "target", ["file:///etc/hostname", "ftp://127.0.0.1/a", "data:,x", "gopher://127.0.0.1/"]
)
def test_no_other_protocol_is_spoken_wherever_it_redirects_to(
    server: WebServer, target: str
) -> None:
    url = server.serve_by("/a.png", lambda request: send(request, status=302, Location=target))
    assert "a redirect to another protocol" in failure(url)
    assert len(server.asked) == 1
    assert re.search(r"unknown url type|not an address", failure(target))


def test_a_redirect_is_followed_and_a_circle_left(server: WebServer) -> None:
    server.serve("/b.png", DATA)
    url = server.serve_by("/a.png", lambda request: send(request, status=301, Location="/b.png"))
    assert fetch(url) == DATA
    circle = server.serve_by("/c.png", lambda request: send(request, status=301, Location="/c.png"))
    assert "redirect" in failure(circle)


def test_a_silent_server_is_given_up(server: WebServer) -> None:
    limits = replace(QUICK, timeout_s=0.1)

    def waits(request: BaseHTTPRequestHandler) -> None:
        server.closes.wait(20)

    url = server.serve_by("/a.png", waits)
    start = time.monotonic()
    assert failure(url, limits) == "no answer within 0.1 s, 3 times"

    def stops(request: BaseHTTPRequestHandler) -> None:
        send(request, DATA[:100], num_announced=200)
        server.closes.wait(20)

    assert failure(server.serve_by("/b.png", stops), limits) == "the answer stopped coming, 3 times"
    assert time.monotonic() - start < 5


def test_a_server_that_drips_is_given_up(server: WebServer) -> None:
    def drips(request: BaseHTTPRequestHandler) -> None:
        send(request, num_announced=1000)
        while not server.closes.wait(0.02):
            request.wfile.write(b".")

    url = server.serve_by("/a.png", drips)
    assert failure(url, replace(QUICK, total_s=0.2)) == "not done after 0.2 s"
    assert len(server.asked) == 1


def test_a_web_page_or_nothing_is_no_picture(server: WebServer) -> None:
    url = server.serve("/a.png", b"<html>Please log in.</html>", kind="text/html; charset=utf-8")
    assert failure(url) == "the answer is a web page"
    assert failure(server.serve("/b.png", b"")) == "the answer is empty"


def test_no_connection_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert re.fullmatch(r"no connection \(.*refused.*\)", failure(f"http://127.0.0.1:{port}/a.png"))

    def unknown(*_arguments: object, **_named: object) -> None:
        raise URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))

    monkeypatch.setattr(OpenerDirector, "open", unknown)
    assert "Name or service not known" in failure("https://nowhere.invalid/a.png")


@pytest.mark.parametrize(
    "url", ["http://[", "http://a:b/c", "http://", "http://\ud800/a", "http:///a", "http://ü..x/"]
)
def test_what_is_no_address_is_said(url: str) -> None:
    assert failure(url)


def test_signs_outside_ascii_are_written_as_the_protocol_wants_them(server: WebServer) -> None:
    server.serve("/f%C3%BC%20r%2F.png", DATA)
    assert fetch(f"{server.address}/fü r%2F.png?größe=1&b=a%20b#part") == DATA
    assert server.asked == ["/f%C3%BC%20r%2F.png?gr%C3%B6%C3%9Fe=1&b=a%20b"]


def test_a_cache_folder_that_cannot_be_written_is_a_setting(
    server: WebServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.serve("/a.png", DATA)

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(
            ConfigError,
            match=r"cannot be kept: No space left on device\n  fix: make room there, or",
        ):
            fetch(url)
    cache.joinpath("media").rename(cache / "other")
    cache.joinpath("media").write_bytes(b"a file in its place")
    with pytest.raises(ConfigError, match="cannot be kept"):
        fetch(url)
