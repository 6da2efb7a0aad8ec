"""What the trainer is made of besides the model, the arguments and the packs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smolvlm.checkpoints.learning_rates import LearningRates
from smolvlm.model.vision_cache import VisionCache
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.checkpoint import CheckpointFiles
from smolvlm.train.step import StepPolicy

Evaluate = Callable[[VisionLanguageModel], Mapping[str, float]]
"""Model in, metrics out; keys without the `eval_` prefix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerParts:
    """What the trainer needs besides the model, the arguments and the packs."""

    learning_rates: LearningRates
    files: CheckpointFiles
    step: StepPolicy = field(default_factory=StepPolicy)
    vision_cache: VisionCache | None = None
    evaluate: Evaluate | None = None
    log_sample_ids: bool = False
    max_bad_fraction: float = 0.01
    max_prefetch_bytes: int = 512 * 10**6
