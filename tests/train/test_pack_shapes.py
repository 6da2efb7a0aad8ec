"""Which packs are padded, and that a run of padded packs is the run of the packs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from smolvlm.datasets.packing.buckets import PackBuckets
from smolvlm.datasets.packing.context_share import ContextCut
from smolvlm.model.attention.flex import plan_flex
from smolvlm.model.attention.sdpa import plan_sdpa
from smolvlm.model.attention.varlen import plan_varlen
from smolvlm.model.cpu_choices import CpuChoices, using_choices
from smolvlm.train.pack_shapes import PackShapes, pack_shapes
from tests.train.conftest import TrainRun


def shapes_of(
    pads: bool,
    device: str,
    *,
    context_ranks: int = 1,
    attention: str = "auto",
    bf16: bool = False,
    dtype: str = "float32",
) -> PackShapes:
    train = SimpleNamespace(context_ranks=context_ranks, context_exchange="gather")
    config: Any = SimpleNamespace(
        model=SimpleNamespace(attention=attention, dtype=dtype),
        train=train,
        data=SimpleNamespace(pad_packs=pads),
    )
    arguments: Any = SimpleNamespace(device=torch.device(device), process_index=1, bf16=bf16)
    return pack_shapes(config, arguments, pad_id=2)


@pytest.mark.parametrize(
    ("device", "pads", "is_padded"),
    [
        ("cpu", False, False),
        ("cpu", True, True),
        ("cuda", True, True),
        ("cuda", False, False),
    ],
)
def test_packs_are_padded_as_the_run_says(device: str, pads: bool, is_padded: bool) -> None:
    plan = plan_flex if device == "cuda" else plan_sdpa
    found = shapes_of(pads, device)
    if is_padded:
        buckets = PackBuckets(pad_id=2, plan_attention=plan)
        assert found == PackShapes(plan_attention=None, reshape=buckets)
    else:
        assert found == PackShapes(plan_attention=plan, reshape=None)


def test_they_are_planned_for_the_attention_that_is_asked_for() -> None:
    assert shapes_of(False, "cuda", attention="varlen").plan_attention is plan_varlen
    padded: Any = shapes_of(True, "cuda", attention="varlen").reshape
    assert padded.plan_attention is plan_varlen


def test_small_conversations_are_gathered_as_this_cpu_chose_in_float32() -> None:
    ends = np.arange(1, 13).repeat(20) * 20

    def sizes(**more: Any) -> int:
        plan = shapes_of(False, "cpu", **more).plan_attention
        assert plan is not None
        found: Any = plan(ends)
        return max(block.size for block in found.blocks)

    with using_choices(CpuChoices(bf16_products=True, float32_dense_tokens=64)):
        assert sizes() == 60
        assert sizes(bf16=True) == sizes(dtype="bfloat16") == 120
        assert shapes_of(False, "cuda").plan_attention is plan_flex
    assert sizes() == 120


def test_packs_that_ranks_share_are_cut_instead() -> None:
    assert isinstance(shapes_of(False, "cuda", context_ranks=2).reshape, ContextCut)


COUNTS = ("num_tokens", "num_supervised_tokens", "num_tiles", "pack_fill")


@pytest.mark.parametrize("lr", [0.0, 1e-3])
def test_a_run_of_padded_packs_is_the_run_of_the_packs(
    train_run: TrainRun, tmp_path: Path, lr: float
) -> None:
    """With its vision cache, where the tower is frozen."""
    # Plain gradient descent: Adam would make much of the last bits of a gradient near 0.
    changes = {"train.optim": "sgd", "train.num_train_epochs": 2, "train.vision_tower_lr": lr}
    runs = [
        train_run(tmp_path / name, changes | {"data.pad_packs": pads})
        for name, pads in (("plain", False), ("padded", True))
    ]
    plain, padded = (run.steps for run in runs)
    assert len(plain) == len(padded) > 1
    pack = runs[1].trained.trainer.train_dataset[0]
    assert pack.padding.num_tokens > 0
    for one, other in zip(plain, padded, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-6)
        counted = [name for name in one if name in COUNTS]
        assert len(counted) >= 3
        assert [other[name] for name in counted] == [one[name] for name in counted]
    weights = [load_file(run.folder / "model.safetensors") for run in runs]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-7)
