"""One pack through the model that a run trains: its loss, and the gradient of all that it trains.

In: a run's settings and a pack. Out: loss and gradients in float64, and the adapter folder that the
run would save, for the stock classes to load. The model is made as training makes it: quantised,
adapted, frozen, and filled from the checkpoint that the run resumes from.

An adapter begins with one of its two matrices at 0, and then the other one has no gradient: nothing
could be compared. So matrices that are all 0 are filled with small random numbers of a fixed seed,
after the reference of a preference loss was computed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolvlm.checkpoints.adapters import Adapters
from smolvlm.checkpoints.base import Base
from smolvlm.checkpoints.load import read_model_config
from smolvlm.checkpoints.peft_layers import adapter_tensors, adapters_off
from smolvlm.checkpoints.whole_weights import load_whole
from smolvlm.config.method import DpoMethod
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.pack import Pack
from smolvlm.inspect.preference_formulas import reference_source
from smolvlm.model.evaluating import evaluating
from smolvlm.model.stock_classes import STOCK_CLASSES
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.batch import as_batch
from smolvlm.train.methods.method import method_of
from smolvlm.train.methods.preference_losses import answer_logps
from smolvlm.train.methods.reference import other_model
from smolvlm.train.run_model import load_run_model

FILL_STD = 0.02
"""Of the numbers that an adapter's zeros are filled with."""
FILL_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PackedGradients:
    """What a pack gives."""

    loss: float
    gradients: Mapping[str, Tensor | None]
    """Of every parameter that the run trains, by its full name."""
    shapes: Mapping[str, torch.Size]
    """Of the same parameters."""
    notes: tuple[str, ...]
    """Quantised layers, adapters and token rows in words, a line each."""
    num_filled: int
    """Adapter matrices that were filled."""


def packed_gradients(
    config: RunConfig,
    base: Base,
    dataset: PackDataset,
    pack: Pack,
    *,
    resume: Path | None,
    adapter_folder: Path,
) -> PackedGradients:
    """Return loss and gradients of one pack.

    Args:
        config: the run's settings.
        base: of them.
        dataset: which the pack comes from.
        pack: with pixels, not with cached features.
        resume: the checkpoint that the run resumes from; None is its start.
        adapter_folder: receives the adapter as it is compared, where the run has one.
    """
    without_cache = config.data.model_copy(update={"vision_cache": False})
    run_model = load_run_model(
        config.model_copy(update={"data": without_cache}), base, uses_bf16=False, resume=resume
    )
    model, adapters = run_model.checkpoint.model, run_model.adapters
    model.eval().double()
    tensors = pack.model_tensors()
    start = _reference_at_start(config, base, dataset, model, tensors)
    num_filled = _to_compared_weights(model, adapters, resume=resume)
    if adapters is not None:
        adapters.save(model, adapter_folder)
    tensors["reference_logps"] = start
    if reference_source(config.train.method) == "without_adapters":
        with adapters_off(model):
            tensors["reference_logps"] = _answer_logps(model, tensors)
    method = method_of(config.train.method)
    normalizer = method.share(as_batch([pack])["info"])
    output: Any = model(pack=tensors, normalizer=normalizer, loss_of=method.loss)
    output.loss.backward()
    trained = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    return PackedGradients(
        loss=float(output.loss.detach()),
        gradients={name: parameter.grad for name, parameter in trained.items()},
        shapes={name: parameter.shape for name, parameter in trained.items()},
        notes=(
            *(run_model.quantized.towers if run_model.quantized is not None else ()),
            *str(adapters or "").splitlines(),
        ),
        num_filled=num_filled,
    )


def _to_compared_weights(
    model: VisionLanguageModel, adapters: Adapters | None, *, resume: Path | None
) -> int:
    """Give a model of a run's start the weights that are compared; return how many were filled."""
    if resume is None:
        return 0 if adapters is None else _fill_zeros(model)
    if adapters is not None:
        adapters.restore(model, resume)
        return 0
    config = read_model_config(str(resume))
    stock_class = STOCK_CLASSES[config.model_type]
    saved = load_whole(stock_class, str(resume), config=config, dtype=torch.float32)
    model.load_state_dict(saved.state_dict())
    return 0


@torch.no_grad()
def _fill_zeros(model: VisionLanguageModel) -> int:
    generator = torch.Generator().manual_seed(FILL_SEED)
    zeros = [value for value in adapter_tensors(model).values() if not value.any()]
    for value in zeros:
        value.copy_(torch.randn(value.shape, generator=generator) * FILL_STD)
    return len(zeros)


def _reference_at_start(
    config: RunConfig,
    base: Base,
    dataset: PackDataset,
    model: VisionLanguageModel,
    tensors: Mapping[str, Any],
) -> Tensor | None:
    """Return each answer's log-probability under a reference that is taken before the first step.

    That is another model, or this one as it is at the start; None where the loss has no reference,
    or one that is asked in the step.
    """
    method = config.train.method
    if reference_source(method) == "model_at_start":
        return _answer_logps(model, tensors)
    if not isinstance(method, DpoMethod) or method.reference_model is None:
        return None
    prompt = base.prompt(config.data)
    other = other_model(method.reference_model, config, prompt, dataset.measured)
    return _answer_logps(other.double(), tensors)


def _answer_logps(model: VisionLanguageModel, tensors: Mapping[str, Any]) -> Tensor:
    with evaluating(model, torch.float32):  # without autocast: float64, as the weights are
        losses = model(pack=tensors).target_losses
    return answer_logps(losses, tensors["target_groups"], len(tensors["group_sizes"]))
