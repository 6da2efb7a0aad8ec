"""The page of a run over HTTP, to this machine alone: what `smolvlm watch` serves.

In: a run's folder. Out: a server on 127.0.0.1 that answers GET and HEAD of `/`, and nothing else.
A request that names another host is refused: a page elsewhere, whose name was made to mean this
machine, reads nothing. Where the run's files are newer than `report.html`, the page is made of them
for the answer; the folder is never written to, so it may be another machine's or another user's.
"""

import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError, SmolVLMError
from smolvlm.pages.templating import page_text
from smolvlm.report.progress import FILE_NAME, read_progress
from smolvlm.report.report import REFRESH_S, run_report

ADDRESS = "127.0.0.1"
SOURCES = ("metrics.jsonl", "predictions.jsonl", "run.json", FILE_NAME)
"""What a page is made of that changes; of them `metrics.jsonl` does most often."""
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RunPage:
    """The newest page of a run; safe to ask from several threads."""

    def __init__(self, run_dir: Path, *, say: Callable[[str], None]) -> None:
        """
        Args:
            run_dir: the run's folder.
            say: told once what keeps the page from being made.
        """
        self._run_dir = run_dir
        self._say = say
        self._lock = threading.Lock()
        self._made_of: object = None
        self._page = ""
        self._has_failed = False

    def text(self) -> str:
        """Return the page: the file, unless it is older than what the run wrote since."""
        with self._lock:
            try:
                return self._newest()
            except (OSError, SmolVLMError) as error:
                if not self._has_failed:
                    self._say(f"note: {error}")
                self._has_failed = True
                return self._page or self._waiting("Its files cannot be read now.")

    def _newest(self) -> str:
        report = self._run_dir / "report.html"
        changed = [_changed_ns(self._run_dir / name) for name in SOURCES]
        if not any(changed[:2]):
            return self._waiting("Nothing is logged yet.")
        is_training = read_progress(self._run_dir) is not None
        was_killed = changed[-1] > 0 and not is_training  # its page still says that it trains
        made_of = (*changed, _changed_ns(report), is_training)
        if made_of != self._made_of:
            is_current = _changed_ns(report) >= max(changed) and not was_killed
            self._page = (
                report.read_text(encoding="utf-8") if is_current else run_report(self._run_dir)
            )
            self._made_of = made_of
        return self._page

    def _waiting(self, sentence: str) -> str:
        title = self._run_dir.resolve().name
        return page_text("waiting.html", title=title, sentence=sentence, refresh_s=REFRESH_S)


class RunServer(ThreadingHTTPServer):
    """Serves one run's page on a port of this machine."""

    daemon_threads = True

    def __init__(self, page: RunPage, *, port: int) -> None:
        """
        Args:
            page: what is served.
            port: 0 takes a free one.

        Raises:
            ConfigError: the port cannot be had.
        """
        try:
            super().__init__((ADDRESS, port), partial(_Handler, page))
        except OSError as error:
            raise ConfigError(
                f"the port cannot be had ({error.strerror})",
                where=f"--port {port}",
                fix="give another; 0 takes a free one",
            ) from None

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a reader that hung up or sent nonsense."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 30

    def __init__(self, page: RunPage, *args: Any, **kwargs: Any) -> None:
        self._page = page
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def _answer(self, *, has_body: bool) -> None:
        if not self._is_meant():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "served as 127.0.0.1 alone")
            return
        if self.path != "/":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = self._page.text().encode()
        self.send_response(HTTPStatus.OK)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if has_body:
            self.wfile.write(body)

    def _is_meant(self) -> bool:
        """Say whether the request names this machine: one `Host`, an address that no foreign name
        server can give out."""
        hosts, port = self.headers.get_all("Host", []), self.connection.getsockname()[1]
        return len(hosts) == 1 and hosts[0].lower() in (f"{ADDRESS}:{port}", f"localhost:{port}")

    def version_string(self) -> str:
        """Return no versions of programs."""
        return "smolvlm"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests; a page that refreshes itself makes four a minute."""


def _changed_ns(path: Path) -> int:
    """Return when a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
