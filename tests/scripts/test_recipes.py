"""The recipes: each loads as it stands, says what to expect, and trains for a few steps as a small
twin of itself.

A twin is the recipe with a tiny model of real layout, a few real rows and small packs in place of
what it names; rates, adapters, quantisation, method and schedule stay.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.recipes import SIZES, estimate
from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.config.load import load_run_config
from smolvlm.train.train import train

RUNS = Path(__file__).parents[2] / "scripts" / "runs"
RECIPES = tuple(SIZES)
STEPS = 3


@pytest.fixture(scope="module")
def rows(
    tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path], clips: dict[str, Path]
) -> Callable[[str], Path]:
    """Return the file of a recipe's small rows."""
    folder = tmp_path_factory.mktemp("rows")
    pictures = [
        {"question": question, "answer": answer, "image": str(path)}
        for name, path in photos.items()
        for question, answer in (("What is shown?", name), ("Is it large?", "no"))
    ]
    films = [
        {
            "question": "Describe the clip.",
            "answer": f"A {name} view of coffee.",
            "video": str(clips[name]),
        }
        for name in ("steady", "uneven", "frames")
    ]
    pairs = [
        {
            "prompt": "What is shown?",
            "chosen": name,
            "rejected": f"It is {name}.",
            "images": [str(path)],
        }
        for name, path in photos.items()
    ]
    kinds = {"pictures": pictures, "films": films, "pairs": pairs, "mixed": pictures + films}
    for name, own in kinds.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    named = {"video_captions": "films", "dpo": "pairs", "full_finetune": "mixed"}
    return lambda recipe: folder / f"{named.get(recipe, 'pictures')}.jsonl"


def test_every_recipe_is_here() -> None:
    assert {path.stem for path in RUNS.glob("*.yaml")} == {*RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_loads_and_says_what_to_expect(recipe: str) -> None:
    config = load_run_config(RUNS / f"{recipe}.yaml", [])
    assert config.model.path
    head = "".join(
        line
        for line in (RUNS / f"{recipe}.yaml").read_text().splitlines(keepends=True)
        if line[0] == "#"
    )
    assert f"smolvlm train scripts/runs/{recipe}.yaml" in head
    own = estimate(recipe)
    assert f"{own.state_gb:.1f} GB of weights, gradients and moments" in head
    assert f"{own.pack_tflop:.1f} TFLOP a full pack" in head
    assert all(word in head for word in ("Hardware:", "Memory:", "Time:", "Score:"))


def test_the_published_recipe_trains_the_published_number_of_parameters() -> None:
    assert estimate("vqa_qlora").trained == 10_536_960


@pytest.mark.filterwarnings(
    "ignore:.*Paged optimizers.*:UserWarning"
)  # bitsandbytes: a CPU pages nothing
@pytest.mark.parametrize("recipe", RECIPES)
def test_its_small_twin_trains(
    recipe: str,
    rows: Callable[[str], Path],
    checkpoint_folders: dict[ModelType, Path],
    tmp_path: Path,
) -> None:
    config = load_run_config(
        RUNS / f"{recipe}.yaml",
        [
            f"model.path={checkpoint_folders['smolvlm']}",
            f"data.mixture=[{{json_path: {rows(recipe)}}}]",
            "data.eval_mixture=null",
            "data.allow_outside_root=true",
            "data.image_splitting=false",
            "data.max_tokens_per_pack=320",
            "data.max_tiles_per_pack=32",
            f"train.output_dir={tmp_path / 'run'}",
            "train.packs_per_step=2",
            f"train.max_steps={STEPS}",
            "train.bf16=false",
            "train.use_cpu=true",
            "train.logging_steps=1",
            "train.save_steps=100",
            "train.eval_strategy=no",
            "train.eval_steps=null",
            "eval.at_start=false",
            "train.dataloader_num_workers=0",
        ],
    )
    run = train(config)
    lines = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == STEPS
    assert all(loss == loss and loss < 20 for loss in losses)
    trained = {
        name for name, value in run.checkpoint.model.named_parameters() if value.requires_grad
    }
    assert _towers(trained) == {
        tower for tower, part in _PARTS.items() if config.rate_of(part) > 0
    }, "what the recipe gives a rate trains, and nothing else"
    again: Any = load_checkpoint(str(tmp_path / "run")).model
    assert all(
        torch.isfinite(value).all()
        for value in again.state_dict().values()
        if value.is_floating_point()
    )


_PARTS: dict[str, Any] = {
    "vision_model": "vision",
    "connector": "connector",
    "text_model": "language",
}


def _towers(names: set[str]) -> set[str]:
    return {tower for tower in _PARTS for name in names if f"model.{tower}." in name}
