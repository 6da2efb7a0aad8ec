"""Which requests the page's server answers, and what its pages may load.

Wraps the server's application (ASGI). A page elsewhere whose name was made to mean this machine is
refused by the host that it asks for; uploads are refused once their folder is full; and browsers
are told to load nothing from anywhere else, whatever a model says.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Any, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """The application behind these rules."""

    def __init__(
        self, app: Application, *, uploads: Path, max_kept_bytes: int, only_loopback: bool
    ) -> None:
        """
        Args:
            app: answers what is let through.
            uploads: the folder that holds what was uploaded.
            max_kept_bytes: how much it may hold before further uploads are refused.
            only_loopback: whether requests must ask for this machine by a name of its own.
        """
        self._app = app
        self._uploads = uploads
        self._max_kept_bytes = max_kept_bytes
        self._only_loopback = only_loopback

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the words of a refusal; None lets the request through."""
        if self._only_loopback and host_of(scope) not in LOOPBACK:
            return 421, "This page is for the machine that it runs on."
        is_upload = scope.get("method") == "POST" and scope["path"].rstrip("/").endswith("/upload")
        if is_upload and size_of(self._uploads) >= self._max_kept_bytes:
            return 507, "The page keeps no more files until it is started again."
        return None


async def _refuse(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def host_of(scope: Scope) -> str:
    """Return the host that a request asks for, without its port; empty where it names none."""
    values = [value for name, value in scope["headers"] if name == b"host"]
    host = values[0].decode("latin-1") if len(values) == 1 else ""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:  # it is gone since
            continue
    return total
