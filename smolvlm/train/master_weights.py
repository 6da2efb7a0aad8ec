"""bfloat16 weights that compute, float32 master weights that are stepped: `train.master_weights`.

In: a float32 model that trains under bfloat16 autocast. Out: the same model, its linear layers'
parameters in bfloat16, and for each that trains its float32 values beside it. Autocast rounds every
such weight in each pack's forward, and brings its gradient back to float32 in the backward; here
both are done once: weights are rounded behind the optimizer's step, and a pack's gradients are
added to the masters' in few large operations. Values, roundings and sums are autocast's own, so
that losses, gradients and weights are equal to the bit; only operations are fewer.

- Norms, embeddings, the output head and the patch embedding stay float32: autocast computes with
  them in float32, or rounds them once a pack.
- The optimizer, clipping and a checkpoint see the masters, by the names of the weights they are of
  (`stepped`, `in_float32`). What is saved was never rounded.
- A gradient stays in bfloat16 until those of `CHUNK_BYTES` are there, or the backward pass ends.
- Several ranks sum the masters' gradients once a step, in float32: what DDP sums are the gradients
  of the last pack alone, as those of earlier packs have left the weights by then.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

_foreach: Any = torch
"""`_foreach_*`, the operations on lists that torch's optimizers are made of; not in its stubs."""
CHUNK_BYTES = 64 * 2**20
"""Of float32 gradients that are added, or summed over ranks, in one operation: what they need
besides themselves."""


class MasterWeights:
    """The float32 values of a model's bfloat16 weights."""

    def __init__(self, model: nn.Module, *, keeps_frozen: bool = True) -> None:
        """
        Args:
            model: float32, on its device, parameters already frozen or not; changed in place.
            keeps_frozen: whether the weights that do not train are saved as well. Those that
                bfloat16 cannot hold then keep their float32 values in main memory.
        """
        self._masters: dict[nn.Parameter, nn.Parameter] = {}
        self._frozen: dict[nn.Parameter, Tensor | None] = {}
        self._arrived: list[nn.Parameter] = []
        self._arrived_bytes = 0
        self._hooks: list[Any] = []
        for live in rounded_parameters(model):
            whole = live.data
            rounded = whole.to(torch.bfloat16)
            if live.requires_grad:
                self._masters[live] = nn.Parameter(whole)
                self._hooks.append(live.register_post_accumulate_grad_hook(self._arrive))
            elif keeps_frozen:
                is_exact = torch.equal(rounded.float(), whole)
                self._frozen[live] = None if is_exact else whole.cpu()
            live.data = rounded
        self._stepped = _Stepped(model, self._masters)

    def __str__(self) -> str:
        size = sum(master.numel() for master in self._masters.values())
        return (
            f"master weights: {len(self._masters)} tensors of {size:,} values compute in bfloat16 "
            "and are stepped in float32"
        )

    @property
    def stepped(self) -> nn.Module:
        """The model's parameters as the optimizer has them, by the model's names."""
        return self._stepped

    def _arrive(self, live: nn.Parameter) -> None:
        """Note that a backward pass has made a weight's gradient."""
        self._arrived.append(live)
        self._arrived_bytes += 4 * live.numel()
        if self._arrived_bytes >= CHUNK_BYTES:
            self.add_gradients()

    def add_gradients(self) -> None:
        """Add the gradients that are in the weights to the masters'; behind each backward pass."""
        for lives in _chunks(self._arrived):
            gradients: list[Any] = [live.grad for live in lives]
            masters = [self._masters[live] for live in lives]
            brought: list[Tensor] = [torch.empty_like(master) for master in masters]
            _foreach._foreach_copy_(brought, gradients)
            there = [master.grad for master in masters]
            later = [number for number, total in enumerate(there) if total is not None]
            if later:
                totals: list[Any] = [there[number] for number in later]
                _foreach._foreach_add_(totals, [brought[number] for number in later])
            for live, master, value in zip(lives, masters, brought, strict=True):
                live.grad = None
                if master.grad is None:
                    master.grad = value
        self._arrived.clear()
        self._arrived_bytes = 0

    def mean_over_ranks(self, sum_in_place: Callable[[Tensor], object], *, num_ranks: int) -> None:
        """Average the gradients of all parameters that train; every rank calls it.

        Args:
            sum_in_place: sums a tensor over the ranks.
            num_ranks: how many there are.
        """
        trained = [value for value in self._stepped.parameters() if value.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for values in _chunks(trained):
            gradients: list[Any] = [value.grad for value in values]
            flat = torch.cat([gradient.flatten() for gradient in gradients]).div_(num_ranks)
            sum_in_place(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])
            _foreach._foreach_copy_(
                gradients,
                [part.view_as(of) for part, of in zip(parts, gradients, strict=True)],
            )

    def round_again(self, *_: object) -> None:
        """Let the weights follow the masters, whose gradients are done with: behind a step."""
        with torch.no_grad():
            _foreach._foreach_copy_(list(self._masters), list(self._masters.values()))
        for master in self._masters.values():
            master.grad = None

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """Let the model hold its float32 values, to be saved or loaded; then round them again."""
        rounded: dict[nn.Parameter, Tensor] = {}
        for live, whole in self._whole():
            rounded[live], live.data = live.data, whole
        try:
            yield
        finally:
            for live, values in rounded.items():
                live.data = values.copy_(live.data)

    def release(self) -> None:
        """Give the model its float32 values for good."""
        for live, whole in self._whole():
            live.data = whole.to(live.device)
        for hook in self._hooks:
            hook.remove()

    def _whole(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for live, master in self._masters.items():
            yield live, master.data
        for live, kept in self._frozen.items():
            yield live, live.data.cpu().float() if kept is None else kept


class _Stepped(nn.Module):
    """A model's parameters, masters in place of those that follow them."""

    def __init__(self, model: nn.Module, masters: Mapping[nn.Parameter, nn.Parameter]) -> None:
        super().__init__()
        self._model = model
        self._masters = masters

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Parameter]]:
        for name, value in self._model.named_parameters(*args, **kwargs):
            yield name, self._masters.get(value, value)


def rounded_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return what autocast rounds in every pack: linear layers' parameters, adapters' included.

    The output head is left out: it is often the embedding, and its gradient is summed in its type.
    """
    kept = {id(value) for value in model.get_submodule("lm_head").parameters()}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            kept.update(id(value) for value in module.parameters())
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    values = chain.from_iterable(module.parameters(recurse=False) for module in linears)
    found = {id(value): value for value in values}
    return [
        value
        for number, value in found.items()
        if number not in kept and value.dtype == torch.float32
    ]


def _chunks(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Cut a list where its float32 values pass `CHUNK_BYTES`."""
    chunk: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        if chunk and size + 4 * parameter.numel() > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(parameter)
        size += 4 * parameter.numel()
    if chunk:
        yield chunk
