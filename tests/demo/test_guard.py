"""Requests for other hosts are refused, uploads end where their folder is full, and browsers are
told to load nothing from elsewhere."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from smolvlm.demo.guard import HEADERS, Guard, host_of, size_of


def asked(
    guard: Guard, *, host: str | None, path: str = "/", method: str = "GET", kind: str = "http"
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Return status, headers and body of what a request is answered."""
    sent = list[dict[str, Any]]()

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nobody reads the body")

    headers = [] if host is None else [(b"host", host.encode())]
    scope = {"type": kind, "method": method, "path": path, "headers": headers}
    asyncio.run(guard(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"the page"})


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    return Guard(app, uploads=tmp_path, max_kept_bytes=100, only_loopback=True)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "localhost:1", "[::1]:7860"])
def test_this_machines_names_are_answered(guard: Guard, host: str) -> None:
    status, headers, body = asked(guard, host=host)
    assert (status, body, headers[b"a"]) == (200, b"the page", b"b")
    assert headers | dict(HEADERS) == headers


@pytest.mark.parametrize("host", [None, "", "example.org", "127.0.0.1.example.org", "[::2]:7860"])
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_other_names_are_refused(guard: Guard, host: str | None, kind: str) -> None:
    status, headers, body = asked(guard, host=host, kind=kind)
    assert status == 421
    assert b"the page" not in body
    assert headers | dict(HEADERS) == headers


def test_any_name_is_answered_where_others_may_ask(tmp_path: Path) -> None:
    guard = Guard(app, uploads=tmp_path, max_kept_bytes=100, only_loopback=False)
    assert asked(guard, host="example.org")[0] == 200


def test_uploads_end_where_their_folder_is_full(guard: Guard, tmp_path: Path) -> None:
    upload: Any = {"host": "localhost", "path": "/gradio_api/upload", "method": "POST"}
    (tmp_path / "0f").mkdir()
    (tmp_path / "0f" / "a.png").write_bytes(bytes(60))
    assert size_of(tmp_path) == 60
    assert asked(guard, **upload)[0] == 200
    (tmp_path / "b.png").write_bytes(bytes(40))
    assert asked(guard, **upload)[0] == 507
    assert asked(guard, host="localhost")[0] == 200, "the page itself is still shown"


def test_the_servers_own_beginning_and_end_pass(guard: Guard) -> None:
    seen = list[str]()

    async def other(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    guard._app = other
    asyncio.run(guard({"type": "lifespan"}, None, None))  # pyright: ignore[reportArgumentType]
    assert seen == ["lifespan"]


def test_two_hosts_are_none() -> None:
    assert host_of({"headers": [(b"host", b"localhost"), (b"host", b"example.org")]}) == ""


def test_nothing_from_elsewhere_may_be_loaded() -> None:
    policy = dict(HEADERS)[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy
