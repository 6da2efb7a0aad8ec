"""Shapes of packs against the packs themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.columns import PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.plan import Plan, PlanSettings, plan_training
from smolvlm.plan.pack_shape import pack_inputs, shape_of, shape_of_conversations
from smolvlm.protocols import VisionLanguageConfig
from smolvlm.records import Conversation, ImageRef, Turn
from tests.memory_rows import measured_rows


def asked(photo: ImageRef, question: str, number: int) -> Conversation:
    turns = (
        Turn(role="user", blocks=(photo, question)),
        Turn(role="assistant", blocks=("A cup." * number,)),
    )
    return Conversation(turns=turns, where=f"rows:{number}", source="rows")


def test_a_shape_is_the_shape_of_its_pack(
    photos: dict[str, Path], prompt: PromptSettings, tiny_config: VisionLanguageConfig
) -> None:
    first, second = (ImageRef(path=photos[name]) for name in ("coffee", "rocket"))
    rows = [
        asked(first, "What?", 1),
        asked(first, "What else?", 2),
        asked(second, "And here?", 3),
    ]
    measured = measured_rows(rows, prompt)
    settings = PlanSettings(
        budget=Budget(max_tokens=4096, max_tiles=64),
        packs_per_step=1,
        share_media=True,
        max_branches=16,
        seed=0,
    )
    plan: Plan = plan_training(measured.lengths, settings)
    assert isinstance(plan.packs, PlannedPacks)
    data = PackDataset(measured, plan, encoder=prompt.encoder(), settings=prompt.media)
    assert len(data) == 1
    pack = data[0]
    shape = shape_of([data.example(rows) for rows in plan.packs[0].samples])
    made = pack_inputs(shape, tiny_config)
    for name, value in pack.model_tensors().items():
        if isinstance(value, torch.Tensor):
            assert made[name].shape == value.shape, name
            assert made[name].dtype == value.dtype, name
        elif name != "attention":
            assert made[name] is None, name
    assert np.array_equal(shape.scope_end, pack.scope_end.numpy())
    assert len(data.example(plan.packs[0].samples[0]).input_ids) < shape.num_tokens


@pytest.mark.parametrize(("tiles_a_slot", "slots"), [(1, (1, 1, 1, 1, 1)), (2, (2, 2, 1))])
def test_equal_conversations(tiles_a_slot: int, slots: tuple[int, ...]) -> None:
    shape = shape_of_conversations(2, tokens=50, tiles=5, targets=4, tiles_a_slot=tiles_a_slot)
    assert (shape.num_tokens, shape.num_tiles, shape.num_targets) == (100, 10, 8)
    assert shape.slot_sizes == slots * 2
    assert shape.scope_end.tolist() == [50] * 50 + [100] * 50
