"""What the trainer is made of besides the model, the arguments and the packs."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from smolvlm.checkpoints.learning_rates import LearningRates
from smolvlm.config.engine import EngineName
from smolvlm.datasets.packing.row_digests import MediaState
from smolvlm.model.vision_cache import VisionCache
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.batch import PackInfo
from smolvlm.train.checkpoint import CheckpointFiles
from smolvlm.train.data_wait import DataWait
from smolvlm.train.flops import ComputeCost
from smolvlm.train.late_features import with_late_features
from smolvlm.train.log import RunLog
from smolvlm.train.master_weights import MasterWeights
from smolvlm.train.ranks.rank_log import RankLog
from smolvlm.train.row_record import RowRecord
from smolvlm.train.step import StepPolicy

Evaluate = Callable[[VisionLanguageModel], Mapping[str, float]]
"""Model in, metrics out; keys without the `eval_` prefix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluations:
    """What evaluates a run."""

    evaluate: Evaluate
    """Called during training."""
    at_start: Mapping[str, float] = field(default_factory=dict)
    """What it said of the untrained model; empty where it was not asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerParts:
    """What the trainer needs besides the model, the arguments and the packs."""

    learning_rates: LearningRates
    files: CheckpointFiles
    step: StepPolicy = field(default_factory=StepPolicy)
    vision_cache: VisionCache | None = None
    could_keep_features: bool = False
    """Whether a vision cache is switched off that would spare later epochs their decoding."""
    evaluations: Evaluations | None = None
    log_sample_ids: bool = False
    rows: RowRecord | None = None
    """Compares the files of rows with what they were; None compares nothing."""
    max_bad_fraction: float = 0.01
    max_prefetch_bytes: int = 512 * 10**6
    engine: EngineName = "ddp"
    """How ranks share the work."""
    has_master_weights: bool = False
    """Whether weights compute in bfloat16 and are stepped in float32."""
    step_timeout_s: float | None = None
    """How long a pack may take on one of several ranks, or its loading; None is any."""
    say: Callable[[str], None] = lambda _: None
    """Told on one rank what the engine holds, once it does."""

    @property
    def make_masters(self) -> Callable[[VisionLanguageModel], MasterWeights] | None:
        """What rounds the weights that compute, once they are on their device."""
        if not self.has_master_weights:
            return None
        return partial(MasterWeights, keeps_frozen=self.files.adapters is None)

    def run_log(self, arguments: TrainingArguments, *, cost: ComputeCost, ranks: RankLog) -> RunLog:
        """Return what the run writes of its steps, into its folder."""
        return RunLog(
            Path(arguments.output_dir or "."),
            cost=cost,
            metric_names=self.step.method.metric_names,
            logs_rows=self.log_sample_ids,
            ranks=ranks,
            waits=self._data_wait(arguments) if arguments.process_index == 0 else None,
        )

    def _data_wait(self, arguments: TrainingArguments) -> DataWait:
        ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", arguments.world_size))
        return DataWait(
            num_workers=arguments.dataloader_num_workers,
            num_cores=_num_cores() // max(ranks_here, 1),
            keeps_features=self.vision_cache is not None,
            could_keep_features=self.could_keep_features,
            say=self.say,
        )

    def looked_up(self, batch: Mapping[str, Any]) -> tuple[Mapping[str, Any], PackInfo]:
        """Return a batch's pack, with the features that were kept since it was made, and what is
        known of it."""
        if self.vision_cache is None:
            return batch["pack"], batch["info"]
        return with_late_features(batch["pack"], batch["info"], self.vision_cache.read)

    def check_media(self, states: Iterable[MediaState]) -> None:
        """Compare the files that a pack was read from; raises as `RowRecord.add`."""
        if self.rows is not None:
            self.rows.add(states)

    def save_rows(self, folder: Path, *, is_writer: bool) -> None:
        """Write what is known of the rows to a checkpoint; every rank calls it, one writes."""
        if self.rows is not None:
            self.rows.save(folder, is_writer=is_writer)


def _num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
