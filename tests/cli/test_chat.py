"""`smolvlm chat`: one question on the command line, lines piped in, and a person at a terminal."""

import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from smolvlm import api
from tests.processes import LIMIT_S

NEW_TOKENS = ("--max-new-tokens", "6")
LONG = ("--max-new-tokens", "4000")


def test_a_question_is_answered_on_standard_output_alone(
    out: Path, photos: dict[str, Path], smolvlm_command: Any
) -> None:
    outcome = smolvlm_command(
        "chat", out, photos["coffee"], "--question", "What is shown?", *NEW_TOKENS
    )
    assert outcome.status == 0, outcome.messages
    model = api.load(out, device="cpu")
    answer = model.ask("What is shown?", photos["coffee"], max_new_tokens=6)
    assert outcome.output == f"{answer}\n"
    assert "/s)" in outcome.messages


def test_the_base_stands_beside(out: Path, settings: dict[str, Any], smolvlm_command: Any) -> None:
    question = ("--question", "What is 3 plus 0?")
    outcome = smolvlm_command("chat", out, *question, "--base", *NEW_TOKENS)
    assert outcome.status == 0, outcome.messages
    base = smolvlm_command("chat", settings["model"]["path"], *question, *NEW_TOKENS)
    tuned = smolvlm_command("chat", out, *question, *NEW_TOKENS)
    assert outcome.output == f"tuned: {tuned.output}base: {base.output}"


def test_lines_are_questions_and_commands(
    out: Path,
    photos: dict[str, Path],
    smolvlm_command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        "What is 1 plus 1?",
        "",
        f"/open {tmp_path / 'none.png'}",
        f"/open '{photos['coffee']}",
        "/close",
        "/new",
        f"/open {photos['coffee']}",
        "What is shown?",
    ]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    outcome = smolvlm_command("chat", out, *NEW_TOKENS)
    assert outcome.status == 0, outcome.messages
    model = api.load(out, device="cpu")
    answers = [
        model.ask("What is 1 plus 1?", max_new_tokens=6),
        model.ask("What is shown?", photos["coffee"], max_new_tokens=6),
    ]
    assert outcome.output.splitlines() == answers
    assert "none.png: " in outcome.messages
    assert "error: No closing quotation" in outcome.messages
    assert "error: /close is no command; /help lists them" in outcome.messages


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.png"], "nowhere.png: no such file"),
        (["--base", "--question", "a"], "no run.yaml here or above"),
    ],
)
def test_what_cannot_be_done_is_said(
    settings: dict[str, Any], smolvlm_command: Any, arguments: list[str], words: str
) -> None:
    outcome = smolvlm_command("chat", settings["model"]["path"], *arguments)
    assert outcome.status == 1
    assert words in outcome.messages


class Terminal:
    """A chat in a terminal of its own."""

    def __init__(self, checkpoint: Path) -> None:
        self._side, inner = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smolvlm", "chat", str(checkpoint), "--device", "cpu", *LONG],
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)
        os.set_blocking(self._side, False)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._side, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until something stands there; forget what stood before it."""
        end = time.monotonic() + 4 * LIMIT_S
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            try:
                self.shown += os.read(self._side, 4096).decode(errors="replace")
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:  # the other side is closed
                assert text in self.shown, self.shown
        self.shown = self.shown.partition(text)[2]


def test_ctrl_c_cuts_an_answer_and_ctrl_d_ends(settings: dict[str, Any]) -> None:
    terminal = Terminal(Path(settings["model"]["path"]))
    try:
        terminal.wait_for("Ctrl-D ends")
        terminal.wait_for("> ")
        terminal.type("Say much.\n")
        terminal.wait_for("Say much.")
        time.sleep(0.5)  # of an answer of 4,000 tokens
        os.kill(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("(cut short; the question is not part of the conversation)")
        terminal.wait_for("> ")
        terminal.type("/help\n")
        terminal.wait_for("begin a new conversation")
        terminal.type("\x04")
        assert terminal.process.wait(LIMIT_S) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
