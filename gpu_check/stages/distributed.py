"""Stage 4: what several GPUs will need, on one: sharding, a distributed checkpoint, and generation.

A process group of one (nccl; gloo on a CPU). The model is sharded by torch's own `fully_shard`,
layer by layer, and a pack's loss and gradients must be the unsharded model's. Model and optimizer
go through a distributed checkpoint into a fresh model, whose next step must be the same. Last,
greedy generation gives the stock class's tokens.
"""

import copy
import os
import socket
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.material.models import model_config, packed_twin, random_model, write_plan_folder
from gpu_check.material.rows import Counts, RowWriter
from gpu_check.material.runs import planned_dataset, write_run
from smolvlm.build.configs import tile_side_px
from smolvlm.datasets.packing.pack import on_device
from smolvlm.model.vision import tower_modules

NUM_LAYERS = 2
TOLERANCE = 1e-4
"""Relative, float32: the same kernels run; only sums by atomic additions differ in their order."""
NUM_NEW_TOKENS = 12


def run(settings: Settings, report: Report) -> None:
    """Check the three.

    Raises:
        CheckFailed: one of them gives other numbers than the plain model.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    _join_group(settings.device, report)
    config = model_config("256M", is_tiny=settings.is_tiny, num_layers=NUM_LAYERS)
    folder = write_plan_folder(settings.work_dir / "model", config, tiles_a_side=1)
    writer = RowWriter(settings.work_dir / "rows", picture_side_px=tile_side_px(config))
    mixture = writer.write(Counts(texts=4, pictures=3, questions=2))
    run_file = write_run(settings.work_dir / "run", model_dir=folder, mixture=mixture)
    dataset = planned_dataset(run_file, settings.device)
    pack = on_device(dataset[0].model_tensors(), settings.device)
    stock = random_model(config, settings.device)
    plain = packed_twin(stock, folder)
    errors = _check_sharding(plain, pack, settings, report)
    errors |= _check_generation(stock, plain, pack, report)
    dist.destroy_process_group()
    wrong = {name: value for name, value in errors.items() if not value <= TOLERANCE}
    if wrong:
        raise CheckFailed(f"not the plain model's: {wrong}")


def _join_group(device: str, report: Report) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    backend = "nccl" if device == "cuda" else "gloo"
    started = time.perf_counter()
    dist.init_process_group(backend, rank=0, world_size=1)
    value = torch.ones(4, device=device)
    dist.all_reduce(value)
    report.add(
        backend=backend, group_seconds=time.perf_counter() - started, all_reduce=float(value.sum())
    )


def _check_sharding(
    plain: Any, pack: dict[str, Any], settings: Settings, report: Report
) -> dict[str, float]:
    """Return relative errors of the sharded step, and of the step after a checkpoint."""
    sharded, restored = (_sharded(copy.deepcopy(plain), settings.device) for _ in range(2))
    with torch.no_grad():
        for value in restored.parameters():
            value.zero_()
    started = time.perf_counter()
    expected, expected_norm = _step(plain, pack)
    loss, norm = _step(sharded, pack)
    report.add(
        sharded={"loss": loss, "gradient_norm": norm, "seconds": time.perf_counter() - started}
    )
    optimizers = [
        torch.optim.AdamW(own.parameters(), lr=1e-4) for own in (plain, sharded, restored)
    ]
    for optimizer in optimizers[:2]:
        optimizer.step()
    started = time.perf_counter()
    _through_checkpoint(
        sharded, optimizers[1], restored, optimizers[2], settings.work_dir / "checkpoint"
    )
    report.add(distributed_checkpoint_seconds=time.perf_counter() - started)
    second = [_step(own, pack) for own in (plain, restored)]
    optimizers[0].step()
    optimizers[2].step()
    third = [_step(own, pack)[0] for own in (plain, restored)]
    errors = {
        "sharded loss": _apart(loss, expected),
        "sharded gradient norm": _apart(norm, expected_norm),
        "restored loss": _apart(second[1][0], second[0][0]),
        "restored gradient norm": _apart(second[1][1], second[0][1]),
        "loss a step later": _apart(
            third[1], third[0]
        ),  # holds only if the optimizer's moments came back too
    }
    report.add(errors=errors)
    return errors


def _sharded(model: Any, device: str) -> Any:
    mesh = dist.init_device_mesh(device, (1,))
    tower: Any = tower_modules(model)[0]
    for layer in (*tower.encoder.layers, *model.model.text_model.layers):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def _step(model: Any, pack: dict[str, Any]) -> tuple[float, float]:
    """Return the loss and the norm of all gradients; gradients stay for the optimizer."""
    model.zero_grad(set_to_none=True)
    normalizer = pack["target_weights"].double().sum().float()
    loss = model(pack=pack, normalizer=normalizer).loss
    loss.backward()
    gradients = [_whole(value.grad) for value in model.parameters() if value.grad is not None]
    return float(loss.detach()), float(
        sum(gradient.double().norm() ** 2 for gradient in gradients) ** 0.5
    )


def _whole(value: Any) -> torch.Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _through_checkpoint(
    model: Any, optimizer: Any, restored: Any, its_optimizer: Any, folder: Path
) -> None:
    """Save model and optimizer and load them into others."""
    states = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    dcp.save(states, checkpoint_id=str(folder))
    loaded = dict(zip(("model", "optimizer"), get_state_dict(restored, its_optimizer), strict=True))
    dcp.load(loaded, checkpoint_id=str(folder))
    set_state_dict(
        restored,
        its_optimizer,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
    )


def _apart(value: float, expected: float) -> float:
    return abs(value - expected) / abs(expected)


def _check_generation(
    stock: Any, plain: Any, pack: dict[str, Any], report: Report
) -> dict[str, float]:
    """Return the share of greedily generated tokens that differ between our class and the stock
    one.
    """
    plain.load_state_dict(stock.state_dict())
    side, device = stock.config.vision_config.image_size, pack["input_ids"].device
    image = pack["input_ids"] == stock.config.image_token_id
    first = int(image.nonzero()[0])
    place = slice(max(0, first - 4), first + int((image[first:].cumprod(0)).sum()) + 2)
    inputs = {
        "input_ids": pack["input_ids"][None, place],
        "attention_mask": torch.ones_like(pack["input_ids"][None, place]),
        "pixel_values": torch.rand(1, 1, 3, side, side, device=device) * 2 - 1,
    }
    started = time.perf_counter()
    tokens = [
        own.eval().generate(
            **inputs, do_sample=False, max_new_tokens=NUM_NEW_TOKENS, min_new_tokens=NUM_NEW_TOKENS
        )
        for own in (plain, stock)
    ]
    report.add(
        generation={
            "seconds": time.perf_counter() - started,
            "tokens": tokens[0][0].tolist()[-NUM_NEW_TOKENS:],
        }
    )
    return {"generated tokens": float((tokens[0] != tokens[1]).float().mean())}
