"""What one worker process is asked to do, and the fixed numbers of the comparison.

A job is one system on one scenario and one variant. Everything that must be equal between systems
stands here once: rows of each step, learning rates, optimizer, precision, threads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.rows import Content

Tower = Literal["vision_tower", "connector", "language_model"]
System = Literal["ours", "trl", "trl_default", "trainer"]
"""`trl_default` is TRL with its own default of gradient checkpointing, all else as `trl`."""
Scenario = Literal[
    "one_question",
    "five_questions",
    "cut_pictures",
    "pages",
    "captions",
    "texts",
    "clips",
    "pairs",
]
"""What the rows are; `pairs` are learned from by DPO."""
Variant = Literal["frozen_tower", "all_trained"]
Precision = Literal["float32", "bf16"]
Phase = Literal["start", "first", "between", "second"]
"""`start` and `between` are not counted: the first warms up, the second keeps the loader's
read-ahead honest."""

SYSTEMS: tuple[System, ...] = ("ours", "trl", "trainer")
SCENARIOS: tuple[Scenario, ...] = ("one_question", "five_questions")
VARIANTS: tuple[Variant, ...] = ("frozen_tower", "all_trained")

MAX_TOKENS_PER_PACK = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """How many rows an optimizer step holds, and how the peers cut it."""

    pictures: int
    questions_per_picture: int
    batch_size: int
    """Rows of a peer's padded batch; the rest of the step is gradient accumulation."""
    content: Content = "picture"
    tiles_a_row: int = 1

    @property
    def num_rows(self) -> int:
        return self.pictures * self.questions_per_picture


SHAPES: dict[Scenario, StepShape] = {
    "one_question": StepShape(pictures=8, questions_per_picture=1, batch_size=4),
    "five_questions": StepShape(pictures=4, questions_per_picture=5, batch_size=4),
}
TINY_SHAPES: dict[Scenario, StepShape] = {
    "one_question": StepShape(pictures=4, questions_per_picture=1, batch_size=2),
    "five_questions": StepShape(pictures=2, questions_per_picture=5, batch_size=2),
}
_RATES: dict[Variant, dict[Tower, float]] = {
    "frozen_tower": {"vision_tower": 0.0, "connector": 1e-4, "language_model": 2e-5},
    "all_trained": {"vision_tower": 5e-6, "connector": 1e-4, "language_model": 2e-5},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One optimizer step."""

    phase: Phase
    rows: tuple[int, ...]
    """Numbers of rows in the file, in the order in which they are dealt to batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One worker's task."""

    system: System
    scenario: Scenario
    variant: Variant
    precision: Precision
    model_dir: Path
    rows_file: Path
    work_dir: Path
    batch_size: int
    """Rows of a padded batch. Where the tower trains, a pack holds their tiles and no more: none
    keeps more activations."""
    steps: tuple[Step, ...]
    num_threads: int
    tiles_a_row: int = 1
    max_tokens_per_pack: int = MAX_TOKENS_PER_PACK
    checkpoints_activations: bool = False
    """Ours alone."""

    @property
    def learning_rates(self) -> dict[Tower, float]:
        return _RATES[self.variant]


def steps_of(
    variant: Variant, drawn: tuple[tuple[int, ...], ...], *, has_later_pass: bool | None = None
) -> tuple[Step, ...]:
    """Return a job's steps: warm-up, the first pass, and with a frozen tower a second pass over the
    same rows.

    Loaders read one batch ahead, so a step's time holds the reading of the next step's first batch.
    The last step is therefore there to be read and is never run, and the passes are parted by one
    step of other rows, so that each of ours that counts reads exactly one pack of its own kind,
    cached or not. Every system takes that step, so all are equal in the second pass too.

    Args:
        drawn: rows of (rounds + 2) different steps.
        has_later_pass: whether there is a second pass; by default where the tower is frozen.
    """
    start, *rounds, last = drawn
    steps = [Step(phase="start", rows=start), *(Step(phase="first", rows=rows) for rows in rounds)]
    if variant == "frozen_tower" if has_later_pass is None else has_later_pass:
        steps.append(Step(phase="between", rows=last))
        steps += [Step(phase="second", rows=rows) for rows in rounds]
    return (*steps, Step(phase="between", rows=last))


def shared_arguments(job: Job) -> dict[str, Any]:
    """Return the settings of `TrainingArguments` that all systems share."""
    import torch  # here: the parent describes jobs and needs no libraries

    has_gpu = torch.cuda.is_available()
    return {
        "optim": "adamw_torch_fused",
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": job.precision == "bf16",
        "use_cpu": not has_gpu,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": has_gpu,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
