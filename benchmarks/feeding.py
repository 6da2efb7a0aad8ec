"""How many cores feed one H200; a part of `pipeline`.

In: what a row is (tokens, tiles, learned tokens) and what a loader worker takes of a core for it.
Out: rows a second that `smolvlm plan` expects of the device, and the cores that make as many. A
pack of 8,192 tokens is filled with rows of one kind; how many fit need not be whole.
"""

from dataclasses import dataclass
from functools import cache
from typing import cast

from rich.table import Table

from smolvlm.build.configs import published_config
from smolvlm.config.load import config_from
from smolvlm.plan.devices import named_device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.pack_shape import PackShape, shape_of_conversations
from smolvlm.plan.run_plan import Surroundings, plan_of
from smolvlm.plan.workload import synthetic_workload
from smolvlm.protocols import VisionLanguageConfig

SIZES = ("256M", "500M", "2.2B")
PACK_TOKENS, PACKS_PER_STEP = 8192, 8


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
    count = max(1, PACK_TOKENS // sample.tokens)
    shape = shape_of_conversations(
        count, tokens=sample.tokens, tiles=sample.tiles, targets=sample.targets
    )
    return Demand(
        rows_s=PACKS_PER_STEP * count / _step_s(size, shape, is_frozen=False),
        cached_rows_s=PACKS_PER_STEP * count / _step_s(size, shape, is_frozen=True),
    )


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
def _model(size: str) -> PlannedModel:
    return PlannedModel(config=cast("VisionLanguageConfig", published_config(size)))


def _step_s(size: str, shape: PackShape, *, is_frozen: bool) -> float:
    frozen = {"vision_tower_lr": 0, "connector_lr": 0}
    content = {
        "model": {"path": "HuggingFaceTB/SmolVLM-Instruct", "dtype": "bfloat16"},
        "data": {"mixture": [], "max_tokens_per_pack": PACK_TOKENS, "vision_cache": is_frozen},
        "train": {
            "output_dir": "runs/planned",
            "packs_per_step": PACKS_PER_STEP,
            **(frozen if is_frozen else {"vision_tower_lr": 1e-5}),
        },
    }
    config = config_from(content, [], where="benchmark")
    workload = synthetic_workload(
        shape, num_packs=2 * PACKS_PER_STEP, packs_per_step=PACKS_PER_STEP
    )
    around = Surroundings(device=named_device("H200"), uses_bf16=True)
    plan = plan_of(config, _model(size), lambda _: workload, around)
    return plan.time.later_step_s if is_frozen else plan.time.first_step_s
