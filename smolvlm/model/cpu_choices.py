"""What a CPU computes in one of several ways, or in pieces of one of several sizes: which is taken.

The ways differ in their last bits, so the choice of a run is one of its facts: it is kept beside
the run, ranks share it, and a resumed run takes it over (`smolvlm/train/cpu_ways.py`, which also
measures the ways). In a process that made no choice the default is what the CPU's units
suggest.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class CpuChoices:
    """The ways that a process takes on its CPU."""

    bf16_products: bool
    """Attention in bfloat16 by `attention/products.py` instead of torch's SDPA."""
    onednn_products: bool = False
    """Linear layers and attention in float32 by oneDNN (`onednn.py`) instead of MKL."""
    packed_tower: bool = True
    """A frozen tower by `packed_tower.py` where its operations are there."""
    bf16_scores: int = 2**20
    """Scores of attention by products that are there at once in bfloat16, as many as the caches
    hold: 2 MB, best on a Zen 5."""
    float32_scores: int = 2**18
    """The same in float32."""
    float32_rows: int = 384
    """Rows of float32 scores that are computed at once under a causal mask."""
    float32_dense_tokens: int = 128
    """Queries that small conversations are gathered to where a run trains in float32."""

    def scores_at_once(self, dtype: torch.dtype) -> int:
        """Return how many scores of a type are there at once."""
        return self.bf16_scores if dtype == torch.bfloat16 else self.float32_scores


STOCK_CHOICES = CpuChoices(bf16_products=False, packed_tower=False)
"""What torch and transformers do by themselves."""


@cache
def default_choices() -> CpuChoices:
    """Return what the CPU's units suggest.

    torch's SDPA uses AMX's tiles; without these it computes bfloat16 at float32's rate.
    """
    return CpuChoices(bf16_products=has_unit("avx512_bf16") and not has_unit("amx_bf16"))


def has_unit(name: str) -> bool:
    """Say whether torch finds a unit in this CPU, by the name in `torch.cpu.get_capabilities`."""
    if hasattr(torch.cpu, "get_capabilities"):
        return bool(torch.cpu.get_capabilities().get(name, False))
    # Before torch 2.11 private functions for x86 alone.
    older = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return name in older and bool(getattr(torch.cpu, older[name], bool)())


_chosen: CpuChoices | None = None


def current_choices() -> CpuChoices:
    """Return this process's choices."""
    return _chosen or default_choices()


@contextmanager
def using_choices(choices: CpuChoices | None) -> Iterator[None]:
    """Take the ways that were chosen; None is the default."""
    global _chosen
    before = _chosen
    _chosen = choices
    try:
        yield
    finally:
        _chosen = before
