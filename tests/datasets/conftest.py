"""Rows over real pictures, measured and planned, and the packs that come of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.columns import PlannedPack, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.plan import Plan, PlanSettings, plan_training
from smolvlm.datasets.packing.tiles import ReadFeatures
from smolvlm.datasets.rows.skipped import Policy
from smolvlm.records import Conversation, ImageRef, Turn
from tests.memory_rows import measured_rows

DatasetOf = Callable[..., PackDataset]
Asks = Callable[..., Conversation]


@pytest.fixture(scope="session")
def asks() -> Asks:
    """Makes a row of one question, its blocks as given, and one answer."""

    def make(
        number: int, *blocks: str | ImageRef | Path, answer: str = "yes", source: str = "rows"
    ) -> Conversation:
        own = tuple(ImageRef(path=block) if isinstance(block, Path) else block for block in blocks)
        turns = (Turn(role="user", blocks=own), Turn(role="assistant", blocks=(answer,)))
        return Conversation(turns=turns, where=f"{source}.jsonl:{number}", source=source)

    return make


@pytest.fixture(scope="session")
def dataset_of(prompt: PromptSettings) -> DatasetOf:
    """Makes a data set of rows: of one pack with the samples given as row numbers, or planned as in
    training."""

    def make(
        rows: Sequence[Conversation],
        samples: Sequence[tuple[int, ...]] | None = None,
        *,
        budget: Budget = Budget(max_tokens=700, max_tiles=64),  # noqa: B008 - frozen
        read_features: ReadFeatures | None = None,
        on_bad_sample: Policy = "error",
        order: Sequence[int] | None = None,
    ) -> PackDataset:
        encoder = prompt.encoder()
        measured = measured_rows(rows, prompt)
        if samples is None:
            chosen = PlanSettings(
                budget=budget, packs_per_step=2, share_media=True, max_branches=4, seed=0
            )
            plan = plan_training(measured.lengths, chosen)
        else:
            planned = PlannedPack(samples=tuple(samples), num_tokens=0, num_tiles=0)
            plan = Plan(
                packs=PlannedPacks.of([planned]), packs_per_step=1, epoch_ends=(1,), budget=budget
            )
        return PackDataset(
            measured,
            plan,
            encoder=encoder,
            settings=prompt.media,
            options=PackOptions(
                order=order, read_features=read_features, on_bad_sample=on_bad_sample
            ),
        )

    return make
