"""How many cores feed one H200; a part of `pipeline`.

In: what a row is (tokens, tiles, learned tokens) and what a loader worker takes of a core for it.
Out: rows a second that the device takes, and the cores that make as many. The device is planned as
`smolvlm plan` plans it, at half of its peak in products; what is no product (norms, the optimizer,
kernel launches) is left out, so a real step takes fewer rows and fewer cores.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from rich.table import Table
from transformers import SmolVLMForConditionalGeneration

from smolvlm.build.configs import published_config
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.plan.devices import named_device
from smolvlm.train.flops import ComputeCost, compute_cost

SIZES = ("256M", "500M", "2.2B")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A row, and its price to the loader."""

    name: str
    tokens: int
    tiles: int
    targets: int
    cpu_s: float
    """Of one core, with its media decoded."""
    cached_cpu_s: float
    """The same where a vision cache has the features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Demand:
    """What a device takes."""

    rows_s: float
    """Rows a second where all is trained."""
    cached_rows_s: float
    """Rows a second with a frozen tower and connector, once their features are kept."""


def demand(size: str, sample: Sample) -> Demand:
    """Return how many rows a second one H200 is expected to take.

    Args:
        size: one of `SIZES`.
        sample: what a row is.
    """
    flops_s = named_device("H200").rates_for(torch.bfloat16).product_flops
    whole = _cost(size, is_frozen=False).pack(
        num_tokens=sample.tokens, num_computed_tiles=sample.tiles, num_targets=sample.targets
    )
    cached = _cost(size, is_frozen=True).pack(
        num_tokens=sample.tokens, num_computed_tiles=0, num_targets=sample.targets
    )
    return Demand(rows_s=flops_s / whole, cached_rows_s=flops_s / cached)


def feeding_table(samples: list[Sample]) -> Table:
    """Return rows a second and cores, by size and kind of row."""
    table = Table("model", "rows", title="cores that keep one H200 busy")
    headings = ("tokens/s", "rows/s", "cores", "features kept: rows/s", "features kept: cores")
    for heading in headings:
        table.add_column(heading, justify="right")
    for size in SIZES:
        for sample in samples:
            needed = demand(size, sample)
            table.add_row(
                size,
                sample.name,
                f"{needed.rows_s * sample.tokens:,.0f}",
                f"{needed.rows_s:.1f}",
                f"{needed.rows_s * sample.cpu_s:.2f}",
                f"{needed.cached_rows_s:.1f}",
                f"{needed.cached_rows_s * sample.cached_cpu_s:.2f}",
            )
    return table


@cache
def _cost(size: str, *, is_frozen: bool) -> ComputeCost:
    """Return the FLOPs of a token, a tile and a learned token."""
    config = published_config(size, model_type="smolvlm")
    with torch.device("meta"):
        model: Any = SmolVLMForConditionalGeneration(config)
    if is_frozen:
        freeze(model, LearningRates(full={"language_model": 1e-5}))
    return compute_cost(model)
