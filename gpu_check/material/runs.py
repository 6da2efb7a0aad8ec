"""Run files and packs, by the way that a user's run takes.

In: a model folder, a mixture and settings. Out: a `RunConfig` read from a run file, the data set of
its packs, and packs on a device.
"""

import json
from pathlib import Path
from typing import Any

from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.model.attention.rule import attention_planner
from smolvlm.train.planned_rows import plan_run

ALL_TRAINED = {"vision_tower_lr": 5e-6, "connector_lr": 1e-4, "language_model_lr": 2e-5}


def write_run(
    folder: Path,
    *,
    model_dir: Path,
    mixture: list[dict[str, Any]],
    data: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    **sections: dict[str, Any],
) -> Path:
    """Write a run file and return it; its output folder is `out` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "model": {"path": str(model_dir)},
        "data": {"mixture": mixture, "image_splitting": False, **(data or {})},
        "train": {
            "output_dir": str(folder / "out"),
            "disable_tqdm": True,
            "save_strategy": "no",
            **(train or {}),
        },
        **sections,
    }
    file = folder / "run.yaml"
    file.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return file


def planned_dataset(run_file: Path, device: str) -> PackDataset:
    """Return the packs that a run file plans, their attention planned for a kind of device.

    No weights are read and no vision cache is asked.
    """
    config: RunConfig = load_run_config(run_file)
    prompt, planned = plan_run(config)
    encoder = prompt.encoder(loss_weighting=config.data.loss_weighting)
    return PackDataset(
        planned.measured,
        planned.plan,
        encoder=encoder,
        settings=prompt.media,
        options=PackOptions(plan_attention=attention_planner(device)),
    )
