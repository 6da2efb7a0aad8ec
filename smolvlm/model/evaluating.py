"""How a model computes when it does not learn: without gradient and dropout."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from smolvlm.protocols import VisionLanguageModel


@contextmanager
def evaluating(model: VisionLanguageModel, compute_dtype: torch.dtype) -> Iterator[None]:
    """Let a model compute without gradient and dropout; then put it back into the mode it was in.

    Args:
        model: left as it is but for its mode.
        compute_dtype: bfloat16 runs under autocast, as in training; float32 without.
    """
    was_training = model.training
    model.eval()
    autocast = torch.autocast(
        model.device.type, dtype=compute_dtype, enabled=compute_dtype != torch.float32
    )
    try:
        with torch.no_grad(), autocast:
            yield
    finally:
        model.train(was_training)
