"""The weighted mean of a pack's losses with its gradients made in the forward: no logits are kept.

In: hidden states at the targets and the output head's weight. Out: the mean, and each target's
loss. The mean's gradient by a logit is `weight / normalizer * (softmax - onehot)`, which is known
as soon as the logits are: they are overwritten with it, it is multiplied into the gradients of the
hidden states and of the weight, and the next chunk takes the room. The backward pass multiplies
what was kept by the gradient that arrives. The price: the loss must be linear in the targets'
losses, with weights known beforehand; one forward allows one backward; and the weight's gradient
exists from the forward on (autograd keeps logits in that time, which from some two hundred targets
up are larger).

Arithmetic and types are autograd's, with the same bfloat16 products under autocast. Two things
differ in the last bits: autograd rounds the target's `share * softmax - share` once (a fused
multiply-add), this file `softmax - 1` and then the product; and the weight's gradient over several
chunks is a sum in float32 of each chunk's product. Float16 needs its gradients scaled up before
they are rounded, by a factor that only the backward pass knows, so it takes the other way.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from smolvlm.model.autocast import product_dtype, product_operands
from smolvlm.model.onednn import product, takes_onednn
from smolvlm.model.plain_modules import is_plainly_called

TARGETS_PER_CHUNK = {"cpu": 512}
"""Targets whose logits are there at once, by device type: each chunk reads the head's weight and
adds to its gradient, so that smaller ones are slower (`python -m benchmarks.head_loss`)."""
DEFAULT_TARGETS_PER_CHUNK = 4096
ROWS_PER_BLOCK = {"cpu": 8}
"""Of a chunk's targets, those that go from logits to gradients together: on a CPU so many for each
thread, which its caches hold in float32; elsewhere the whole chunk, in few large operations. No bit
depends on it."""
ROWS_PER_SLICE = {"cpu": 8192}
"""Of the weight's gradient, those whose bfloat16 products are there at once; elsewhere all."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def can_fuse(hidden: Tensor, head: nn.Module) -> bool:
    """Say whether `fused_mean` does what calling the head and differentiating would.

    Args:
        hidden: what the head is called with.
        head: only a plain `nn.Linear` whose call nobody watches or replaces; not an adapter, a
            quantised layer, or one whose weight is cut up among ranks.
    """
    return (
        torch.is_grad_enabled()
        and type(head) is nn.Linear
        and head.bias is None
        and (hidden.requires_grad or head.weight.requires_grad)
        and is_plainly_called(head)
        and not is_traceable_wrapper_subclass(head.weight)
        and product_dtype(hidden) in _DTYPES
        and not torch.compiler.is_compiling()
    )


def fused_mean(
    picked: Float[Tensor, "target hidden"],
    weight: Float[Tensor, "vocabulary hidden"],
    *,
    target_ids: Int[Tensor, " target"],
    target_weights: Float[Tensor, " target"],
    normalizer: Tensor | float,
) -> tuple[Float[Tensor, ""], Float[Tensor, " target"]]:
    """Return the pack's share of the step's loss, and each target's negative log-likelihood, nats.

    The second is detached. Types as `target_losses` gives them. A derivative of the gradients
    raises `RuntimeError`, and so may a second backward pass through one forward.

    Args:
        picked: hidden states that predict the targets.
        weight: of the head; gets its gradient if it trains.
        target_ids, target_weights: of the pack.
        normalizer: what the weighted sum is divided by.
    """
    return _FusedMean.apply(picked, weight, target_ids, target_weights, normalizer)


class _FusedMean(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - its own arguments
        ctx: Any,
        picked: Tensor,
        weight: Tensor,
        target_ids: Tensor,
        target_weights: Tensor,
        normalizer: Tensor | float,
    ) -> tuple[Tensor, Tensor]:
        # Of a float32 model under autocast bfloat16 ones, as the head itself would make them.
        states, matrix = product_operands(picked, weight)
        precise = torch.float64 if states.dtype == torch.float64 else torch.float32
        losses = torch.empty(target_ids.shape, dtype=precise, device=states.device)
        # In the order of autograd's own steps back from the mean, for the same bits.
        upstream = (losses.new_ones(()) / normalizer).to(precise)
        shares = upstream.expand_as(losses) * target_weights
        chunks = _Chunks(states, matrix, precise=precise)
        if ctx.needs_input_grad[0]:
            chunks.by_states = torch.empty_like(states)
        if ctx.needs_input_grad[1]:
            is_split = len(states) > chunks.size
            made = torch.empty_like if len(states) else torch.zeros_like
            chunks.by_matrix = made(weight, dtype=precise if is_split else None)
        for begin in range(0, len(states), chunks.size):
            part = slice(begin, begin + chunks.size)
            chunks.take(part, target_ids[part, None], shares[part, None], losses[part])
        gradients = (chunks.by_states, picked.dtype), (chunks.by_matrix, weight.dtype)
        ctx.save_for_backward(
            *(made if made is None else made.to(dtype) for made, dtype in gradients)
        )
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(losses)
        return (losses * target_weights).sum() / normalizer, losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _of_losses: None) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # In place, which spares a tensor of the weight's size; a second pass is refused by
        # autograd, since what was saved has changed.
        by_states, by_weight = (
            None if gradient is None else gradient.mul_(upstream) for gradient in ctx.saved_tensors
        )
        return by_states, by_weight, None, None, None


class _Chunks:
    """Room for one chunk's logits, and the gradients that chunks add up to."""

    by_states: Tensor | None = None
    by_matrix: Tensor | None = None
    """None where it is not wanted."""

    def __init__(self, states: Tensor, matrix: Tensor, *, precise: torch.dtype) -> None:
        kind, (num_rows, width) = states.device.type, matrix.shape
        self.states, self.matrix = states, matrix
        self.size = TARGETS_PER_CHUNK.get(kind, DEFAULT_TARGETS_PER_CHUNK)
        largest = min(len(states), self.size)
        rows = ROWS_PER_BLOCK.get(kind)
        self._block = largest if rows is None else min(rows * torch.get_num_threads(), largest)
        self._slice = min(ROWS_PER_SLICE.get(kind, num_rows), num_rows)
        self._by_onednn = takes_onednn(matrix)
        self._logits = None if self._by_onednn else states.new_empty(largest, num_rows)
        self._log_probs = states.new_empty(self._block, num_rows, dtype=precise)
        is_half = matrix.dtype != precise
        self._precise = torch.empty_like(self._log_probs) if is_half else None
        self._product = matrix.new_empty(self._slice, width) if is_half else None
        self._minus_one = self._log_probs.new_full((), -1.0)

    def take(self, part: slice, ids: Tensor, shares: Tensor, losses: Tensor) -> None:
        """Add one chunk's gradients, and write its losses.

        Args:
            part: its targets.
            ids, shares: (target, 1) of the chunk; a share is what a loss is multiplied by in the
                mean.
            losses: (target,) to be written.
        """
        states = self.states[part]
        logits = self._logits_of(states)
        for begin in range(0, len(states), self._block):
            rows = slice(begin, begin + self._block)
            self._differentiate(logits[rows], ids[rows], shares[rows], losses[rows])
        if self.by_states is not None and self._by_onednn:
            self.by_states[part] = product(logits, self.matrix)
        elif self.by_states is not None:
            torch.mm(logits, self.matrix, out=self.by_states[part])
        if self.by_matrix is not None:
            self._add_to_matrix(self.by_matrix, logits.t(), states, is_first=part.start == 0)

    def _logits_of(self, states: Tensor) -> Tensor:
        if self._logits is None:
            return product(states, self.matrix.t())
        return torch.mm(states, self.matrix.t(), out=self._logits[: len(states)])

    def _differentiate(self, logits: Tensor, ids: Tensor, shares: Tensor, losses: Tensor) -> None:
        """Write the losses, and over the logits the mean's gradient by them."""
        count = len(logits)
        precise = logits if self._precise is None else self._precise[:count].copy_(logits)
        log_probs = torch.log_softmax(precise, -1, out=self._log_probs[:count])
        torch.neg(log_probs.gather(1, ids).squeeze(1), out=losses)
        by_losses = log_probs.exp_().scatter_add_(1, ids, self._minus_one.expand_as(ids))
        torch.mul(by_losses, shares, out=logits)

    def _add_to_matrix(
        self, total: Tensor, by_logits: Tensor, states: Tensor, *, is_first: bool
    ) -> None:
        if not self._by_onednn and (self._product is None or total.dtype == self._product.dtype):
            if is_first:
                torch.mm(by_logits, states, out=total)
            else:
                torch.addmm(total, by_logits, states, out=total)
            return
        for begin in range(0, len(total), self._slice):
            rows = slice(begin, begin + self._slice)
            into = total[rows]
            made = (
                product(by_logits[rows], states)
                if self._product is None
                else torch.mm(by_logits[rows], states, out=self._product[: len(into)])
            )
            into.copy_(made) if is_first else into.add_(made)
