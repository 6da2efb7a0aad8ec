"""What a model makes of the true answers: loss and token accuracy, a row each.

In: packs of held-out rows. Out: each row's summed loss and its tokens predicted right, with the
true text before each (teacher forcing). Only learned tokens count, as in training.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smolvlm.datasets.packing.pack import Pack, on_device
from smolvlm.eval.prediction import TokenScores
from smolvlm.model.evaluating import evaluating
from smolvlm.protocols import VisionLanguageModel


@dataclass(frozen=True, kw_only=True, slots=True)
class RowTokens:
    """One row's tokens."""

    where: str
    source: str
    scores: TokenScores


def token_scores(
    model: VisionLanguageModel,
    packs: Iterable[Pack],
    *,
    sources: Sequence[str],
    compute_dtype: torch.dtype,
) -> list[RowTokens]:
    """Return the scores of every row that is in the packs and has a learned token.

    Args:
        model: asked without gradient.
        packs: of one pass.
        sources: names of the packs' sources.
        compute_dtype: bfloat16 runs under autocast.
    """
    return [
        row
        for pack in packs
        for row in _scores_of_pack(model, pack, sources=sources, compute_dtype=compute_dtype)
    ]


def _scores_of_pack(
    model: VisionLanguageModel, pack: Pack, *, sources: Sequence[str], compute_dtype: torch.dtype
) -> Iterator[RowTokens]:
    tensors = on_device(pack.model_tensors(), model.device)
    with evaluating(model, compute_dtype), _likeliest_tokens(model) as likeliest:
        losses = model(pack=tensors).target_losses.double().cpu()
    said = torch.cat(likeliest).cpu() if likeliest else pack.target_ids[:0]
    is_right = (said == pack.target_ids).double()
    num_rows = len(pack.where)
    loss_of_row, right_of_row = (
        torch.bincount(pack.target_groups, weights=values, minlength=num_rows).tolist()
        for values in (losses, is_right)
    )
    source_of_row = torch.zeros(num_rows, dtype=torch.long)
    source_of_row[pack.target_groups] = pack.target_sources
    for number, num_tokens in enumerate(pack.group_sizes.tolist()):
        if num_tokens:
            yield RowTokens(
                where=pack.where[number],
                source=sources[int(source_of_row[number])],
                scores=TokenScores(
                    loss=loss_of_row[number],
                    num_right=round(right_of_row[number]),
                    num_tokens=num_tokens,
                ),
            )


@contextmanager
def _likeliest_tokens(model: VisionLanguageModel) -> Iterator[list[Tensor]]:
    """Yield a list that receives the most probable token of each target, in order.

    The head is asked for targets alone, many of them in several calls.
    """
    likeliest: list[Tensor] = []

    def note(_module: nn.Module, _inputs: object, logits: Tensor) -> None:
        likeliest.append(logits.argmax(-1))

    handle = model.get_output_embeddings().register_forward_hook(note)
    try:
        yield likeliest
    finally:
        handle.remove()
