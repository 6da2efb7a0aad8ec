"""docs/troubleshooting.md: each quoted message is what making the mistake prints, or stands in the
code."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import call_smolvlm
from tests.docs.conftest import ROOT
from tests.markdown_blocks import fenced

PAGE = ROOT / "docs" / "troubleshooting.md"
HOME = "/home/you"
_TABLE = "| message holds |"


def mistakes() -> Iterator[tuple[str, str, str | None]]:
    """Yield command, message and the row that stands before it, if any, of each of the page's
    `console` blocks."""
    row = None
    for language, text in fenced(PAGE.read_text(encoding="utf-8")):
        if language in ("jsonl", "text"):
            row = text
        elif language == "console":
            command, _, message = text.partition("\n")
            yield command.removeprefix("$ "), message, row
            row = None


MISTAKES = list(mistakes())


@pytest.fixture(scope="module")
def mistaken_folder(reader_folder: Path) -> Path:
    """The quickstart's folder with its run done, and the files of the mistakes."""
    pictures = reader_folder / "my" / "pictures"
    (pictures / "broken.jpg").write_bytes((pictures / "coffee.jpg").read_bytes()[:900])
    (pictures / "page.jpg").write_text("<html><body>Not found</body></html>")
    run_file = (reader_folder / "my" / "run.yaml").read_text()
    (reader_folder / "my" / "tabs.yaml").write_text(run_file.replace("  path", "\tpath", 1))
    assert call_smolvlm("train", "my/run.yaml").status == 0
    return reader_folder


def message_of(command: str, row: str | None, folder: Path) -> tuple[int, str]:
    """Return exit status and message of a command, with the page's row as the only one."""
    rows = folder / "my" / "train.jsonl"
    whole = rows.read_text()
    try:
        if row is not None:
            rows.write_text(row + "\n")
        outcome = call_smolvlm(*shlex.split(command)[1:])
    finally:
        rows.write_text(whole)
    return outcome.status, _in_one_line(outcome.messages.replace(str(folder), HOME))


def _in_one_line(text: str) -> str:
    """Return a text without its line breaks: a table's depend on the terminal."""
    return " ".join(text.split())


@pytest.mark.parametrize(("command", "message", "row"), MISTAKES)
def test_the_mistake_prints_the_message(
    command: str, message: str, row: str | None, mistaken_folder: Path
) -> None:
    status, found = message_of(command, row, mistaken_folder)
    assert status in (1, 2)
    assert message, f"{command} prints\n{found}"
    pattern = ".*?".join(map(re.escape, _in_one_line(message).split("...")))
    assert re.fullmatch(pattern, found, re.DOTALL), found


def texts_of_the_code() -> Iterator[str]:
    """Yield every text that the package writes, with `...` for what is put into it."""
    for path in (ROOT / "smolvlm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else "..." for part in node.values
                )
                yield "".join(map(str, parts))


def test_messages_of_the_table_stand_in_the_code() -> None:
    _, _, table = PAGE.read_text(encoding="utf-8").partition(_TABLE)
    rows = table.partition("\n\n")[0].splitlines()[2:]
    quoted = [re.match(r"\| `(.+?)` \|", row) for row in rows]
    assert len(quoted) >= 5
    texts = list(texts_of_the_code())
    for match in quoted:
        assert match, rows
        assert any(match[1] in text for text in texts), match[1]


def test_there_are_mistakes_of_every_kind() -> None:
    assert len(MISTAKES) >= 20
    assert sum(row is not None for _, _, row in MISTAKES) >= 8
