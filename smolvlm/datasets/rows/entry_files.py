"""The files that an entry of a mixture names, and their format: on this machine, or fetched.

In: what the entry's key says. Out: `EntryFiles`; what is wrong is told to `problem`, and a stand-in
returned.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from smolvlm.config.problems import shown_path, shown_text, shown_value
from smolvlm.config.row_files import READABLE, RowFormat, row_file
from smolvlm.datasets.rows.file_patterns import files_of
from smolvlm.datasets.rows.remote_rows import fetched_rows, folder_of, is_remote
from smolvlm.errors import SampleError
from smolvlm.home import memory_dir, memory_rows_file

SAVED_MARKS = ("dataset_dict.json", "state.json", "dataset_info.json")
_DIGEST = re.compile("[0-9a-f]{32}")
_BRACES = "write {000..127} or {a,b}, braces in pairs"


class TellProblem(Protocol):
    """Told what is wrong with a key of the entry."""

    def __call__(self, name: str, what: str, *, fix: str | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class EntryFiles:
    """What an entry names."""

    files: tuple[Path, ...]
    """At least one; a stand-in where there is none."""
    format: RowFormat
    url: str | None = None
    """The address of the folder that the first was fetched from; None of this machine's."""


def entry_files(name: str, written: str, *, base_dir: Path, problem: TellProblem) -> EntryFiles:
    """Return the files that the key `name` gives, and their format."""
    if name == "hub":
        return EntryFiles((base_dir / "hub",), "hub")
    if name == "memory":
        return EntryFiles((_memory(written, problem),), "jsonl")
    if is_remote(written):
        return _remote(name, written, problem)
    return _local(name, written, (base_dir / os.path.expanduser(written)).absolute(), problem)


def _local(name: str, written: str, path: Path, problem: TellProblem) -> EntryFiles:
    nothing = EntryFiles((path,), "json")
    if os.path.isdir(path):  # False, too, for a name that no file can have
        if any((path / mark).is_file() for mark in SAVED_MARKS):
            return EntryFiles((path,), "saved")
        what = "a folder that `save_to_disk` did not write"
        problem(name, what, fix=f"name its files: `{written}/*.parquet`")
        return nothing
    try:
        files = files_of(str(path))
    except ValueError as error:
        problem(name, f"no pattern of files: {shown_text(str(error))}", fix=_BRACES)
        return nothing
    formats = {_format_of(file) for file in files or (path,)}
    if formats == {None}:
        ending = shown_value("".join(path.suffixes[-2:]))
        is_packed = row_file(path) is not None
        what = f"the ending {ending} is no known format of rows"
        fix = "decompress it: its rows are read in any order" if is_packed else READABLE
        problem(name, what, fix=fix)
    elif not files:
        fix = "check the path; relative ones start from the mixture's folder"
        problem(name, f"no such file: {shown_path(path)}", fix=fix)
    elif len(formats) > 1:
        _several_formats(name, problem)
    return EntryFiles(files or (path,), _format_of((files or (path,))[0]) or "json")


def _remote(name: str, written: str, problem: TellProblem) -> EntryFiles:
    nothing = EntryFiles((Path(written),), "json")
    try:
        files = fetched_rows(written)
    except ValueError as error:
        problem(name, f"no pattern of files: {shown_text(str(error))}", fix=_BRACES)
        return nothing
    except SampleError as error:
        problem(name, error.what, fix=error.fix)
        return nothing
    formats = {_format_of(file.path) for file in files}
    if not files:
        problem(name, "no file there has such a name", fix="check the pattern")
        return nothing
    if None in formats:
        problem(name, "its ending is no known format of rows", fix=READABLE)
    elif len(formats) > 1:
        _several_formats(name, problem)
    paths = tuple(file.path for file in files)
    return EntryFiles(paths, _format_of(paths[0]) or "json", folder_of(files[0].url))


def _several_formats(name: str, problem: TellProblem) -> None:
    what = "names files of several formats"
    problem(name, what, fix="make each format a source of its own")


def _format_of(file: Path) -> RowFormat | None:
    named = row_file(file)
    return named.format if named is not None and named.can_be_read else None


def _memory(digest: str, problem: TellProblem) -> Path:
    """Return the file of rows that a program handed over."""
    path = memory_rows_file(digest) if _DIGEST.fullmatch(digest) else None
    if path is None or not path.is_file():
        fix = (
            "hand the same rows over again, as in docs/python.md; or name their file as `json_path`"
        )
        problem("memory", "these rows from a program's memory are not kept here", fix=fix)
    return path or memory_dir()
