"""The library as a program or a notebook uses it: what the command line does, as functions that
print nothing.

    from smolvlm import api

    config = api.load_config({"model": {"path": "FOLDER_OR_HUB_ID"}, ...}, rows=rows)
    api.inspect(config)                     # what the model sees and learns; a page in a notebook
    run = api.train(config)
    api.load("runs/first").ask("What is on the plate?", image)

Nothing heavy is imported before a function needs it. What is wrong is a
`smolvlm.errors.ConfigError` or `SampleError` that says what, where, and how to fix it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from smolvlm.quiet import drop_import_warnings

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from smolvlm.build.build_plan import BuildPlan, BuildRecipe
    from smolvlm.check.check_rows import CheckResult
    from smolvlm.config.schema import RunConfig
    from smolvlm.datasets.packing.measured import MeasuredSet
    from smolvlm.eval.evaluate import Evaluation
    from smolvlm.inspect.inspection import Inspection
    from smolvlm.plan.run_plan import RunPlan
    from smolvlm.publish.loading import ExportForm
    from smolvlm.runs.answering import LoadedModel
    from smolvlm.train.train import TrainedRun

__all__ = [
    "build",
    "check",
    "evaluate",
    "export",
    "inspect",
    "load",
    "load_config",
    "plan",
    "prepare",
    "train",
]

drop_import_warnings()

Settings: TypeAlias = "RunConfig | str | Path | Mapping[str, Any]"
"""A run's settings: of `load_config`, or a run file, or the sections as a mapping."""
Rows = Iterable[Mapping[str, Any]]
"""Rows as they would stand in a file, a `datasets.Dataset` among them; pictures may be Pillow
images."""


def load_config(
    settings: str | Path | Mapping[str, Any],
    overrides: str | Sequence[str] = (),
    *,
    rows: Rows | None = None,
    eval_rows: Rows | None = None,
) -> RunConfig:
    """Return a run's settings, complete and checked.

    Args:
        settings: a run file, or the sections as a mapping; relative paths in a mapping start from
            the current folder.
        overrides: `section.key=value`, as on the command line; one, or several.
        rows: in place of `data.mixture`; they are kept and known by a digest, so a run resumes
            where they come again.
        eval_rows: in place of `data.eval_mixture`.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    from smolvlm.config.load import config_from, load_run_config
    from smolvlm.config.yaml_text import read_yaml

    overrides = [overrides] if isinstance(overrides, str) else overrides
    if rows is None and eval_rows is None and not isinstance(settings, Mapping):
        return load_run_config(Path(settings), overrides)
    from smolvlm.datasets.rows.memory import keep_rows

    row_sets = (("mixture", rows, "rows"), ("eval_mixture", eval_rows, "eval_rows"))
    mixtures = {
        key: [keep_rows(iterable, name=name)]
        for key, iterable, name in row_sets
        if iterable is not None
    }
    if isinstance(settings, Mapping):
        where, base_dir, content = "settings", None, settings
    else:
        where, base_dir = str(settings), Path(settings).expanduser().absolute().parent
        content = read_yaml(Path(settings)) or {}
    data = content.get("data") or {}
    if mixtures and isinstance(data, Mapping):
        content = {**content, "data": {**data, **mixtures}}
    return config_from(content, overrides, where=where, base_dir=base_dir)


def _config(settings: Settings) -> RunConfig:
    from smolvlm.config.schema import RunConfig

    return settings if isinstance(settings, RunConfig) else load_config(settings)


def train(config: Settings, *, callbacks: Sequence[TrainerCallback] = ()) -> TrainedRun:
    """Train, evaluate as the `eval` section says, and write the report.

    A stopped run is resumed.

    Args:
        config: of `load_config`, or what it takes.
        callbacks: of transformers; how a program follows the run.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    from smolvlm.runs.training import train_and_report

    return train_and_report(_config(config), callbacks=callbacks)


def evaluate(config: RunConfig | str | Path, *, rows: Rows | None = None) -> Evaluation:
    """Answer held-out rows and score the answers.

    Args:
        config: settings whose `model.path` is asked; or a run's folder, whose `eval_mixture` it is.
        rows: in place of the `eval_mixture`.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    from smolvlm.config.schema import RunConfig
    from smolvlm.datasets.rows.memory import keep_rows
    from smolvlm.runs.evaluation import evaluate_checkpoint
    from smolvlm.runs.evaluation_settings import evaluated_config
    from smolvlm.runs.model import with_model

    if not isinstance(config, RunConfig):
        config = evaluated_config(str(config), [])
    if rows is not None:
        mixture = [keep_rows(rows, name="eval_rows")]
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"eval_mixture": mixture})}
        )
    return evaluate_checkpoint(with_model(config))


def inspect(config: Settings, *, start: int = 0, end: int | None = 4) -> Inspection:
    """Return what the model would see and learn of the samples [start, end) of the first epoch.

    No weights are read.

    The result prints itself as text, and as a page in a notebook; `write_html` keeps the page.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    from smolvlm.inspect.inspection import inspect_run
    from smolvlm.runs.model import with_model

    return inspect_run(with_model(_config(config)), start=start, end=end)


def prepare(
    config: Settings, *, engine: Literal["local", "ray"] = "local", num_workers: int | None = None
) -> MeasuredSet:
    """Measure every row of a run's mixture, keep the sizes for training, and return a summary.

    Args:
        config: of `load_config`, or what it takes.
        engine: what measures.
        num_workers: processes of the local engine; None is one a core.
    """
    from smolvlm.runs.mixture import prepare_mixture, settings_of_run

    return prepare_mixture(settings_of_run(_config(config)), engine=engine, num_workers=num_workers)


def plan(config: Settings, *, device: str | None = None) -> RunPlan:
    """Return what a run will take: parameters, steps, FLOPs, memory, time, energy.

    Rows are measured and kept; no weights are read.

    Args:
        config: of `load_config`, or what it takes.
        device: a name such as `H100`; None is this machine, which is measured once and kept.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    from smolvlm.runs.planning import Place, planner_of

    return planner_of(_config(config), Place(device=device)).plan()


def check(config: Settings, *, num_workers: int | None = None) -> CheckResult:
    """Read every row of a run's mixtures, decode every picture and clip, and return what is wrong.

    Args:
        config: of `load_config`, or what it takes.
        num_workers: processes; None is one a core.
    """
    from smolvlm.runs.mixture import check_mixture, settings_of_run

    return check_mixture(settings_of_run(_config(config)), num_workers=num_workers)


def build(
    recipe: BuildRecipe,
    out: str | Path,
    *,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
) -> BuildPlan:
    """Build a model from a vision tower and a language model, and return what was built.

    Args:
        recipe: a `smolvlm.build.build_plan.BuildRecipe`.
        out: folder to write; new or empty.
        dtype: what the weights are saved in.

    Raises:
        ConfigError: the parts do not fit, or there is something in the way.
    """
    import torch

    from smolvlm.build.build import write_build
    from smolvlm.build.build_plan import plan_build

    plan = plan_build(recipe)
    write_build(plan, Path(out), dtype=getattr(torch, dtype))
    return plan


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    to: ExportForm = "transformers",
    merge: bool = False,
    dtype: str | None = None,
    proves: bool = True,
) -> list[Path]:
    """Export a checkpoint to a folder for another program; return the files.

    Args:
        checkpoint: a run's output folder, or one of its checkpoints.
        out: folder to write; new or empty.
        to: `transformers` (or peft, of an adapter), `gguf`, `onnx` or `browser`. The last three
            are run in their own program and compared: `proof.json` among the files.
        merge: of `transformers`: add an adapter to its base's weights; the others always do.
        dtype: of `gguf`: `f16` (the default), `f32` or `q8_0`.
        proves: whether what was written is run and compared.

    Raises:
        ConfigError: there is no checkpoint, nothing to merge, something in the way, a package
            missing, or a model that the form cannot hold.
        DriftError: what was written answers otherwise than the model; the files stay.
    """
    from smolvlm.errors import DriftError
    from smolvlm.runs.exporting import export_checkpoint

    done = export_checkpoint(
        Path(checkpoint), Path(out), to=to, merge=merge, dtype=dtype, proves=proves
    )
    if done.proof is not None and done.proof.holds is False:
        what = f"answers otherwise in {done.proof.runtime} than the model does"
        raise DriftError(what, where=str(out), fix="see proof.json there")
    return list(done.files)


def load(checkpoint: str | Path, *, device: str | None = None) -> LoadedModel:
    """Load a model that answers: `load(folder).ask("What is this?", image)`.

    Args:
        checkpoint: a run's output folder, one of its checkpoints, a checkpoint's folder or a hub
            id.
        device: where it computes; None is a GPU where there is one.

    Raises:
        ConfigError: there is no such checkpoint, or it is not of the family.
    """
    from smolvlm.runs.answering import load_model

    return load_model(checkpoint, device=device)
