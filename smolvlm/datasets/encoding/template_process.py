"""The process in which templates of strangers are rendered, one for each process that asks.

In: a request (`template_engine.py`). Out: what the template writes, or a `ConfigError` where it
fails or is ended for its time or memory. A process of its own and no thread: a computation in C
can be ended in no other way. It is started at the first request and again after each end, and goes
with the one that started it.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError

FIX = "mend the template, or delete it: without one the SmolVLM family's own is used"
MAX_TEMPLATE_CPU_S = 10
"""Of one rendering; the templates of published checkpoints take milliseconds."""
_PROGRAM = Path(__file__).with_name("template_engine.py")
_CLOSE_S = 5.0


class _Renderer:
    """A running process that renders."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the one that asks
            )
        except OSError as error:
            what = f"its chat template cannot be run: no process can be started ({error})"
            raise ConfigError(what, fix="free processes or memory, and start again") from error

    def answer(self, request: bytes) -> dict[str, str]:
        """Return the process's answer, or how it ended."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(request + b"\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = b""
        if line.endswith(b"\n"):
            return json.loads(line)
        status = self._process.wait()
        self.close()
        return {"ended": _how(status)}

    def close(self) -> None:
        """End the process, if it still runs."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:
                continue
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_lock = threading.Lock()
_renderers: list[_Renderer] = []
"""The last one is in use; those before it are of the process that this one was forked from."""


def write_in_process(
    source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]
) -> str:
    """Return what a template writes, within limits of time and memory.

    Args:
        source: the template.
        messages: role and content of each.
        variables: what else it may name.

    Raises:
        ConfigError: it fails, or takes more than it may.
    """
    request = {
        "source": source,
        "messages": list(messages),
        "variables": dict(variables),
        "cpu_s": MAX_TEMPLATE_CPU_S,
    }
    data = json.dumps(request).encode()
    with _lock:
        if not _renderers or _renderers[-1].owner != os.getpid():
            _renderers.append(_Renderer())
        renderer = _renderers[-1]
        try:
            answer = renderer.answer(data)
        except BaseException:  # Ctrl-C: an answer that comes later is no other request's
            _renderers.remove(renderer)
            renderer.close()
            raise
        if "ended" in answer:
            _renderers.remove(renderer)
    if "ended" in answer:
        raise ConfigError(f"its chat template {answer['ended']}", fix=FIX)
    if "error" in answer:
        raise ConfigError(f"its chat template fails: {answer['error']}", fix=FIX)
    return answer["text"]


def _how(status: int) -> str:
    if status == -getattr(signal, "SIGXCPU", 0):
        return f"takes more than {MAX_TEMPLATE_CPU_S} s to render one conversation"
    return f"ends the process that renders it (status {status})"


def _renew_lock() -> None:
    """Let a forked process begin anew: another thread may have held the lock."""
    global _lock
    _lock = threading.Lock()


def _close_all() -> None:
    for renderer in _renderers:
        if renderer.owner == os.getpid():
            renderer.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
atexit.register(_close_all)
