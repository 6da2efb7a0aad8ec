"""Where an evaluation computes, and which of several processes this one is.

In: the settings, and what torchrun tells its processes. Out: a device and a share of the rows.
"""

import os
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from smolvlm.config.schema import RunConfig
from smolvlm.eval.evaluate import RankShare
from smolvlm.train.arguments import trains_in_bf16


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPlace:
    """One process's part of an evaluation."""

    device: torch.device
    share: RankShare
    uses_bf16: bool
    """Whether it computes under bfloat16 autocast."""


def started_rank() -> int:
    """Return which process this is among those that torchrun started; 0 where it did not."""
    return int(os.environ.get("RANK", "0"))


def place_of(config: RunConfig) -> EvaluationPlace:
    """Return where to compute: a GPU where there is one, unless `train.use_cpu` is set.

    Where torchrun started several processes, they are joined.
    """
    arguments = config.train.arguments
    on_cpu = bool(arguments.get("use_cpu")) or not torch.cuda.is_available()
    device = torch.device("cpu" if on_cpu else "cuda")
    share = RankShare()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        state = PartialState(cpu=on_cpu)
        assert state.device is not None
        device = state.device
        share = RankShare(rank=state.process_index, num_ranks=state.num_processes)
    # A GPU's own choice is not asked of a CPU.
    uses_bf16 = bool(arguments.get("bf16")) if on_cpu else trains_in_bf16(config.train)
    return EvaluationPlace(device=device, share=share, uses_bf16=uses_bf16)


def leave_ranks(count: int) -> int:
    """Return the sum of a count over all processes, and end what joined them, if they were."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return count
    total = sum(gather_object([count]))
    PartialState().destroy_process_group()
    return total
