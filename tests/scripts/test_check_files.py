"""Files that are committed: too large, half merged, untidy at their ends."""

import subprocess
from pathlib import Path

import pytest

from scripts.check_files import MAX_BYTES, main, problems, tracked_files

ROOT = Path(__file__).parents[2]
BEGIN, MIDDLE, END = "<" * 7, "=" * 7, ">" * 7


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("a.py", "x = 1\n", []),
        ("a.py", "", []),
        ("a.py", "x = 1", ["no newline at the end"]),
        ("a.py", "x = 1\n\n", ["empty lines at the end"]),
        ("a.py", "x = 1 \ny = 2\t\n", ["line 1: spaces at its end"]),
        ("a.py", "x = 1\r\n", ["line 1: spaces at its end"]),
        ("a.py", f"{BEGIN} ours\n", ["line 1: a mark of an unfinished merge"]),
        ("a.py", f"x\n{MIDDLE}\ny\n", ["line 2: a mark of an unfinished merge"]),
        ("a.py", f"x\n{END} theirs\n", ["line 2: a mark of an unfinished merge"]),
        ("a.py", f"{MIDDLE}=\n# {BEGIN} x\n", []),
        ("a.md", f"Heading\n{MIDDLE}\n", []),
        ("a.svg", "<svg> \n</svg>\n", []),
        ("a.bin", "\0 \n\n", []),
    ],
)
def test_one_file(name: str, text: str, found: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert list(problems(path)) == found


def test_a_large_file_is_named_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * MAX_BYTES)
    assert list(problems(path)) == ["no newline at the end"]
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    assert list(problems(path)) == [
        "1,000,001 bytes, more than 1,000,000: keep it elsewhere, or make it smaller"
    ]


def test_the_exit_status_says_whether_there_is_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("x\n")
    bad.write_text("x")
    assert main([str(good)]) == 0
    assert capsys.readouterr().out == ""
    assert main([str(good), str(bad)]) == 1
    assert capsys.readouterr().out == f"{bad}: no newline at the end\n"


def test_this_checkout_has_none() -> None:
    try:
        paths = tracked_files(ROOT)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    assert [f"{path}: {problem}" for path in paths for problem in problems(path)] == []
