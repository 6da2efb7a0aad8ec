"""Memory of QLoRA on the 2.2B model in 8 bits, four rows a step.

The published figure for these settings is about 16 GB. Runs where bitsandbytes is installed,
through the product's `train`. Pictures are cut into up to 17 tiles, as they were there.
"""

import time
from importlib.util import find_spec
from typing import Any

import torch

import smolvlm.train.train as product
from gpu_check.contract import CheckSkipped, Report, Settings
from gpu_check.material.models import model_config, write_folder
from gpu_check.material.rows import Counts, RowWriter
from gpu_check.material.runs import write_run
from gpu_check.stages.timing import peak_gb, reset_peak
from smolvlm.build.configs import tile_side_px
from smolvlm.config.load import load_run_config

NUM_STEPS = 3
ROWS_A_STEP = 4
TILES_A_SIDE = 4
PUBLISHED_GB = 16.4


def run(settings: Settings, report: Report) -> None:
    """Train three steps and note the most memory that tensors took.

    Raises:
        CheckSkipped: bitsandbytes is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise CheckSkipped(
            "bitsandbytes is not installed, and its wheel is too large to be carried"
        )
    config = model_config("2.2B", is_tiny=settings.is_tiny)
    folder = settings.work_dir / "model"
    write_folder(folder, config, settings.device, tiles_a_side=TILES_A_SIDE, dtype=torch.bfloat16)
    side_px = TILES_A_SIDE * tile_side_px(config)
    writer = RowWriter(settings.work_dir / "rows", picture_side_px=side_px)
    mixture = writer.write(Counts(pictures=NUM_STEPS * ROWS_A_STEP))
    run_file = write_run(
        settings.work_dir / "run",
        model_dir=folder,
        mixture=mixture,
        data={"image_splitting": True, "max_tokens_per_pack": 8192, "max_tiles_per_pack": 96},
        train=_training(settings),
        adapters={"language": {"type": "lora", "r": 8, "alpha": 8, "dropout": 0.1}},
        quantization={"bits": 8},
    )
    reset_peak(settings.device)
    started = time.perf_counter()
    trained = product.train(load_run_config(run_file))
    plan = trained.planned.plan
    report.add(
        seconds=time.perf_counter() - started,
        steps=plan.num_steps,
        tokens_a_step=int(trained.planned.measured.lengths.num_tokens.sum()) // plan.num_steps,
        peak_gb=peak_gb(settings.device),
        published_gb=PUBLISHED_GB,
    )


def _training(settings: Settings) -> dict[str, Any]:
    return {
        "language_model_lr": 1e-4,
        "connector_lr": 0.0,
        "vision_tower_lr": 0.0,
        "packs_per_step": 1,
        "bf16": settings.device == "cuda",
        "use_cpu": settings.device == "cpu",
        "logging_steps": 1,
        "activation_checkpointing": True,
    }
