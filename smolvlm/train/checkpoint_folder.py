"""Checkpoints as folders: which are whole, what is wrong with the others, which are deleted.

The trainer writes a checkpoint's files one after another. Once all of them and their names are on
the disk, `smolvlm.json`, the marker, is written; it lists the others with sizes and digests. So a
folder without it was cut off, one that has it survives a power cut, and a file that is lost, short
or changed since is found. Folders of other names are somebody else's: they are not resumed from and
not deleted.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smolvlm.disk.atomic_files import sync_folder, write_json
from smolvlm.errors import ConfigError

MARKER = "smolvlm.json"
_NAME = re.compile(r"checkpoint-(\d+)")
_TRAINING_STATE: Mapping[str, tuple[str, ...]] = {
    "the optimizer's state": ("optimizer*", "global_step*"),
    "the schedule's state": ("scheduler.pt",),
    "the state of the random numbers": ("rng_state*.pth",),
}
"""What `save_only_model` leaves out -> patterns of its files: the trainer's own, DeepSpeed's and
FSDP's."""
_STATE = "trainer_state.json"


def step_of(folder: Path) -> int | None:
    """Return the step in a checkpoint folder's name; None for any other name."""
    match = _NAME.fullmatch(folder.name)
    return None if match is None else int(match[1])


def saved_step(checkpoint: Path) -> int:
    """Return the step after which a whole checkpoint was saved, as the trainer's state says."""
    return int(json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))["global_step"])


def mark_whole(folder: Path, content: Mapping[str, object]) -> None:
    """Sync a checkpoint's files to the disk, then write the marker that says it is complete.

    The marker lists whatever files are there. It takes as long as the disk needs, and a second for
    every 1.6 GB (`_digest`).

    Raises:
        OSError: a file cannot be read, or the disk is full or failed.
    """
    digests = {name: _digest(folder / name, syncs=True) for name in _sizes(folder)}
    for place in sorted({(folder / name).parent for name in digests} | {folder}, reverse=True):
        sync_folder(place)
    sync_folder(folder.absolute().parent)
    write_json(folder / MARKER, {**content, "files": _sizes(folder), "sha256": digests})


def clear(folder: Path) -> None:
    """Delete what a checkpoint folder holds, the marker first, before it is written anew.

    It may be an earlier run's, or cut off; what a killed writer left would else be marked whole.
    """
    if not folder.is_dir():
        return
    (folder / MARKER).unlink(missing_ok=True)
    sync_folder(folder)
    shutil.rmtree(folder)


def read_marker(folder: Path) -> dict[str, Any] | None:
    """Return what a checkpoint's marker holds; None where it is damaged or missing."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_marker = isinstance(content, dict) and isinstance(content.get("settings"), dict)
    return content if is_marker and "plan" in content else None


def damage_of(folder: Path) -> str | None:
    """Return why a folder is no whole checkpoint, in words that follow its name, or None."""
    if not folder.is_dir():
        return "it is a file, not a folder" if folder.exists() else "no such folder"
    if not (folder / MARKER).is_file():
        return f"not a whole checkpoint of this program: it has no {MARKER}"
    if (marker := read_marker(folder)) is None:
        return f"its {MARKER} is empty or damaged"
    listed = marker.get("files")
    if isinstance(listed, dict):
        there = _sizes(folder)
        if lost := sorted(listed.keys() - there.keys()):
            return f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} missing"
        if changed := sorted(name for name, size in listed.items() if there[name] != size):
            return f"{', '.join(changed)} changed in size since it was written"
    return None


def changed_content(folder: Path) -> str | None:
    """Return which files of a whole checkpoint are not those that were written, or None.

    Every file is read, a second for every 1.6 GB; markers of earlier versions hold no digests. In
    words that follow the folder's name.
    """
    digests = (read_marker(folder) or {}).get("sha256")
    if not isinstance(digests, dict):
        return None
    try:
        changed = [name for name, digest in digests.items() if _digest(folder / name) != digest]
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return f"{', '.join(changed)} changed since it was written" if changed else None


def missing_state(folder: Path) -> list[str]:
    """Return what a whole checkpoint lacks to be resumed from, in words."""
    lacks = [
        words
        for words, patterns in _TRAINING_STATE.items()
        if not any(any(folder.glob(pattern)) for pattern in patterns)
    ]
    return lacks if (folder / _STATE).is_file() else [*lacks, f"the trainer's state ({_STATE})"]


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest step first."""
    return [folder for folder in own_checkpoints(output_dir) if damage_of(folder) is None]


def own_checkpoints(output_dir: Path) -> list[Path]:
    """Return the folders that are named as a run names its checkpoints, lowest step first."""
    steps = {path: step_of(path) for path in output_dir.glob("checkpoint-*") if path.is_dir()}
    numbered = {path: step for path, step in steps.items() if step is not None}
    return sorted(numbered, key=numbered.__getitem__)


def passed_over(output_dir: Path, *, resume: Path | None = None) -> list[str]:
    """Return a line about each thing that looks like a checkpoint and that no run resumes from.

    Args:
        output_dir: the run's.
        resume: what it resumes from: whole ones of later steps were read, and are damaged.
    """
    first = -1 if resume is None else step_of(resume)
    lines: list[str] = []
    for path in sorted(output_dir.glob("checkpoint-*")):
        step = step_of(path)
        if path.is_dir() and step is None:
            why: str | None = "its name is not checkpoint-<step>"
        else:
            why = damage_of(path)
        if why is None and (lacks := missing_state(path)):
            why = f"it lacks {', '.join(lacks)}"
        if why is None and step is not None and first is not None and step > first:
            why = changed_content(path)
        if why is not None:
            lines.append(f"note: {path} is passed over: {why}")
    return lines


def delete_oldest(output_dir: Path, *, limit: int | None, best: str | None) -> None:
    """Delete a run's oldest checkpoints, the last written and the best one never.

    Args:
        output_dir: the run's. Folders whose names are not checkpoint-<step> stay.
        limit: how many are kept; None and 0 keep all.
        best: the folder of the best one, if there is one.
    """
    if limit is None or limit <= 0:
        return
    folders = own_checkpoints(output_dir)
    by_age = sorted(folders, key=lambda folder: folder.stat().st_mtime)  # stable: else by step
    kept = {by_age[-1], *([Path(best)] if best is not None else [])}
    deletable = [folder for folder in by_age if folder not in kept]
    for folder in deletable[: max(0, len(by_age) - max(limit, len(kept)))]:
        (folder / MARKER).unlink(missing_ok=True)  # half deleted it is not whole
        shutil.rmtree(folder, ignore_errors=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of every file below a folder but the marker, by its relative name."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path.stat().st_size
        for name, path in sorted(files.items())
        if path.is_file() and name != MARKER and not name.startswith(f".{MARKER}")
    }


def _digest(path: Path, *, syncs: bool = False) -> str:
    """Return a file's SHA-256 as `sha256sum` prints it: 1.6 GB/s on a Xeon of 2023.

    Processors with instructions for it do it faster than blake2b (0.9 GB/s there).

    Args:
        syncs: return once the content is on the disk.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if syncs:
            os.fsync(file.fileno())
    return digest


@contextmanager
def numbers_alone(checkpoint: Path | None) -> Iterator[None]:
    """Say in a sentence that torch's loader refused a checkpoint's state.

    It reads numbers and nothing that would run; the state of the optimizer, of the schedule and of
    the random numbers has nothing else.

    Raises:
        ConfigError: it did.
    """
    try:
        yield
    except Exception as error:  # told by its name: nothing here imports pickle, whose class it is
        if type(error).__name__ != "UnpicklingError" or checkpoint is None:
            raise
        raise ConfigError(
            "the training state holds something else than numbers, which is not loaded",
            where=str(checkpoint),
            fix="resume from another checkpoint; do not use this one unless you know who wrote it",
        ) from error
