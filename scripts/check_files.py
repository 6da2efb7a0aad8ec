"""`python scripts/check_files.py [FILE ...]`: what no formatter looks at, in files that are
committed.

In: files; without any, all that git tracks. Out: a line a problem, and exit status 1 if there is
one: a file above 1 MB, marks of a merge that was not finished, spaces at the end of a line, no
newline at the end of the file or several. Only files that are text are read; the standard library
is enough.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

MAX_BYTES = 1_000_000
_MERGE_MARK = re.compile(rb"^(?:<{7} |>{7} |\|{7} |={7}$)", re.MULTILINE)
_LINE_END = re.compile(rb"[ \t\r]+$", re.MULTILINE)
_UNDERLINED = frozenset({".md", ".rst"})
"""Endings of files in which a row of seven equals signs may underline a heading."""
_DRAWN = frozenset({".svg"})
"""Endings of files that programs write, whose lines nobody tidies."""


def main(arguments: Sequence[str]) -> int:
    """Print the problems of the files and return the exit status."""
    paths = [Path(name) for name in arguments] or tracked_files(Path("."))
    found = [f"{path}: {problem}" for path in paths for problem in problems(path)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


def tracked_files(folder: Path) -> list[Path]:
    """Return the files of a git checkout, those left out that are deleted or links."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True, check=True
    )
    paths = [folder / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def problems(path: Path) -> Iterator[str]:
    """Yield what is wrong with one file."""
    if (size := path.stat().st_size) > MAX_BYTES:
        yield f"{size:,} bytes, more than {MAX_BYTES:,}: keep it elsewhere, or make it smaller"
        return
    data = path.read_bytes()
    if not data or b"\0" in data:
        return
    for mark in _MERGE_MARK.finditer(data):
        if not (mark.group().startswith(b"=") and path.suffix in _UNDERLINED):
            yield f"line {_line(data, mark.start())}: a mark of an unfinished merge"
    if path.suffix not in _DRAWN and (end := _LINE_END.search(data)) is not None:
        yield f"line {_line(data, end.start())}: spaces at its end"
    if not data.endswith(b"\n"):
        yield "no newline at the end"
    elif data.endswith(b"\n\n"):
        yield "empty lines at the end"


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
