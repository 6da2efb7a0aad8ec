"""Whole runs in a process of their own, beside what a test does in this one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def selected_keys(request: pytest.FixtureRequest, parameter: str) -> list[Any]:
    """Return the values of a parameter that this module's selected tests have, each once: a fixture
    for all of them does no more than they need."""
    items: list[Any] = request.session.items
    return list(
        dict.fromkeys(
            item.callspec.params[parameter]
            for item in items
            if item.path == request.path and parameter in getattr(item, "fixturenames", ())
        )
    )


def problem_of(folder: Path) -> str | None:
    """Return what was wrong with the run of a folder (`engine_runs.py`); None where nothing was."""
    file = folder / "problem.txt"
    return file.read_text() if file.is_file() else None


@contextmanager
def runs_apart(script: str, *arguments: object, logs: Path, timeout_s: float) -> Iterator[None]:
    """Start a script of this folder; at the context's end wait for it and hold it to exit status 0.

    Args:
        script: its file name.
        arguments: what it is given.
        logs: folder with a folder for each run, in which its logs are; shown where it fails.
        timeout_s: for the wait. A script that hangs, or whose test failed, is killed with all that
            it started.
    """
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / script), *map(str, arguments)],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo"},
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
        _, errors = process.communicate(timeout=timeout_s)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 0, errors + "".join(
        log.read_text() for log in sorted(logs.glob("*/*.log"))
    )
