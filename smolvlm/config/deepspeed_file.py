"""DeepSpeed's file of settings: what of it is refused, and the files that come with the package.

The optimizer, the schedule and the batches of a run are its own; a file that brings others would
train something else without a word.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.yaml_text import read_text
from smolvlm.errors import ConfigError

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

SHIPPED = Path(__file__).parent / "deepspeed"
"""Folder of the package's own files: `zero2.json`, `zero3.json`, and both with offloading."""
BATCHES = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
ZERO3 = 3


def shipped_file(name: str) -> Path | None:
    """Return the package's own file of a name, if it has one."""
    path = SHIPPED / name
    return path if Path(name).name == name and path.is_file() else None


def deepspeed_problem(value: object, *, base_dir: Path) -> Problem | None:
    """Return why a DeepSpeed file is refused, or None.

    Args:
        value: of `train.deepspeed`: a path, or what such a file holds.
        base_dir: from which a path starts.
    """
    key, shown = "train.deepspeed", shown_value(value)
    if value is None:
        return None
    try:
        content = _content(value, base_dir)
    except ConfigError as error:
        return Problem(key=key, value=shown, what=error.what, fix=error.fix)
    if not isinstance(content, dict):
        return Problem(key=key, value=shown, what="must hold a mapping")
    for block in ("optimizer", "scheduler"):
        if block in content:
            what = f"has its own `{block}` block, with which the parts' learning rates are dropped"
            return Problem(key=key, value=shown, what=what, fix="take the block out")
    for name in BATCHES:
        if content.get(name, "auto") != "auto":
            what = f"has its own `{name}`: the packs of a step are the run's"
            fix = 'write "auto" there, and set train.packs_per_step'
            return Problem(key=key, value=shown, what=what, fix=fix)
    return None


def deepspeed_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield what of a run does not work under ZeRO-3, where every rank has to gather each layer's
    weights as often as all others."""
    value = config.train.arguments.get("deepspeed")
    if value is None or _stage(_content(value, Path())) < ZERO3:
        return
    fix = "train with zero2.json, or with train.engine: fsdp2"
    for key, holds, what in (
        ("data.eval_mixture", config.data.eval_mixture is not None, "evaluation by generation"),
        ("train.method", config.train.method.type != "sft", "preference training"),
        ("train.vision_tower_lr", config.rate_of("vision") == 0, "a frozen vision tower"),
    ):
        if holds:
            yield Problem(key=key, what=f"{what} does not work under ZeRO-3 here", fix=fix)


def _content(value: object, base_dir: Path) -> Any:
    """Return what a file of settings holds.

    Raises:
        ConfigError: it cannot be read, or is not JSON.
    """
    if not isinstance(value, str):
        return value
    path = base_dir / Path(value).expanduser()
    try:
        return json.loads(read_text(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.what}", fix=error.fix) from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error


def _stage(content: object) -> int:
    zero = content.get("zero_optimization") if isinstance(content, Mapping) else None
    stage = zero.get("stage", 0) if isinstance(zero, Mapping) else 0
    return stage if isinstance(stage, int) else 0
