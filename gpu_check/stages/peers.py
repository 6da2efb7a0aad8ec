"""Whole trainers in turns: ours, transformers' own, and TRL's where it is installed.

The project's benchmark does it (`benchmarks/turns.py`): three processes that take one optimizer
step at a time on the same rows, reading pictures and texts within the step. Here it gets a model
and rows that need no download. With a frozen tower ours fills its vision cache in the first pass
and reads it in the second.
"""

import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.job import SHAPES, SYSTEMS, TINY_SHAPES, VARIANTS, Job, System, Variant, steps_of
from benchmarks.results import LOSS_TOLERANCE, loss_difference
from benchmarks.rows import draw_steps
from benchmarks.turns import SystemResult, measure_jobs
from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.material.models import model_config, write_folder
from gpu_check.material.rows import Counts, RowWriter
from smolvlm.build.configs import tile_side_px

ROUNDS = 3
SCENARIO = "five_questions"
BF16_LOSS_TOLERANCE = 5e-3


def run(settings: Settings, report: Report) -> None:
    """Measure both variants; in tiny dimensions the first alone.

    Raises:
        CheckFailed: the first losses differ, so the systems do not learn the same.
    """
    config = model_config("256M", is_tiny=settings.is_tiny)
    model_dir = write_folder(settings.work_dir / "model", config, settings.device, tiles_a_side=1)
    shape = (TINY_SHAPES if settings.is_tiny else SHAPES)[SCENARIO]
    rounds = 1 if settings.is_tiny else ROUNDS
    writer = RowWriter(settings.work_dir / "rows", picture_side_px=tile_side_px(config))
    counts = Counts(pictures=(rounds + 2) * shape.pictures, questions=shape.questions_per_picture)
    rows_file = Path(writer.write(counts)[0]["json_path"])
    systems = [system for system in SYSTEMS if system != "trl" or find_spec("trl")]
    report.add(systems=", ".join(systems))
    drawn = draw_steps(num_steps=rounds + 2, rows_per_step=shape.num_rows, seed=0)
    problems = []
    for variant in VARIANTS[:1] if settings.is_tiny else VARIANTS:
        jobs = [_job(system, variant, settings, model_dir, rows_file, drawn) for system in systems]
        results = measure_jobs(jobs, compares_rows=False)
        for result in results:
            report.add(**{f"{variant} {result.job.system}": _figures(result)})
        difference = loss_difference(results)
        report.add(**{f"{variant} first_loss_difference": difference})
        allowed = BF16_LOSS_TOLERANCE if settings.device == "cuda" else LOSS_TOLERANCE
        problems += [f"{variant}: {difference:.1e}"] if not difference <= allowed else []
    if problems:
        raise CheckFailed("first losses differ from ours: " + "; ".join(problems))


def _job(
    system: System,
    variant: Variant,
    settings: Settings,
    model_dir: Path,
    rows_file: Path,
    drawn: tuple[tuple[int, ...], ...],
) -> Job:
    shape = (TINY_SHAPES if settings.is_tiny else SHAPES)[SCENARIO]
    return Job(
        system=system,
        scenario=SCENARIO,
        variant=variant,
        precision="bf16" if settings.device == "cuda" else "float32",
        model_dir=model_dir,
        rows_file=rows_file,
        work_dir=settings.work_dir / variant,
        batch_size=shape.batch_size,
        steps=steps_of(variant, drawn),
        num_threads=2,
    )


def _figures(result: SystemResult) -> dict[str, Any]:
    """Return the median seconds of a step by pass, and what was padded."""
    phases = dict.fromkeys(step.phase for step in result.steps if step.phase in ("first", "second"))
    seconds = {
        f"{phase}_pass_step_s": statistics.median(
            step.seconds for step in result.steps if step.phase == phase
        )
        for phase in phases
    }
    return {
        **seconds,
        "start_s": result.steps[0].seconds,
        "first_loss": result.first_loss,
        "padding_share": result.padding_share,
        "peak_gb": result.peak_device_bytes / 1e9,
        "device": result.device,
    }
