"""A step over fake tensors against the same step over true ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.base import read_base
from smolvlm.config.quantization import quantization_of
from smolvlm.model.cpu_choices import STOCK_CHOICES, using_choices
from smolvlm.model.flops import tile_flops
from smolvlm.plan.fake_run import PlannedModel, fake_run
from smolvlm.plan.pack_shape import pack_inputs, shape_of_conversations
from smolvlm.train.run_model import load_run_model

SHAPE = shape_of_conversations(3, tokens=40, tiles=2, targets=6)
VARIANTS = {
    "frozen tower": (),
    "full": ("train.vision_tower_lr=1e-5",),
    "checkpointing": ("train.vision_tower_lr=1e-5", "train.activation_checkpointing=true"),
    "checkpointing of the language model": (
        "train.vision_tower_lr=1e-5",
        "train.activation_checkpointing=language_model",
    ),
    "checkpointing of the tower": (
        "train.vision_tower_lr=1e-5",
        "train.activation_checkpointing=vision_tower",
    ),
    "lora": ("adapters.language.type=lora", "train.connector_lr=0"),
    "dora": ("adapters.language.type=dora",),
}


class Dispatched(TorchDispatchMode):
    """Counts the operations that torch dispatches, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "device" not in func.name():
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_flops_are_those_of_the_true_step(
    variant: str, run_config: Any, checkpoint_folders: dict[ModelType, Path]
) -> None:
    config = run_config(*VARIANTS[variant])
    base = read_base(str(checkpoint_folders["smolvlm"]))
    with fake_run(config, PlannedModel.of(base)) as run:
        trace = run.trace(SHAPE)
    model = load_run_model(config, base, uses_bf16=False).checkpoint.model
    if model.checkpointed_towers:
        stock: Any = model
        stock.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    pack = pack_inputs(SHAPE, model.config)
    # torch's own counter knows no products of oneDNN's.
    with using_choices(STOCK_CHOICES), FlopCounterMode(display=False) as counter:
        model(pack=pack, normalizer=1.0).loss.backward()
    products = sum(
        totals.flops for (kind, _), totals in trace.operations.items() if kind == "product"
    )
    # torch's own counter knows no attention of the CPU.
    assert products == counter.get_total_flops()


def test_a_fake_step_dispatches_what_a_true_one_does(
    run_config: Any, checkpoint_folders: dict[ModelType, Path]
) -> None:
    config = run_config("train.vision_tower_lr=1e-5")
    base = read_base(str(checkpoint_folders["smolvlm"]))
    model = load_run_model(config, base, uses_bf16=False).checkpoint.model.train()
    with Dispatched() as true:
        model(pack=pack_inputs(SHAPE, model.config), normalizer=1.0).loss.backward()
    with fake_run(config, PlannedModel.of(base)) as run, Dispatched() as fake:
        run._run(pack_inputs(SHAPE, run.model.config), learns=True)
    assert fake.names == true.names


def test_parameters_and_what_trains_are_the_runs(
    run_config: Any, checkpoint_folders: dict[ModelType, Path]
) -> None:
    config = run_config("adapters.language.type=lora")
    base = read_base(str(checkpoint_folders["smolvlm"]))
    true = load_run_model(config, base, uses_bf16=False).checkpoint.model
    with fake_run(config, PlannedModel.of(base)) as run:
        found = {
            name: (value.shape, value.dtype, value.requires_grad)
            for name, value in run.model.named_parameters()
        }
    assert found == {
        name: (value.shape, value.dtype, value.requires_grad)
        for name, value in true.named_parameters()
    }


def test_checkpointing_computes_more_and_keeps_less(
    run_config: Any, planned_model: PlannedModel
) -> None:
    long = shape_of_conversations(1, tokens=2000, tiles=40, targets=4)
    traces = {}
    for name, variant in VARIANTS.items():
        if name == "full" or name.startswith("checkpointing"):
            with fake_run(run_config(*variant), planned_model) as run:
                traces[name] = run.trace(long)
    kept, both = traces["full"], traces["checkpointing"]
    assert both.flops > 1.15 * kept.flops
    assert both.small_bytes < 0.8 * kept.small_bytes
    alone = [traces[f"checkpointing of the {tower}"] for tower in ("language model", "tower")]
    assert sum(trace.flops - kept.flops for trace in alone) == both.flops - kept.flops
    for trace in alone:
        assert trace.flops > kept.flops
        assert both.small_bytes < trace.small_bytes < kept.small_bytes


def test_cached_features_skip_the_tower(run_config: Any, planned_model: PlannedModel) -> None:
    with fake_run(run_config(), planned_model) as run:
        assert run.keeps_features
        first, later = run.trace(SHAPE), run.trace(SHAPE, is_cached=True)
    with fake_run(run_config(), planned_model) as run:
        tower = 3 * 2 * tile_flops(run.model.config.vision_config)
    products = [
        sum(totals.flops for (kind, _), totals in trace.operations.items() if kind == "product")
        for trace in (first, later)
    ]
    scores = 3 * 2 * 2 * 4 * 16**2 * 32
    assert products[0] - products[1] == tower - scores


def test_bf16_moves_products_to_bf16(run_config: Any, planned_model: PlannedModel) -> None:
    with fake_run(run_config(), planned_model, uses_bf16=True) as run:
        operations = run.trace(SHAPE).operations
    assert operations["product", torch.bfloat16].flops > 0
    assert ("product", torch.float32) not in operations


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_weights_are_restored_in_the_step(
    bits: int, run_config: Any, planned_model: PlannedModel
) -> None:
    settings = ("adapters.language.type=lora", "train.connector_lr=0")
    with fake_run(run_config(*settings), planned_model) as run:
        plain = run.trace(SHAPE)
    with fake_run(run_config(*settings, f"quantization.bits={bits}"), planned_model) as run:
        assert run.config.quantization == quantization_of({"bits": bits})
        quantised = run.trace(SHAPE)
    assert quantised.peak["weights"] < plain.peak["weights"]
    assert quantised.flops == plain.flops
    assert (("unpack", torch.float32) in quantised.operations) == (bits == 4)


def test_gradients_of_an_earlier_pack_are_there(
    run_config: Any, planned_model: PlannedModel
) -> None:
    with fake_run(run_config(), planned_model) as run:
        first, second = run.trace(SHAPE), run.trace(SHAPE, accumulates=True)
        trained = sum(value.numel() * 4 for value in run.model.parameters() if value.requires_grad)
    assert second.peak["gradients"] == trained
    assert second.peak_bytes > first.peak_bytes
