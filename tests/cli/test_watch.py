"""`smolvlm watch`: a real server in a process of its own."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from smolvlm.report.progress import Progress, write_progress

LIMIT_S = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the server sent."""

    status: int
    headers: dict[str, str]
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """A running `smolvlm watch`."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def ask(self, path: str = "/", *, method: str = "GET", host: str | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        connection.putrequest(method, path, skip_host=True)
        if host != "":
            connection.putheader("Host", host or f"127.0.0.1:{self.port}")
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return Answer(status=answer.status, headers=dict(answer.getheaders()), text=text)

    def stop(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        self.process.wait(LIMIT_S)
        return self.log.read_text()


@contextmanager
def watching(run_dir: Path, log: Path) -> Iterator[Server]:
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "smolvlm", "watch", str(run_dir), "--port", "0"],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stderr=stream,
            text=True,
        )
    try:
        end = time.monotonic() + LIMIT_S
        while not (found := re.search(r" at http://127\.0\.0\.1:(\d+)/ ", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        yield Server(process=process, port=int(found[1]), log=log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def write_lines(run_dir: Path, count: int) -> None:
    lines = [{"step": step, "loss": 2.0 / step} for step in range(1, count + 1)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run_dir / "metrics.jsonl").write_text(text)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("watched") / "first <run>"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def server(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with watching(run_dir, tmp_path_factory.mktemp("log") / "messages.txt") as running:
        yield running


@pytest.fixture
def written(run_dir: Path) -> Iterator[Path]:
    """The run with three log lines and nothing else."""
    write_lines(run_dir, 3)
    yield run_dir
    for path in run_dir.iterdir():
        path.unlink()


def test_before_the_first_log_line_it_waits(server: Server, run_dir: Path) -> None:
    answer = server.ask()
    assert answer.status == 200
    assert "Nothing is logged yet." in answer.text
    assert "<h1>first &lt;run&gt;</h1>" in answer.text
    assert 'http-equiv="refresh"' in answer.text
    assert list(run_dir.iterdir()) == []


def test_the_page_is_made_of_what_the_run_wrote_and_nothing_is_written(
    server: Server, written: Path
) -> None:
    assert "Trained for 3 steps" in server.ask().text
    write_lines(written, 4)
    assert "Trained for 4 steps" in server.ask().text
    assert [path.name for path in written.iterdir()] == ["metrics.jsonl"]


def test_a_page_that_is_newer_than_the_log_is_served_as_it_is(
    server: Server, written: Path
) -> None:
    page = written / "report.html"
    page.write_text("as it is")
    later = (written / "metrics.jsonl").stat().st_mtime + 10
    os.utime(page, (later, later))
    assert server.ask().text == "as it is"
    os.utime(written / "metrics.jsonl", (later + 1, later + 1))
    assert "Trained for 3 steps" in server.ask().text


def test_while_it_trains_the_page_says_how_far_it_is(server: Server, written: Path) -> None:
    write_progress(written, Progress(step=3, num_steps=70))
    text = server.ask().text
    assert "Step 3 of 70, still training." in text
    assert 'http-equiv="refresh" content="15"' in text


def test_the_page_of_a_run_that_was_killed_no_longer_says_that_it_trains(
    server: Server, written: Path
) -> None:
    (written / "progress.json").write_text(
        '{"step": 3, "num_steps": 70, "at": "2026-01-31T12:00:00+00:00"}'
    )
    page = written / "report.html"
    page.write_text("Step 3 of 70, still training.")
    later = (written / "metrics.jsonl").stat().st_mtime + 10
    os.utime(page, (later, later))
    assert "still training" not in server.ask().text


def test_damage_is_said_once_and_the_server_stays(server: Server, written: Path) -> None:
    (written / "metrics.jsonl").write_text('{"step": "x"}\n{"step": 1}\n')
    for _ in range(2):
        assert server.ask().status == 200
    assert server.log.read_text().count("metrics.jsonl:1") == 1


def test_head_has_the_headers_alone(server: Server, written: Path) -> None:
    assert written.is_dir()
    head, whole = server.ask(method="HEAD"), server.ask()
    assert head.text == ""
    assert head.headers["Content-Length"] == str(len(whole.text.encode()))
    assert whole.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert whole.headers["Cache-Control"] == "no-store"
    assert whole.headers["Server"] == "smolvlm"


@pytest.mark.parametrize(
    "path", ["/metrics.jsonl", "/../", "/%2e%2e/", "/?x", "/report.html", "/favicon.ico"]
)
def test_there_is_one_page_and_no_file(server: Server, path: str) -> None:
    assert server.ask(path).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    assert server.ask(method=method).status == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "", "[::1]"])
def test_a_name_that_was_made_to_mean_this_machine_is_refused(server: Server, host: str) -> None:
    answer = server.ask(host=host)
    assert answer.status == 421
    assert "still" not in answer.text


def test_localhost_is_this_machine(server: Server) -> None:
    assert server.ask(host=f"LocalHost:{server.port}").status == 200


def test_it_listens_on_loopback_alone(server: Server) -> None:
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None)}
    for address in addresses - {"127.0.0.1", "::1"}:
        if str(address).startswith("127."):
            continue
        with pytest.raises(OSError):
            socket.create_connection((str(address), server.port), timeout=2)
    if Path("/proc/net/tcp").is_file():
        assert listening_addresses(server.port) == {"0100007F"}


def listening_addresses(port: int) -> set[str]:
    """Return the local addresses, as the kernel writes them, on which a port listens."""
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        path = Path(table)
        lines = path.read_text().splitlines()[1:] if path.is_file() else []
        for fields in map(str.split, lines):
            address, _, hexadecimal = fields[1].partition(":")
            if int(hexadecimal, 16) == port and fields[3] == "0A":
                found.add(address)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_as_every_command_does(tmp_path: Path, number: signal.Signals) -> None:
    with watching(tmp_path, tmp_path / "messages.txt") as running:
        text = running.stop(number)
    assert running.process.returncode == 128 + number
    assert "Traceback" not in text
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert text.rstrip().endswith(f"stopped by {name}")


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "first"
    with watching(run_dir, tmp_path / "messages.txt") as running:
        assert "Nothing is logged yet." in running.ask().text
        assert not run_dir.exists()
        run_dir.mkdir(parents=True)
        write_lines(run_dir, 3)
        assert "Trained for 3 steps" in running.ask().text
        text = running.stop(signal.SIGINT)
    assert "no such folder yet: the page waits" in text
    assert running.process.returncode == 128 + signal.SIGINT


def test_a_file_and_a_port_that_is_taken(smolvlm_command: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = smolvlm_command("watch", tmp_path / "file")
    assert outcome.status == 1
    assert "a file, not a folder" in outcome.messages
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = smolvlm_command("watch", tmp_path, "--port", port)
    assert outcome.status == 1
    assert f"--port {port}" in outcome.messages
    assert "0 takes a free one" in outcome.messages
