"""Whether training still computes numbers: a loss or a weight that is none ends the run at once.

In: every pack's loss. Out: an error with the steps and their rows, at the next log line or
checkpoint, where the ranks meet and the device is waited for anyway; no step waits for it. The
checkpoint that would have been written then is not, so the last healthy one stays.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from smolvlm.errors import SmolVLMError
from smolvlm.train.engines.sharding import local_of
from smolvlm.train.worker_notes import listed

SumOverRanks = Callable[[Tensor], Tensor]


class NotFiniteError(SmolVLMError):
    """The loss, a gradient or a weight is infinite or not a number."""


class FiniteWatch:
    """What was computed since the last look, as one flag on the device."""

    def __init__(self) -> None:
        self._is_finite: Tensor | None = None
        self._rows: list[tuple[int, str]] = []

    def add(self, loss: Tensor, *, step: int, rows: Sequence[str]) -> None:
        """Note a pack's loss, and which rows it is of; nothing waits for the device."""
        is_finite = torch.isfinite(loss.detach()).all()
        self._is_finite = is_finite if self._is_finite is None else self._is_finite & is_finite
        self._rows += [(step, row) for row in rows]

    def check(
        self,
        sum_over_ranks: SumOverRanks,
        *,
        step: int,
        grad_norm: float | None = None,
        model: nn.Module | None = None,
    ) -> None:
        """Raise on every rank if anything since the last look was not finite on any of them.

        Args:
            sum_over_ranks: sums a CPU tensor over the ranks.
            step: the last that is done.
            grad_norm: of the last step, where it is known.
            model: whose trained weights are looked at too, before they are saved.

        Raises:
            NotFiniteError: with the steps, their rows and what to do.
        """
        is_loss_finite = self._is_finite is None or bool(self._is_finite)
        is_gradient_finite = grad_norm is None or bool(torch.isfinite(torch.tensor(grad_norm)))
        are_weights_finite = model is None or _are_finite(model)
        rows, self._rows, self._is_finite = self._rows, [], None
        flags = [is_loss_finite, is_gradient_finite, are_weights_finite]
        total = sum_over_ranks(torch.tensor([float(not flag) for flag in flags]))
        bad = [
            name
            for name, count in zip(("loss", "gradient", "weights"), total.tolist(), strict=True)
            if count
        ]
        if not bad:
            return
        steps = sorted({number for number, _ in rows}) or [step]
        span = f"step {steps[0]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
        read = listed([row for _, row in rows])
        raise NotFiniteError(
            f"the {' and the '.join(bad)} became infinite or not a number"
            + (f" over these rows of this rank: {read}" if read else ""),
            where=span,
            fix="lower the learning rate, or train.max_grad_norm; or look at these rows "
            "(`smolvlm inspect`); the newest checkpoint is from before",
        )


def _are_finite(model: nn.Module) -> bool:
    flags = [
        torch.isfinite(local_of(value)).all() for value in model.parameters() if value.requires_grad
    ]
    return not flags or bool(torch.stack(flags).all())
