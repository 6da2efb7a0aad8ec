"""A hub of data sets on this machine alone: what huggingface_hub asks of the real one for its
files."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_TREE = "/api/datasets/owner/name/tree/"
_FILES = "/datasets/owner/name/resolve/"
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Hub:
    """One data set, `owner/name`, and what was asked of it."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def listed(self, folder: str, *, is_recursive: bool) -> list[dict[str, object]]:
        """Return what lies in a folder, as the API lists it."""
        start = f"{folder}/" if folder else ""
        inside = [name for name in self.files if name.startswith(start)]
        found: dict[str, dict[str, object]] = {}
        for name in inside:
            first, _, rest = name[len(start) :].partition("/")
            if rest:
                path = start + first
                found[path] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
            if not rest or is_recursive:
                found[name] = self.details(name)
        return list(found.values())

    def details(self, name: str) -> dict[str, object]:
        data = self.files[name]
        return {"type": "file", "oid": sha1(data).hexdigest(), "size": len(data), "path": name}


class _Handler(BaseHTTPRequestHandler):
    """Answers from the `Hub` that a subclass has."""

    hub: Hub

    def do_GET(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path.startswith(_TREE):
            _, _, folder = path.removeprefix(_TREE).partition("/")
            is_recursive = parse_qs(url.query).get("recursive", ["false"])[0].lower() == "true"
            self._listing(self.hub.listed(folder, is_recursive=is_recursive))
        elif path.startswith("/api/datasets/owner/name"):
            self._json({"id": "owner/name", "sha": "1" * 40, "private": False, "siblings": []})
        elif path.startswith(_FILES):
            _, _, name = path.removeprefix(_FILES).partition("/")
            self._file(name)
        else:
            self._missing("RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.hub.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        paths = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        if self.path.startswith("/api/datasets/owner/name/paths-info/"):
            self._json([self.hub.details(name) for name in paths if name in self.hub.files])
        else:
            self._missing("RepoNotFound")

    def _listing(self, listed: list[dict[str, object]]) -> None:
        if listed:
            self._json(listed)
        else:
            self._missing("EntryNotFound")

    def _file(self, name: str) -> None:
        if name not in self.hub.files:
            self._missing("EntryNotFound")
            return
        data = self.hub.files[name]
        tag = {"ETag": f'"{sha1(data).hexdigest()}"', "X_Repo_Commit": "1" * 40}
        if match := _RANGE.fullmatch(self.headers.get("Range", "")):
            first, last = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
            span = f"bytes {first}-{last}/{len(data)}"
            self._send(data[first : last + 1], status=206, Content_Range=span, **tag)
        else:
            self._send(data, **tag)

    def _json(self, content: object) -> None:
        self._send(json.dumps(content).encode(), kind="application/json")

    def _missing(self, code: str) -> None:
        self._send(b"{}", status=404, kind="application/json", X_Error_Code=code)

    def _send(
        self,
        data: bytes,
        *,
        status: int = 200,
        kind: str = "application/octet-stream",
        **headers: str,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve on a free port until the block ends."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
