"""The same rows for two systems: packs for ours, padded batches for the stock class.

In: a model folder and how many rows a step has. Out: steps with what each system reads of them.
Rows, plan and padding are those of the project's benchmark; only drawing and moving to the device
are here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoProcessor

from benchmarks.ours import plan_steps
from benchmarks.plain_trainer import PaddingCollator
from benchmarks.rows import read_rows
from gpu_check.material.rows import Counts, RowWriter
from gpu_check.material.runs import write_run
from smolvlm.config.load import load_run_config
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.packing.buckets import PackBuckets
from smolvlm.datasets.packing.pack import on_device
from smolvlm.model.attention.rule import attention_planner
from smolvlm.train.planned_rows import plan_run


@dataclass(frozen=True, kw_only=True, slots=True)
class StepShape:
    """How many rows a step has."""

    pictures: int
    questions: int
    """About each picture: our packs hold the picture once."""
    batch_size: int
    """Rows of a padded batch."""

    @property
    def num_rows(self) -> int:
        return self.pictures * self.questions


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyStep:
    """One optimizer step on the device, for both systems."""

    num_rows: int
    num_targets: int
    packs: list[dict[str, Any]]
    batches: list[dict[str, Any]]
    """Empty where none were asked for."""


class StepMaker:
    """Draws rows and makes steps of them."""

    def __init__(
        self,
        place: Path,
        model_dir: Path,
        *,
        picture_side_px: int,
        num_pictures: int,
        questions: int,
    ) -> None:
        """
        Args:
            place: an own folder.
            num_pictures: each is asked about `questions` times.
        """
        counts = Counts(pictures=num_pictures, questions=questions)
        mixture = RowWriter(place / "rows", picture_side_px=picture_side_px).write(counts)
        config = load_run_config(write_run(place / "run", model_dir=model_dir, mixture=mixture))
        self._prompt, planned = plan_run(config)
        self._measured, self._data = planned.measured, config.data
        self._rows = read_rows(Path(mixture[0]["json_path"]))
        self._collate = PaddingCollator(AutoProcessor.from_pretrained(model_dir))
        self._next_row = 0

    def make(
        self,
        num_rows: Sequence[int],
        *,
        device: str,
        batch_size: int | None,
        first_row: int | None = None,
        pads: bool = False,
        is_varlen: bool = False,
    ) -> list[ReadyStep]:
        """Return steps of so many rows each, every row in one step only.

        Args:
            batch_size: rows of a padded batch; None makes packs alone.
            first_row: None is the row behind the last one that was used.
            pads: whether packs are padded to sizes that come up again.
            is_varlen: whether packs without branches go to FlashAttention.
        """
        begin = self._next_row if first_row is None else first_row
        starts = begin + np.concatenate([[0], np.cumsum(num_rows)])
        self._next_row = int(starts[-1])
        drawn = [tuple(range(start, end)) for start, end in pairwise(starts.tolist())]
        plan = plan_steps(self._measured, drawn, self._data)
        plan_attention = attention_planner(device, is_varlen=is_varlen)
        buckets = PackBuckets(pad_id=self._prompt.tokens.pad, plan_attention=plan_attention)
        dataset = PackDataset(
            self._measured,
            plan,
            encoder=self._prompt.encoder(),
            settings=self._prompt.media,
            options=PackOptions(plan_attention=plan_attention, reshape=buckets if pads else None),
        )
        steps = []
        for number, rows in enumerate(drawn):
            first = number * plan.packs_per_step
            packs = [dataset[index] for index in range(first, first + plan.packs_per_step)]
            steps.append(
                ReadyStep(
                    num_rows=len(rows),
                    num_targets=sum(pack.num_targets for pack in packs),
                    packs=[on_device(pack.model_tensors(), device) for pack in packs if pack.where],
                    batches=self._batches(rows, batch_size, device) if batch_size else [],
                )
            )
        return steps

    def _batches(self, rows: Sequence[int], batch_size: int, device: str) -> list[dict[str, Any]]:
        parts = [rows[begin : begin + batch_size] for begin in range(0, len(rows), batch_size)]
        collated = [self._collate([self._rows[row] for row in part]) for part in parts]
        return [{name: value.to(device) for name, value in batch.items()} for batch in collated]
