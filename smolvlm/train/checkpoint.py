"""Checkpoints that are whole, and runs that go on only where they are the same run.

The trainer writes a checkpoint's files one after another; `smolvlm.json` is written last, so a folder without it was
cut off and is passed over. It holds the settings that shape the training, and a digest of the plan: a run resumes
only where both are the same, and says which setting differs otherwise.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from smolvlm.datasets.plan import Plan
from smolvlm.errors import ConfigError

MARKER = "smolvlm.json"
WITHOUT_EFFECT = (
    "train.output_dir",
    "train.log_sample_ids",
    "train.resume_from_checkpoint",
    "data.vision_cache",
    "data.vision_cache_dir",
    "data.base_dir",
    "data.prefetch_mb",
    "data.eval_mixture",
)
"""Settings that may differ between the two halves of a run."""
_ARGUMENTS_WITHOUT_EFFECT = ("logging_", "save_", "eval_", "dataloader_", "report_to", "disable_tqdm", "run_name")
WITHOUT_EFFECT_PREFIXES = ("eval.", *(f"train.arguments.{name}" for name in _ARGUMENTS_WITHOUT_EFFECT))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """What makes two runs the same run."""

    settings: Mapping[str, Any]
    """Dotted key -> value, JSON types only."""
    plan: str
    """Digest of which rows meet in which step."""


def run_identity(settings: Mapping[str, Any], plan: Plan) -> RunIdentity:
    """Describe a run by its nested settings and its plan."""
    flat = dict(_flatten(settings, ""))
    kept = {
        key: value
        for key, value in flat.items()
        if key not in WITHOUT_EFFECT and not key.startswith(WITHOUT_EFFECT_PREFIXES)
    }
    return RunIdentity(settings=json.loads(json.dumps(kept, default=str)), plan=plan.packs.digest())


def _flatten(value: Any, prefix: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        pairs = [_flatten(inner, f"{prefix}.{name}" if prefix else str(name)) for name, inner in value.items()]
        return [pair for inner in pairs for pair in inner]
    return [(prefix, value)]


def mark_whole(folder: Path, identity: RunIdentity, *, step: int) -> None:
    """Write the marker that says a checkpoint is complete; the last thing written into it."""
    content = {"step": step, "settings": dict(identity.settings), "plan": identity.plan}
    temporary = folder / f".{MARKER}"
    with temporary.open("w") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(folder / MARKER)


def unmark(folder: Path) -> None:
    """Take the marker away, before a checkpoint is written over an earlier one of the same step."""
    (folder / MARKER).unlink(missing_ok=True)


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest step first."""
    found = [path.parent for path in output_dir.glob(f"checkpoint-*/{MARKER}")]
    return sorted(found, key=lambda folder: int(folder.name.rsplit("-", 1)[1]))


def find_checkpoint(choice: Path | Literal["auto", False], *, output_dir: Path, identity: RunIdentity) -> Path | None:
    """Return the checkpoint to go on from, None for a fresh start.

    Raises:
        ConfigError: the checkpoint chosen is not whole, or belongs to a run with other settings or data.
    """
    if choice is False:
        return None
    if choice == "auto":
        candidates = whole_checkpoints(output_dir)
        if not candidates:
            return None
        folder = candidates[-1]
    else:
        folder = choice
    if not (folder / MARKER).is_file():
        raise ConfigError(
            "not a whole checkpoint of this program" if folder.is_dir() else "no such folder",
            where=f"train.resume_from_checkpoint={folder}",
            fix="choose a checkpoint-<step> folder that has a smolvlm.json, `auto`, or `false`",
        )
    _check_same_run(json.loads((folder / MARKER).read_text()), identity, folder=folder)
    return folder


def _check_same_run(saved: dict[str, Any], identity: RunIdentity, *, folder: Path) -> None:
    ours, theirs = identity.settings, saved["settings"]
    differing = [
        f"- {key}: {theirs.get(key, '(not set)')} there, {ours.get(key, '(not set)')} here"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key, "(not set)") != theirs.get(key, "(not set)")
    ]
    if not differing and saved["plan"] != identity.plan:
        differing = ["- the rows: files or the order of their rows changed since"]
    if differing:
        raise ConfigError(
            "the checkpoint belongs to another run:\n" + "\n".join(differing),
            where=str(folder),
            fix="restore the settings, choose another train.output_dir, or set train.resume_from_checkpoint=false",
        )
