"""The best checkpoint and early stopping, in real runs whose scores are given."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from smolvlm.train.checkpoint_folder import own_checkpoints, step_of
from tests.train.conftest import FinishedRun, TrainRun

BY_STEP = {2: 0.2, 4: 0.9, 6: 0.5, 8: 0.4, 10: 0.3, 12: 0.95}


@pytest.fixture
def changes(words_alone: dict[str, Any], rows_folder: Path) -> dict[str, Any]:
    """Twelve steps, evaluated after every second."""
    return words_alone | {
        "data.eval_mixture": [{"json_path": str(rows_folder / "words.jsonl")}],
        "train.num_train_epochs": 2.4,
        "train.packs_per_step": 1,
        "train.eval_strategy": "steps",
        "train.eval_steps": 2,
        "train.save_strategy": "steps",
        "train.save_steps": 100,
        "train.logging_steps": 1,
        "eval.best_by": "exact_match",
    }


class Scores:
    """Says what the evaluations of a run find, by their turn."""

    def __init__(self, *, first: int = 2) -> None:
        self.asked: list[int] = []
        self._next = first

    def __call__(self, _: object) -> dict[str, float]:
        step, self._next = self._next, self._next + 2
        self.asked.append(step)
        return {"exact_match": BY_STEP[step], "loss": 1.0}


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def are_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one.keys() | other.keys())


def steps_of(run: FinishedRun) -> list[int | None]:
    return [step_of(folder) for folder in own_checkpoints(run.folder)]


@pytest.fixture
def train_scored(train_run: TrainRun, changes: dict[str, Any]) -> Callable[..., Any]:
    """Trains with the scores of `BY_STEP`."""

    def run(folder: Path, *, first: int = 2, **more: Any) -> tuple[FinishedRun, Scores]:
        scores = Scores(first=first)
        settings = changes | {name.replace("__", "."): value for name, value in more.items()}
        return train_run(folder, settings, make_evaluate=lambda *_: scores), scores

    return run


def test_each_new_best_is_saved_and_the_run_ends_with_it(
    train_scored: Callable[..., Any], tmp_path: Path
) -> None:
    run, scores = train_scored(tmp_path, train__num_train_epochs=2)
    assert scores.asked == [2, 4, 6, 8, 10]
    assert {2, 4} <= set(steps_of(run)) <= {2, 4, 10}
    assert are_equal(weights(run.folder), weights(run.folder / "checkpoint-4"))
    assert run.trained.trainer.state.best_global_step == 4


def test_rotation_keeps_the_best(train_scored: Callable[..., Any], tmp_path: Path) -> None:
    run, _ = train_scored(
        tmp_path, train__num_train_epochs=2, train__save_total_limit=1, train__save_steps=3
    )
    assert steps_of(run) == [4, 10], "the best, and the last, which a run is resumed from"


def test_without_anything_better_training_ends(
    train_scored: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, scores = train_scored(tmp_path, eval__patience=2)
    assert scores.asked == [2, 4, 6, 8]
    assert steps_of(run) == [2, 4, 8]
    assert are_equal(weights(run.folder), weights(run.folder / "checkpoint-4"))
    assert (
        "stopped at step 8 of 12: exact_match was best at step 4 (0.9000), 2 evaluations ago "
        "(eval.patience)"
    ) in capsys.readouterr().err


def test_a_run_that_stopped_is_done_and_more_patience_goes_on(
    train_scored: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = train_scored(tmp_path, eval__patience=2)
    ended_with = weights(run.folder)
    (run.folder / "model.safetensors").unlink()
    again, scores = train_scored(tmp_path, eval__patience=2)
    assert scores.asked == []
    assert again.trained.was_done
    assert are_equal(weights(run.folder), ended_with)
    assert "it stopped early, at step 8 of 12: more eval.patience" in capsys.readouterr().err
    longer, scores = train_scored(tmp_path, first=10, eval__patience=4)
    assert scores.asked == [10, 12]
    assert not longer.trained.was_done
    assert are_equal(weights(run.folder), weights(run.folder / "checkpoint-12"))


def test_a_killed_run_stops_where_it_would_have_stopped(
    train_scored: Callable[..., Any], tmp_path: Path
) -> None:
    """Killed after step 7: its evaluation at 6 was one without anything better, and counts."""
    asked = {"eval__patience": 2, "train__save_steps": 7}
    whole, _ = train_scored(tmp_path / "whole", **asked)
    assert steps_of(whole) == [2, 4, 7, 8]
    killed = tmp_path / "killed"
    shutil.copytree(tmp_path / "whole", killed)
    out = killed / whole.folder.relative_to(tmp_path / "whole")
    shutil.rmtree(out / "checkpoint-8")
    (out / "model.safetensors").unlink()
    resumed, scores = train_scored(killed, first=8, **asked)
    assert resumed.folder == out
    assert scores.asked == [8]
    assert steps_of(resumed) == [2, 4, 7, 8]
    assert are_equal(weights(out), weights(whole.folder))
    assert Path(str(resumed.trained.trainer.state.best_model_checkpoint)).parent == out


def test_adapters_are_taken_up_again_too(train_scored: Callable[..., Any], tmp_path: Path) -> None:
    asked = {"eval__patience": 2, "adapters__language": "lora"}
    run, _ = train_scored(tmp_path, **asked)
    best = load_file(run.folder / "checkpoint-4" / "adapter_model.safetensors")
    assert are_equal(load_file(run.folder / "adapter_model.safetensors"), best)
    again, _ = train_scored(tmp_path, **asked)
    assert again.trained.was_done
    assert are_equal(load_file(run.folder / "adapter_model.safetensors"), best)
