"""How large or small the numbers among transformers' settings may be.

transformers takes most of them as they come: a negative weight decay grows the weights, a negative
interval never ends or never comes, and a seed that numpy refuses fails once everything is loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class NumberRange:
    """Where a number may lie."""

    words: str
    """After "must be"."""
    least: float | None = None
    above: float | None = None
    below: float | None = None
    besides: tuple[float, ...] = ()
    """Single values that are taken too."""
    is_whole_from_one: bool = False
    """A number below 1 is a share, of all steps; others are counts."""

    def holds(self, value: float) -> bool:
        """Say whether a number lies here."""
        if value in self.besides:
            return True
        if self.is_whole_from_one and value > 1 and value != int(value):
            return False
        return (
            (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


_COUNT = NumberRange(words="at least 1", least=1)
_NOT_NEGATIVE = NumberRange(words="at least 0", least=0)
_BETA = NumberRange(words="at least 0 and below 1", least=0, below=1)
_POSITIVE = NumberRange(words="above 0", above=0)
_INTERVAL = NumberRange(
    words="a whole number of steps, or a share of all steps between 0 and 1",
    above=0,
    is_whole_from_one=True,
)

RANGES: Mapping[str, NumberRange] = {
    "num_train_epochs": _POSITIVE,
    "max_steps": NumberRange(
        words="at least 1, or -1 (as many steps as train.num_train_epochs has)",
        least=1,
        besides=(-1,),
    ),
    "seed": NumberRange(words="from 0 to 4294967295", least=0, below=2**32),
    "weight_decay": _NOT_NEGATIVE,
    "max_grad_norm": NumberRange(words="at least 0 (0 clips nothing)", least=0),
    "adam_beta1": _BETA,
    "adam_beta2": _BETA,
    "adam_epsilon": _POSITIVE,
    "warmup_steps": NumberRange(
        words="a whole number of steps, or a share of all steps below 1",
        least=0,
        is_whole_from_one=True,
    ),
    "logging_steps": _INTERVAL,
    "save_steps": _INTERVAL,
    "eval_steps": _INTERVAL,
    "eval_delay": _NOT_NEGATIVE,
    "save_total_limit": NumberRange(words="at least 1, or null (all are kept)", least=1),
    "dataloader_num_workers": _NOT_NEGATIVE,
    "dataloader_prefetch_factor": _COUNT,
    "torch_empty_cache_steps": _COUNT,
    "ddp_timeout": _COUNT,
    "ddp_bucket_cap_mb": _COUNT,
}
"""Name -> where its numbers may lie; a null is not a number."""


def range_problem(name: str, value: object) -> str | None:
    """Return what a setting must be, where its number is out of range, or None."""
    wanted = RANGES.get(name)
    if wanted is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if wanted.holds(value) else f"must be {wanted.words}"
