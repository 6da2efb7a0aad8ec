"""A hub that takes models, on this machine alone: what huggingface_hub asks of the real one to
create a repository and to send files in one commit."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

REPO = "owner/tuned"


@dataclass
class UploadHub:
    """One repository, and what was sent to it."""

    address: str = ""
    token: str = "hf_right"
    files: dict[str, bytes] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: UploadHub

    def do_GET(self) -> None:
        self._json({"id": REPO, "sha": "1" * 40, "private": False, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._json({"error": "Invalid credentials"}, status=401)
        elif self.path == "/api/repos/create":
            self.hub.created.append(json.loads(body))
            self._json({"url": f"{self.hub.address}/{REPO}"})
        elif self.path == "/api/validate-yaml":
            yaml.safe_load(json.loads(body)["content"].split("---")[1])
            self._json({"errors": [], "warnings": []})
        elif self.path == f"/api/models/{REPO}/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            self._json({"files": [_regular(name) for name in names]})
        elif self.path == f"/api/models/{REPO}/commit/main":
            self._commit(body)
        else:
            self._json({"error": f"not asked of this hub: {self.path}"}, status=404)

    def _commit(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.hub.messages.append(line["value"]["summary"])
            else:
                assert line["value"]["encoding"] == "base64"
                content = base64.b64decode(line["value"]["content"])
                self.hub.files[line["value"]["path"]] = content
        page = f"{self.hub.address}/{REPO}/commit/{'1' * 40}"
        self._json({"success": True, "commitOid": "1" * 40, "commitUrl": page, "hookOutput": ""})

    def _json(self, content: object, *, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _regular(name: str) -> dict[str, Any]:
    return {"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None}


@contextmanager
def upload_hub() -> Iterator[UploadHub]:
    """Serve a hub on the loopback interface for as long as the block runs."""
    hub = UploadHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
