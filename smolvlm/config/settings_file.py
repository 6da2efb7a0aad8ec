"""Run files and mixtures told apart, and from files of rows, which are often given in their place.

Only the first bytes of a file of rows are read: they may hold gigabytes. The message says what the
file is and shows the file that is needed, ready to copy.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolvlm.config.row_files import FORMAT_WORDS, row_file
from smolvlm.config.yaml_text import dump_yaml, read_yaml
from smolvlm.errors import ConfigError

_HEAD_BYTES = 1 << 16
_LINES = FORMAT_WORDS["jsonl"]
_MAGIC = ((0, b"PAR1", FORMAT_WORDS["parquet"]), (257, b"ustar", FORMAT_WORDS["tar"]))
"""Position, the bytes there, and the kind of file that begins so."""
_SOURCE_KEYS = frozenset({"json_path", "path", "hub"})
_ROW_KEYS = frozenset(
    {
        "conversations",
        "messages",
        "question",
        "answer",
        "texts",
        "prompt",
        "chosen",
        "image",
        "images",
    }
)
_EXAMPLE_MODEL = "HuggingFaceTB/SmolVLM-256M-Instruct"


def read_run_file(path: Path) -> Any:
    """Return the value that a run file holds; None when it is empty.

    Raises:
        ConfigError: as `read_yaml`; or it is a file of rows, or a mixture.
    """
    refuse_rows(path, wanted="a run file")
    content = read_yaml(path)
    if is_mixture(content):
        what = "this is a mixture, not a run file"
        raise ConfigError(what, where=str(path), fix=_run_file_with(path.name))
    return content


def refuse_rows(path: Path, *, wanted: str, base_dir: Path | None = None) -> None:
    """Raise ConfigError if a file holds rows.

    Args:
        path: the file.
        wanted: what is needed in its place.
        base_dir: folder that the paths of sources start from there; the file's own by default.
    """
    row_format = rows_format(path)
    if row_format is None:
        return
    name = path.name if base_dir is None else os.path.relpath(path, base_dir)
    source = [{"json_path": name}]
    fix = (
        f"write it as a source, in a mixture's file or in place of its "
        f"name:\n{_indented(dump_yaml({'mixture': source}))}"
        if wanted == "a mixture"
        else _run_file_with(source)
    )
    raise ConfigError(
        f"this is a file of rows ({row_format}), not {wanted}", where=str(path), fix=fix
    )


def rows_format(path: Path) -> str | None:
    """Return what kind of file of rows this is, in words; None if it is none, or cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return None
    named = row_file(path)
    # A plain `.json` file may be a settings file: its beginning decides.
    if named is not None and (named.format != "json" or named.compression is not None):
        return FORMAT_WORDS[named.format]
    for position, magic, row_format in _MAGIC:
        if head[position:].startswith(magic):
            return row_format
    text = head.decode("utf-8-sig", errors="ignore").lstrip()
    if text.startswith("{") and _is_json_lines(text):
        return _LINES
    return "a JSON list" if _is_json_list_of_rows(text, is_cut=len(head) == _HEAD_BYTES) else None


def is_mixture(content: object) -> bool:
    """Say whether a YAML value has the shape of a mixture: sources, or groups of sources."""
    if isinstance(content, Mapping):
        groups = [members for members in content.values() if isinstance(members, list | dict)]
        return bool(groups) and all(
            isinstance(group, list) and is_mixture(group) for group in groups
        )
    return isinstance(content, list) and bool(content) and all(map(_is_source, content))


def _is_source(entry: object) -> bool:
    if not isinstance(entry, Mapping):
        return False
    return bool(_SOURCE_KEYS & entry.keys()) and not _ROW_KEYS & entry.keys()


def _is_json_lines(text: str) -> bool:
    """Say whether two lines, or one and the beginning of another, are JSON objects of their own."""
    first, _, rest = text.partition("\n")
    try:
        return isinstance(json.loads(first), dict) and rest.lstrip().startswith("{")
    except ValueError:
        return False


def _is_json_list_of_rows(text: str, *, is_cut: bool) -> bool:
    """Say whether a JSON list begins with an object that is no source of a mixture."""
    if not re.match(r'\[\s*\{\s*"', text):
        return False
    try:
        first, _ = json.JSONDecoder().raw_decode(text[1:].lstrip())
    except ValueError:
        return is_cut
    return not _is_source(first)


def _run_file_with(mixture: object) -> str:
    """Return a hint that shows the smallest run file with this mixture."""
    run_file = {
        "model": {"path": _EXAMPLE_MODEL},
        "data": {"mixture": mixture},
        "train": {"output_dir": "runs/first"},
    }
    return (
        f"write a run file beside it, such as this one, and name "
        f"that:\n{_indented(dump_yaml(run_file))}"
    )


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
