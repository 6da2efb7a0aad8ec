"""Whole checkpoints, and runs that are resumed only where they are the same run.

The trainer writes a checkpoint's files one after another; `smolvlm.json` is written last, so a
folder without it was cut off and is passed over. It holds the settings that shape the training, and
a digest of the plan: a run resumes only where both are the same, and says which setting differs
otherwise.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from smolvlm.config.method import without_other_methods
from smolvlm.datasets.packing.plan import Plan
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
_ARGUMENTS_WITHOUT_EFFECT = (
    "logging_",
    "save_",
    "eval_",
    "dataloader_",
    "report_to",
    "disable_tqdm",
    "run_name",
)
WITHOUT_EFFECT_PREFIXES = (
    "eval.",
    *(f"train.arguments.{name}" for name in _ARGUMENTS_WITHOUT_EFFECT),
)
BF16 = "train.arguments.bf16"
BF16_BY_DEFAULT = "true, by default"
"""Value of that setting where the run file leaves it open and the device chose it; not set where
the device did not."""
NOT_SET = "(not set)"
_OPEN = ((None, NOT_SET), (NOT_SET, None))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """What makes two runs the same run."""

    settings: Mapping[str, object]
    """Dotted key -> value, JSON types only."""
    plan: str
    """Digest of which rows meet in which step."""


def run_identity(
    settings: Mapping[str, object], plan: Plan, *, is_bf16_default: bool = False
) -> RunIdentity:
    """Describe a run by its nested settings and its plan.

    Args:
        settings: as the run file gives them.
        plan: all steps.
        is_bf16_default: whether it trains in bfloat16 because its device can and the settings leave
            it open.
    """
    flat = dict(_flatten(settings, ""))
    if is_bf16_default:
        flat[BF16] = BF16_BY_DEFAULT
    kept = {
        key: value
        for key, value in flat.items()
        if key not in WITHOUT_EFFECT and not key.startswith(WITHOUT_EFFECT_PREFIXES)
    }
    return RunIdentity(settings=json.loads(json.dumps(kept, default=str)), plan=plan.packs.digest())


def _flatten(value: object, prefix: str) -> list[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        pairs = [
            _flatten(inner, f"{prefix}.{name}" if prefix else str(name))
            for name, inner in value.items()
        ]
        return [pair for inner in pairs for pair in inner]
    return [(prefix, value)]


def mark_whole(folder: Path, identity: RunIdentity, *, step: int) -> None:
    """Write the marker that says a checkpoint is complete; the last thing written into it."""
    write_json(
        folder / MARKER, {"step": step, "settings": dict(identity.settings), "plan": identity.plan}
    )


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file atomically: a reader finds the old content or the new."""
    temporary = path.parent / f".{path.name}"
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def unmark(folder: Path) -> None:
    """Take the marker away, before a checkpoint is written over an earlier one of the same step."""
    (folder / MARKER).unlink(missing_ok=True)


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest step first."""
    folders = [path.parent for path in output_dir.glob(f"checkpoint-*/{MARKER}")]
    return sorted(folders, key=lambda folder: int(folder.name.rsplit("-", 1)[1]))


def find_checkpoint(
    choice: Path | Literal["auto", False], *, output_dir: Path, identity: RunIdentity
) -> Path | None:
    """Return the checkpoint to resume from, None for a fresh start.

    Raises:
        ConfigError: the checkpoint chosen is not whole, or belongs to a run with other settings or
            data.
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


def _written(key: str) -> str:
    """Return a setting's name as a run file has it."""
    return key.replace("train.arguments.", "train.")


def _check_same_run(saved: Mapping[str, Any], identity: RunIdentity, *, folder: Path) -> None:
    ours, theirs = identity.settings, without_other_methods(saved["settings"])
    differing = [
        f"- {_written(key)}: {theirs.get(key, NOT_SET)} there, {ours.get(key, NOT_SET)} here"
        for key in sorted(ours.keys() | theirs.keys())
        if not _is_same(key, theirs.get(key, NOT_SET), ours.get(key, NOT_SET))
    ]
    if not differing and saved["plan"] != identity.plan:
        differing = ["- the rows: files or the order of their rows changed since"]
    if differing:
        raise ConfigError(
            "the checkpoint belongs to another run:\n" + "\n".join(differing),
            where=str(folder),
            fix="restore the settings, choose another train.output_dir, or set "
            "train.resume_from_checkpoint=false",
        )


def _is_same(key: str, theirs: object, ours: object) -> bool:
    """Say whether a setting lets a run go on.

    Of our own settings a null is one that is not set, and earlier versions wrote those of other
    `quantization.bits` too. Bfloat16 may be chosen by the device: a run resumes where it was left
    open both times, whatever the two devices chose, and where it is written now as it was chosen
    then.
    """
    if key != BF16:
        are_both_open = not key.startswith("train.arguments.") and (theirs, ours) in _OPEN
        return theirs == ours or are_both_open
    is_open = {theirs, ours} <= {NOT_SET, BF16_BY_DEFAULT}
    return is_open or (theirs in (True, BF16_BY_DEFAULT)) == (ours in (True, BF16_BY_DEFAULT))
