"""The law of packing, checked on a user's own rows and model: packed = alone.

In: a checkpoint and some samples. Out: how far the loss and every gradient of one pack are from
those of the conversations run one by one through the stock classes, on what the stock processor
makes of them, with correct labels. (Frames that are averaged: the stock model's features of each,
averaged by hand, since it has no such thing.) Weights and activations in float64, losses in float32
as in training: what is left is the arithmetic, not its rounding. (In float32 a tower with large
activations is off by 1.4e-5 in some gradient from rounding alone.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from smolvlm.checkpoints.load import load_checkpoint, load_processor, read_model_config
from smolvlm.checkpoints.new_tokens import add_rows, placement_of
from smolvlm.checkpoints.whole_weights import load_whole
from smolvlm.config.schema import ModelConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.encoded import EncodedConversation, LossWeighting, target_weight
from smolvlm.datasets.packing.pack import Pack
from smolvlm.errors import located
from smolvlm.inspect.stock_inputs import averaged_inputs, stock_inputs
from smolvlm.model.towers import TOWERS, tower_of
from smolvlm.protocols import Processor

LOSS_TOLERANCE = 1e-6
GRADIENT_TOLERANCE = 1e-5
ZERO_GRADIENT = 1e-7
"""Of the largest gradient's norm: below it a gradient is rounding alone (that of a key bias, which
softmax cancels)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """How far packed is from alone."""

    num_conversations: int
    num_tokens_packed: int
    num_tokens_alone: int
    ids_differ: tuple[str, ...]
    """`file:row` of conversations whose ids are not the stock processor's."""
    loss_packed: float
    loss_alone: float
    gradient_error: dict[str, float]
    """By tower: the largest |difference| / |gradient| over its parameters."""

    @property
    def loss_error(self) -> float:
        return abs(self.loss_packed - self.loss_alone) / max(abs(self.loss_alone), 1.0)

    @property
    def holds(self) -> bool:
        worst = max(self.gradient_error.values())
        return (
            not self.ids_differ
            and self.loss_error <= LOSS_TOLERANCE
            and worst <= GRADIENT_TOLERANCE
        )


def verify_pack(
    dataset: PackDataset,
    pack: Pack,
    rows: Sequence[int],
    *,
    settings: ModelConfig,
    processor: Processor,
) -> Verification:
    """Compare one pack with its conversations alone.

    Args:
        dataset: which the pack comes from (no vision cache: pixels are needed).
        pack: built by the dataset.
        rows: numbers of the pack's conversations in the dataset.
        settings: of the checkpoint, new tokens and scaled context with it; it is loaded twice, one
            after the other.
        processor: of the checkpoint, as `load_processor` gives it, new tokens in it.
    """
    normalizer = float(pack.target_weights.double().sum())
    loss_packed, packed = _packed(settings, pack, normalizer)
    stock = _stock_model(settings)
    loss, differ, tokens = 0.0, [], 0
    for number in rows:
        row = dataset.measured.conversations[number]
        layouts = dataset.layouts(row)
        for turns, ours in zip(
            row.branches, dataset.encoder.parts(row, layouts=layouts), strict=True
        ):
            inputs = stock_inputs(
                processor, replace(row, turns=turns), layouts=layouts, settings=dataset.settings
            )
            branch_loss, ids_equal = _alone(
                stock, inputs, ours, weighting=dataset.encoder.loss_weighting
            )
            (branch_loss / normalizer).backward()
            loss += float(branch_loss.detach()) / normalizer
            tokens += len(ours.input_ids)
            if not ids_equal:
                differ.append(row.where)
    alone = {name: value.grad for name, value in stock.named_parameters()}
    return Verification(
        num_conversations=len(rows),
        num_tokens_packed=len(pack.input_ids),
        num_tokens_alone=tokens,
        ids_differ=tuple(differ),
        loss_packed=loss_packed,
        loss_alone=loss,
        gradient_error=gradient_errors(packed, alone),
    )


def _packed(
    settings: ModelConfig, pack: Pack, normalizer: float
) -> tuple[float, dict[str, Tensor | None]]:
    """Return the loss and the gradients, by parameter, of a pack through our classes."""
    path, new_tokens, rope_scaling = settings.path, settings.new_tokens, settings.rope_scaling
    checkpoint = load_checkpoint(path, new_tokens=new_tokens, rope_scaling=rope_scaling)
    model = checkpoint.model.eval().double()
    output = model(pack=pack.model_tensors(), normalizer=normalizer)
    output.loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    return float(output.loss.detach()), gradients


def _stock_model(settings: ModelConfig) -> Any:
    """Load a checkpoint as its stock class, new tokens and scaled context with it."""
    path, rope_scaling = settings.path, settings.rope_scaling
    config = read_model_config(path, rope_scaling)
    stock = load_whole(AutoModelForImageTextToText, path, config=config, dtype=torch.float32)
    if settings.new_tokens:
        with located(path):
            add_rows(stock, placement_of(load_processor(path), settings.new_tokens))
    return stock.double().eval()


def gradient_errors(
    ours: dict[str, Tensor | None], theirs: dict[str, Tensor | None]
) -> dict[str, float]:
    """Return by tower the largest relative error, in norm, of a parameter's gradient.

    Parameters whose gradients are both below `ZERO_GRADIENT` of the largest count as equal.
    """
    norms = [float(gradient.norm()) for gradient in theirs.values() if gradient is not None]
    floor = ZERO_GRADIENT * max(norms)
    worst: dict[str, float] = dict.fromkeys(TOWERS, 0.0)
    for name, gradient in theirs.items():
        other = ours[name]
        size = 0.0 if gradient is None else float(gradient.norm())
        our_size = 0.0 if other is None else float(other.norm())
        if max(size, our_size) <= floor:
            continue
        if gradient is None or other is None:
            worst[tower_of(name)] = float("inf")
            continue
        error = float((other - gradient).norm()) / size if size else float("inf")
        worst[tower_of(name)] = max(worst[tower_of(name)], error)
    return worst


def _alone(
    stock: Any,
    inputs: dict[str, Tensor],
    ours: EncodedConversation,
    *,
    weighting: LossWeighting,
) -> tuple[Tensor, bool]:
    """Return the stock classes' weighted loss of one conversation, and whether its ids are ours."""
    ids = inputs["input_ids"][0]
    weights = torch.from_numpy(ours.weights)
    ids_equal = len(ids) == len(ours.input_ids) and bool(
        (ids == torch.from_numpy(ours.input_ids)).all()
    )
    slot_sizes = [len(tiles) for layout in ours.layouts for tiles in layout.slots]
    if any(size > 1 for size in slot_sizes):
        inputs = averaged_inputs(stock, inputs, slot_sizes=slot_sizes)
    logits = stock(**inputs, use_cache=False).logits[0].float()
    positions = weights.nonzero().squeeze(1)
    losses = torch.nn.functional.cross_entropy(
        logits[positions - 1], torch.from_numpy(ours.input_ids).long()[positions], reduction="none"
    )
    weighted = (losses * weights[positions]).sum()
    return weighted * target_weight(len(positions), weighting), ids_equal
