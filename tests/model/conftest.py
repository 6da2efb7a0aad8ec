"""Tiny models in memory, and packs of drawn pictures, for the tests of this room."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.columns import PlannedPack, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.pack import Pack
from smolvlm.datasets.packing.plan import Plan
from smolvlm.datasets.packing.tiles import ReadFeatures
from smolvlm.records import Conversation, ImageRef, Turn
from tests.memory_rows import measured_rows
from tests.tiny_models import checkpoint, folder, loaded, model_type  # noqa: F401 - fixtures

BUDGET = Budget(max_tokens=4096, max_tiles=256)

PackOf = Callable[..., Pack]


@pytest.fixture(scope="session")
def picture() -> Callable[[int], ImageRef]:
    """Makes a picture of noise, 70 x 40 px, from a seed: a grid of 3 x 4 tiles and a global
    view."""

    def make(seed: int) -> ImageRef:
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 70, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        return ImageRef(data=buffer.getvalue())

    return make


@pytest.fixture(scope="session")
def pack_of(prompt: PromptSettings) -> PackOf:
    """Makes one pack of single-turn rows, each (pictures, question, answer), none of them a
    tree."""

    def make(
        rows: Sequence[tuple[Sequence[ImageRef], str, str]],
        *,
        read_features: ReadFeatures | None = None,
    ) -> Pack:
        conversations = [
            Conversation(
                turns=(
                    Turn(role="user", blocks=(*pictures, question)),
                    Turn(role="assistant", blocks=(answer,)),
                ),
                where=f"rows.jsonl:{number}",
                source="rows",
            )
            for number, (pictures, question, answer) in enumerate(rows, start=1)
        ]
        measured = measured_rows(conversations, prompt)
        planned = PlannedPack(
            samples=tuple((row,) for row in range(len(rows))), num_tokens=0, num_tiles=0
        )
        dataset = PackDataset(
            measured,
            Plan(
                packs=PlannedPacks.of([planned]), packs_per_step=1, epoch_ends=(1,), budget=BUDGET
            ),
            encoder=prompt.encoder(),
            settings=prompt.media,
            options=PackOptions(read_features=read_features),
        )
        return dataset[0]

    return make


@pytest.fixture
def noise_tiles() -> torch.Tensor:
    """Three tiles of noise, uint8, of the tiny checkpoints' side."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=generator)
