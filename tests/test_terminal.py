"""What rows, files and servers say is shown in a terminal, never obeyed."""

import ast
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from smolvlm.errors import ConfigError, SampleError
from smolvlm.terminal import console, json_text, say, visible

PACKAGE = Path(__file__).parents[1] / "smolvlm"
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\r\x08\x00\x7f\u200e"


def obeyed(text: str) -> list[str]:
    """Return the characters of a text that a terminal would obey."""
    bidi = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)), "\u200e", "\u200f"}
    return [
        character
        for character in text
        if (ord(character) < 32 and character != "\n")
        or 127 <= ord(character) < 160
        or character in bidi
    ]


def test_control_characters_are_written_out() -> None:
    assert visible("a\x1b[31mb\t\r\0") == "a\\x1b[31mb\\t\\r\\x00"
    assert visible("right-to-left \u202e override") == "right-to-left \\u202e override"
    assert visible("half \ud800 a sign") == "half \\ud800 a sign"


@pytest.mark.parametrize("text", ["two\nlines", "naïve 日本語", "👩‍🚀", "\u3000", ""])
def test_ordinary_text_stays(text: str) -> None:
    assert visible(text) == text


@given(st.text())
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    assert obeyed(visible(text)) == []


@given(st.recursive(st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_json_reads_back_as_it_was(value: Any) -> None:
    text = json_text(value)
    assert obeyed(text) == []
    assert json.loads(text) == value
    text.encode("utf-8", "surrogatepass")


def test_every_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL, 3)
    for error in (ConfigError(EVIL, where=EVIL, fix=EVIL), SampleError(EVIL, where=EVIL)):
        say(f"error: {error}")
        assert obeyed(str(error)) == []
    assert obeyed(capsys.readouterr().err) == []
    for is_terminal in (False, True):
        file = io.StringIO()
        out = console(file=file, force_terminal=is_terminal, width=60, color_system=None)
        table = Table(EVIL, title=EVIL)
        table.add_row(EVIL)
        out.print(table)
        out.print(EVIL, style="bold", markup=False)
        assert obeyed(file.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")) == []
        assert "\\x1b" in file.getvalue()


def test_nothing_else_writes_to_a_terminal() -> None:
    """`print`, rich's own console and the streams themselves would let everything through."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "terminal.py" or path.parent != PACKAGE
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func)
        in ("print", "Console", "rich.print", "sys.stderr.write", "sys.stdout.write", "typer.echo")
    ]
    assert found == []


def test_a_check_of_hostile_rows_steers_nothing(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "answer": "x", f"key{EVIL}": 1},
        {"question": "q", "answer": "x", "image": f"{EVIL}.png"},
        {"messages": [{"role": EVIL, "content": EVIL}]},
        {"question": f"<image_1> {EVIL}", "answer": EVIL, "image": ["a.png"]},
    ]
    name = "rows\x1b[2J.jsonl"
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "m.yaml").write_text(json.dumps([{"path": name}]))
    (tmp_path / "bad.yaml").write_text('{"data": {"mix\\u001b[2Jture": 3}}')
    for command in (
        ["check", "m.yaml"],
        ["check", "m.yaml", "--json"],
        ["prepare", "m.yaml"],
        ["prepare", "m.yaml", "--json"],
        ["check", "nowhere\x1b[2J.yaml"],
        ["train", "bad.yaml"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "smolvlm", *command],
            cwd=tmp_path,
            capture_output=True,
            check=False,
        )
        assert done.returncode in (1, 2), done.stderr
        said = (done.stdout + done.stderr).decode()
        assert obeyed(said) == [], command
        assert "\\x1b" in said or "\\u001b" in said, command
