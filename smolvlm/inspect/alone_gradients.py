"""Conversations one by one through the stock classes: their loss, and the gradients that are
compared.

In: a run's settings and rows. Out: loss and gradients in float64, the stock processor's ids
checked against ours. Weights, the normalizer and the preference loss are computed here anew;
nothing of the training loop takes part.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import cross_entropy

from smolvlm.checkpoints.peft_layers import stock_model_of, stock_with_adapter, trained_parameters
from smolvlm.config.method import DpoMethod, SftMethod
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.encoded import EncodedConversation, target_weight
from smolvlm.inspect.preference_formulas import Answer, pair_loss, reference_source
from smolvlm.inspect.stock_inputs import averaged_inputs, stock_inputs
from smolvlm.inspect.stock_model import stock_at_start, stock_checkpoint
from smolvlm.protocols import Processor

HEAD, EMBEDDINGS = "lm_head.weight", "model.text_model.embed_tokens.weight"


@dataclass(frozen=True, kw_only=True, slots=True)
class AloneGradients:
    """What the conversations give."""

    loss: float
    gradients: Mapping[str, Tensor | None]
    """Of the parameters asked for, by their full names in ours."""
    num_tokens: int
    ids_differ: tuple[str, ...]
    """`file:row` of conversations whose ids are not the stock processor's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Branch:
    """One conversation of a row."""

    inputs: dict[str, Tensor]
    """The stock processor's."""
    ours: EncodedConversation

    @property
    def are_ids_equal(self) -> bool:
        ids = self.inputs["input_ids"][0].tolist()
        return ids == self.ours.input_ids.tolist()


@dataclass(frozen=True, kw_only=True, slots=True)
class AloneRows:
    """The rows that are compared."""

    dataset: PackDataset
    numbers: Sequence[int]
    processor: Processor

    def branches(self) -> Iterator[tuple[str, list[_Branch]]]:
        """Yield each row's `file:row` and its conversations: one, or a pair."""
        for number in self.numbers:
            row = self.dataset.measured.conversations[number]
            layouts = self.dataset.layouts(row)
            parts = self.dataset.encoder.parts(row, layouts=layouts)
            yield (
                row.where,
                [
                    _Branch(
                        inputs=stock_inputs(
                            self.processor,
                            replace(row, turns=turns, rejected=()),
                            layouts=layouts,
                            settings=self.dataset.settings,
                        ),
                        ours=ours,
                    )
                    for turns, ours in zip(row.branches, parts, strict=True)
                ],
            )


def alone_gradients(
    config: RunConfig,
    rows: AloneRows,
    *,
    trained: Mapping[str, torch.Size],
    resume: Path | None,
    adapter_folder: Path | None,
) -> AloneGradients:
    """Return loss and gradients of rows, each conversation by itself.

    Args:
        config: the run's settings.
        rows: to be compared.
        trained: shapes of the parameters whose gradients are asked for, by their full names.
        resume: the checkpoint that the run resumes from; None is its start.
        adapter_folder: of the run's adapters as they are compared; None is a run without.
    """
    stock, references = _stock_and_references(config, rows, resume, adapter_folder)
    parameters = trained_parameters(stock)
    is_tied = stock_model_of(stock).config.tie_word_embeddings
    wanted = {*trained, *([HEAD] if is_tied and EMBEDDINGS in trained else [])}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in wanted)
    loss, total, num_tokens, differing = 0.0, 0.0, 0, []
    for number, (where, branches) in enumerate(rows.branches()):
        reference = references[number] if references else (None, None)
        row_loss, share = _row_loss(config, stock, branches, reference)
        row_loss.backward()
        loss, total = loss + float(row_loss.detach()), total + share
        num_tokens += sum(len(branch.ours.input_ids) for branch in branches)
        differing += [where for branch in branches if not branch.are_ids_equal]
    return AloneGradients(
        loss=loss / total,
        gradients={
            name: _gradient(parameters, name, shape, is_tied=is_tied, total=total)
            for name, shape in trained.items()
        },
        num_tokens=num_tokens,
        ids_differ=tuple(differing),
    )


def _stock_and_references(
    config: RunConfig, rows: AloneRows, resume: Path | None, adapter_folder: Path | None
) -> tuple[Any, list[tuple[Tensor, ...]]]:
    """Return the stock model as it is compared, and of each row its answers under the reference."""
    source = reference_source(config.train.method)
    references: list[tuple[Tensor, ...]] = []
    if isinstance(config.train.method, DpoMethod) and config.train.method.reference_model:
        dtype = getattr(torch, config.model.dtype)
        other = stock_checkpoint(config.train.method.reference_model, dtype)
        references = _answers(other, rows)
        del other
    if resume is not None and adapter_folder is None and source != "model_at_start":
        return stock_checkpoint(str(resume), torch.float32), references
    stock = stock_at_start(config)
    if source == "model_at_start":
        references = _answers(stock, rows)
    if adapter_folder is not None:
        stock = stock_with_adapter(stock, adapter_folder).eval()
    elif resume is not None:
        stock = stock_checkpoint(str(resume), torch.float32)
    if source == "without_adapters":
        references = _answers(stock, rows, without_adapter=True)
    return stock, references


@torch.no_grad()
def _answers(
    stock: Any, rows: AloneRows, *, without_adapter: bool = False
) -> list[tuple[Tensor, ...]]:
    """Return of each row the log-probabilities of its answers, nats."""
    with stock.disable_adapter() if without_adapter else nullcontext():
        return [
            tuple(-_losses(stock, branch).sum() for branch in branches)
            for _, branches in rows.branches()
        ]


def _row_loss(
    config: RunConfig, stock: Any, branches: Sequence[_Branch], reference: Sequence[Tensor | None]
) -> tuple[Float64[Tensor, ""], float]:
    """Return a row's loss, and its share of what all rows' losses are divided by."""
    losses = [_losses(stock, branch) for branch in branches]
    match config.train.method:
        case DpoMethod() as method:
            chosen, rejected = (
                Answer(logp=-values.sum(), num_tokens=len(values), reference_logp=judged)
                for values, judged in zip(losses, reference, strict=True)
            )
            return pair_loss(chosen, rejected, method), 1.0
        case SftMethod():
            (values,), (branch,) = losses, branches
            of_turns = torch.from_numpy(branch.ours.weights[branch.ours.learned]).double()
            weights = of_turns * target_weight(len(values), config.data.loss_weighting)
            return (values * weights).sum(), float(weights.sum())


def _losses(stock: Any, branch: _Branch) -> Float64[Tensor, " target"]:
    """Return the negative log-likelihood of each learned token, nats."""
    ours, inputs = branch.ours, branch.inputs
    model = stock_model_of(stock)
    slot_sizes = [len(tiles) for layout in ours.layouts for tiles in layout.slots]
    if any(size > 1 for size in slot_sizes):
        inputs = averaged_inputs(model, inputs, slot_sizes=slot_sizes)
    logits = model(**inputs, use_cache=False).logits[0]
    positions = torch.from_numpy(ours.learned.nonzero()[0])
    targets = torch.from_numpy(ours.input_ids).long()[positions]
    return cross_entropy(logits[positions - 1], targets, reduction="none")


def _gradient(
    parameters: Mapping[str, Tensor], name: str, shape: torch.Size, *, is_tied: bool, total: float
) -> Tensor | None:
    """Return a parameter's gradient of the mean loss; None where it has none.

    peft copies a module that trains whole, and with it one of two tied matrices: the gradient of
    such a pair is that of both. A saved PiSSA adapter has the trained rows or columns first, then
    those that take its beginning away again.
    """
    names = (name, HEAD) if is_tied and name == EMBEDDINGS else (name,)
    tensors = {id(parameters[part]): parameters[part] for part in names if part in parameters}
    gradients = [value.grad / total for value in tensors.values() if value.grad is not None]
    kept = tuple(map(slice, shape))
    return torch.stack(gradients).sum(0)[kept] if gradients else None
