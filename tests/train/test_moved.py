"""A run of two ranks that was killed goes on with one rank, or with four: the same rows, the same
losses."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.train.runs_apart import runs_apart

KILLED_IN_STEP, CHECKPOINT = 9, 6
RANKS = (1, 4)
CHILD_TIMEOUT_S = 400


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def moved(
    write_run: Any, plain_changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[int, Path]:
    """Output folders by the number of ranks that went on."""
    root = tmp_path_factory.mktemp("moved")
    changes = plain_changes | {
        "train.save_strategy": "steps",
        "train.save_steps": CHECKPOINT,
        "train.ddp_backend": "gloo",
        "train.dataloader_num_workers": 1,
    }
    first = write_run(root / "first", changes)
    # Another number of workers besides: who builds a pack has no say either.
    others = [
        write_run(root / str(ranks), changes | {"train.dataloader_num_workers": 0})
        for ranks in RANKS
    ]
    with runs_apart(
        "moved_runs.py", KILLED_IN_STEP, first, *others, logs=root, timeout_s=CHILD_TIMEOUT_S
    ):
        pass
    return {ranks: root / str(ranks) / "out" for ranks in RANKS}


@pytest.mark.parametrize("ranks", RANKS)
def test_it_went_on_from_the_checkpoint(moved: dict[int, Path], ranks: int) -> None:
    messages = (moved[ranks].parent / "rank-0.log").read_text()
    assert f"resuming from {moved[ranks] / f'checkpoint-{CHECKPOINT}'}\n" in messages
    assert f"step {CHECKPOINT + 1}/" in messages


@pytest.mark.parametrize("ranks", RANKS)
def test_every_step_learns_from_the_rows_it_would_have(
    moved: dict[int, Path], ranks: int, plain_run: Any
) -> None:
    assert rows(moved[ranks] / "samples.jsonl") == rows(plain_run.folder / "samples.jsonl")


@pytest.mark.parametrize("ranks", RANKS)
def test_losses_and_weights_are_equal_but_for_rounding(
    moved: dict[int, Path], ranks: int, plain_run: Any
) -> None:
    ours = [row for row in rows(moved[ranks] / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in ours] == [row["step"] for row in plain_run.steps]
    for own, other in zip(ours, plain_run.steps, strict=True):
        assert own["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert own["num_tokens"] == other["num_tokens"]
    weights, theirs = (
        load_file(folder / "model.safetensors") for folder in (moved[ranks], plain_run.folder)
    )
    # Softmax cancels it: its gradient is rounding alone, which Adam makes as large as any.
    noise = "k_proj.bias"
    errors = {
        name: float((weights[name] - value).norm() / value.norm())
        for name, value in theirs.items()
        if not name.endswith(noise)
    }
    assert max(errors.values()) < 1e-5
