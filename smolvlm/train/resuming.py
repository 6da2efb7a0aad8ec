"""Runs that are resumed only where they are the same run, and from all that it needs.

A whole checkpoint's `smolvlm.json` (`checkpoint_folder.py`) holds the settings that shape the
training, and a digest of the plan: a run resumes only where both are the same, and says which
setting differs otherwise. It never resumes from weights alone: an optimizer begun anew would take
other steps.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from smolvlm.config.adapters import PARTS, AdapterConfig
from smolvlm.config.data import DataConfig
from smolvlm.config.method import without_other_methods
from smolvlm.datasets.packing.plan import Plan
from smolvlm.errors import ConfigError
from smolvlm.train.checkpoint_folder import (
    changed_content,
    damage_of,
    missing_state,
    passed_over,
    read_marker,
    step_of,
    whole_checkpoints,
)
from smolvlm.train.row_record import RowRecord

WITHOUT_EFFECT = (
    "model.attention",
    "train.output_dir",
    "train.log_sample_ids",
    "train.resume_from_checkpoint",
    "train.engine",
    "train.master_weights",
    "train.step_timeout_s",
    "train.context_ranks",
    "train.context_exchange",
    "train.activation_checkpointing",
    "train.arguments.activation_checkpointing",
    "train.arguments.use_cpu",
    "train.arguments.use_liger_kernel",
    "train.arguments.deepspeed",
    "train.on_changed_data",
    "train.verify_data",
    "train.private",
    "data.vision_cache",
    "data.vision_cache_dir",
    "data.vision_cache_max_gb",
    "data.base_dir",
    "data.pad_packs",
    "data.prefetch_mb",
    "data.max_decode_s",
    "data.max_row_bytes",
    "data.eval_mixture",
)
"""Settings that may differ between the two halves of a run."""
_ARGUMENTS_WITHOUT_EFFECT = (
    "model.attention",
    "logging_",
    "save_",
    "eval_",
    "dataloader_",
    "ddp_",
    "fsdp",
    "enable_jit_checkpoint",
    "report_to",
    "project",
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
_LATER: Mapping[str, object] = {
    **{f"data.{name}": field.default for name, field in DataConfig.model_fields.items()},
    **{f"adapters.{part}.init": AdapterConfig.model_fields["init"].default for part in PARTS},
}
"""Settings that checkpoints of earlier versions may lack -> what those runs did."""
_OPEN = ((None, NOT_SET), (NOT_SET, None))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunIdentity:
    """What makes two runs the same run."""

    settings: Mapping[str, object]
    """Dotted key -> value, JSON types only."""
    plan: str
    """Digest of which rows meet in which step."""
    relative: Mapping[str, object] = field(default_factory=dict)
    """Dotted key -> value with its absolute paths written from the output folder, for settings that
    have any: a run that is moved with its data and its model is the same run."""
    rows: RowRecord | None = None
    """Its rows; None where nobody asks whether they changed."""

    def as_marker(self, *, step: int) -> dict[str, object]:
        """Return what the marker of a checkpoint of this run holds."""
        settings, relative = dict(self.settings), dict(self.relative)
        return {"step": step, "settings": settings, "plan": self.plan, "relative": relative}


def run_identity(
    settings: Mapping[str, object],
    plan: Plan,
    *,
    is_bf16_default: bool = False,
    rows: RowRecord | None = None,
) -> RunIdentity:
    """Describe a run by its nested settings and its plan.

    Args:
        settings: as the run file gives them.
        plan: all steps.
        is_bf16_default: whether it trains in bfloat16 because its device can and the settings leave
            it open.
        rows: the run's.
    """
    flat = dict(_flatten(settings, ""))
    if is_bf16_default:
        flat[BF16] = BF16_BY_DEFAULT
    kept = {
        key: value
        for key, value in flat.items()
        if key not in WITHOUT_EFFECT and not key.startswith(WITHOUT_EFFECT_PREFIXES)
    }
    plain: dict[str, object] = json.loads(json.dumps(kept, default=str))
    folder = str(flat.get("train.output_dir", "."))
    relative = {key: _from_folder(value, folder) for key, value in plain.items()}
    return RunIdentity(
        settings=plain,
        plan=plan.packs.digest(),
        relative={key: value for key, value in relative.items() if value != plain[key]},
        rows=rows,
    )


def _from_folder(value: object, folder: str) -> object:
    """Return a value with its absolute paths written from a folder."""
    if isinstance(value, str):
        return os.path.relpath(value, folder) if os.path.isabs(value) else value
    if isinstance(value, list):
        return [_from_folder(member, folder) for member in value]
    if isinstance(value, dict):
        return {key: _from_folder(member, folder) for key, member in value.items()}
    return value


def _flatten(value: object, prefix: str) -> list[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        pairs = [
            _flatten(inner, f"{prefix}.{name}" if prefix else str(name))
            for name, inner in value.items()
        ]
        return [pair for inner in pairs for pair in inner]
    return [(prefix, value)]


def find_checkpoint(
    choice: Path | Literal["auto", False], *, output_dir: Path, identity: RunIdentity
) -> Path | None:
    """Return the checkpoint to resume from, None for a fresh start.

    Raises:
        ConfigError: the checkpoint chosen is damaged, holds weights alone, or belongs to a run with
            other settings or data.
    """
    if choice is False:
        return None
    if choice == "auto":
        folder = _newest(output_dir)
        if folder is None:
            return None
    else:
        folder = choice
        if (damage := damage_of(folder) or changed_content(folder)) is not None:
            raise ConfigError(
                damage,
                where=f"train.resume_from_checkpoint={folder}",
                fix="choose a whole checkpoint-<step> folder, `auto` (the newest whole one), or "
                "`false` (begin anew)",
            )
    marker = read_marker(folder)
    assert marker is not None, "a whole checkpoint has a marker"
    _check_same_run(marker, identity, folder=folder)
    if lacks := missing_state(folder):
        raise _weights_alone(folder, lacks)
    return folder


def _newest(output_dir: Path) -> Path | None:
    """Return the newest checkpoint whose files are those that were written, if there is one.

    One without the training's state comes after all that have it. Files are read of no more
    checkpoints than are damaged, and one.
    """
    whole = whole_checkpoints(output_dir)
    with_state = [folder for folder in whole if not missing_state(folder)]
    without = [folder for folder in whole if folder not in with_state]
    candidates = [*reversed(with_state), *reversed(without)]
    return next((folder for folder in candidates if changed_content(folder) is None), None)


def resume_notes(
    choice: Path | Literal["auto", False], *, output_dir: Path, resume: Path | None
) -> list[str]:
    """Return what is to be said of the folders that a run does not resume from, in lines.

    Args:
        choice: of the settings.
        output_dir: the run's, as it was found.
        resume: what the run resumes from.
    """
    lines = passed_over(output_dir, resume=resume) if choice == "auto" else []
    return [*lines, *(["note: the run begins at its first step"] if lines and not resume else [])]


def resumed_from(
    resume: Path | None, *, num_steps: int, is_done: bool, stopped_at: int | None
) -> list[str]:
    """Return where a run resumes from, and whether anything is left to do.

    Args:
        resume: the checkpoint; None of a run that begins.
        num_steps: planned in all.
        is_done: whether nothing is left to do.
        stopped_at: the step at which it stopped early.
    """
    if resume is None:
        return []
    words = f"all {num_steps} steps are done: another train.output_dir begins anew"
    if stopped_at is not None:
        words = (
            f"it stopped early, at step {stopped_at} of {num_steps}: more eval.patience goes on, "
            "another train.output_dir begins anew"
        )
    return [f"resuming from {resume}", *([words] if is_done else [])]


def _weights_alone(folder: Path, lacks: Sequence[str]) -> ConfigError:
    is_setting = len(lacks) > 1
    cause = " (train.save_only_model: true saves none of them)" if is_setting else ""
    return ConfigError(
        f"nothing can be resumed from it: it lacks {', '.join(lacks)}{cause}",
        where=str(folder),
        fix=f"to train on with an optimizer begun anew, set model.path: {folder} and another "
        "train.output_dir; to begin this run anew, set train.resume_from_checkpoint: false",
    )


def _written(key: str) -> str:
    """Return a setting's name as a run file has it."""
    return key.replace("train.arguments.", "train.")


def _check_same_run(saved: Mapping[str, Any], identity: RunIdentity, *, folder: Path) -> None:
    ours = identity.settings
    theirs = {
        key: value
        for key, value in without_other_methods(saved["settings"]).items()
        if key not in WITHOUT_EFFECT  # an earlier version held some of them to shape the training
    }
    differing = [
        f"- {_written(key)}: {theirs.get(key, NOT_SET)} there, {ours.get(key, NOT_SET)} here"
        for key in sorted(ours.keys() | theirs.keys())
        if not _is_same(key, theirs.get(key, NOT_SET), ours.get(key, NOT_SET))
        and not _is_moved(key, saved.get("relative", {}), identity.relative)
    ]
    has_settings = len(differing)
    if identity.rows is None or not identity.rows.bears_changes:
        changed = identity.rows.changes(folder) if identity.rows is not None else []
        if not differing and not changed and saved["plan"] != identity.plan:
            changed = ["- the rows: their order, or the sizes of their media, changed since"]
        differing += changed
    if differing:
        raise ConfigError(
            "the checkpoint belongs to another run:\n" + "\n".join(differing),
            where=str(folder),
            fix=_back(has_settings=has_settings, has_rows=len(differing) > has_settings)
            + "; or choose another train.output_dir, or set train.resume_from_checkpoint=false",
        )


def _back(*, has_settings: int, has_rows: bool) -> str:
    """Return what would make a run the one that began."""
    ways = ["restore the settings"] if has_settings else []
    if has_rows:
        ways.append(
            "put rows and files back, or go on with them as they are: train.on_changed_data=warn"
        )
    return ", and ".join(ways)


def _is_moved(key: str, theirs: Mapping[str, object], ours: Mapping[str, object]) -> bool:
    """Say whether a setting's paths are the same from both runs' output folders."""
    return key in theirs and theirs[key] == ours.get(key)


def _is_same(key: str, theirs: object, ours: object) -> bool:
    """Say whether a setting lets a run go on.

    Of our own settings a null is one that is not set, and earlier versions wrote those of other
    `quantization.bits` too. Bfloat16 may be chosen by the device: a run resumes where it was left
    open both times, whatever the two devices chose, and where it is written now as it was chosen
    then. A setting that came later has in earlier checkpoints the value that it has by default.
    """
    if theirs == NOT_SET and key in _LATER and ours == _LATER[key]:
        return True
    if key != BF16:
        are_both_open = not key.startswith("train.arguments.") and (theirs, ours) in _OPEN
        return theirs == ours or are_both_open
    is_open = {theirs, ours} <= {NOT_SET, BF16_BY_DEFAULT}
    return is_open or (theirs in (True, BF16_BY_DEFAULT)) == (ours in (True, BF16_BY_DEFAULT))


def resumed_rows(rows: RowRecord, resume: Path, *, num_steps: int) -> list[str]:
    """Take over what a checkpoint's run knows of its rows, and return the notes.

    Raises:
        ConfigError: rows changed, and what is planned of them now ends before the checkpoint.
    """
    step = step_of(resume)
    if step is not None and step > num_steps:
        raise ConfigError(
            f"the rows changed: {num_steps} steps are planned of them now",
            where=str(resume),
            fix="restore the rows, or set train.resume_from_checkpoint: false",
        )
    return rows.resume(resume)
