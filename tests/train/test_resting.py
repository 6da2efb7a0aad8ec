"""What is evaluated and saved under an optimizer with two sets of weights is the set that is
meant for it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import Trainer

from smolvlm.train.resting import rest_optimizer
from tests.train.conftest import FinishedRun, TrainRun

NAME = "model.text_model.norm.weight"


class TwoSets(torch.optim.SGD):
    """Plain descent that leaves the mean of all its points when it rests, as the schedule-free ones
    do."""

    def __init__(self, groups: Any, lr: float) -> None:
        super().__init__(groups, lr=lr)
        for group in self.param_groups:
            group["is_training"] = False

    @torch.no_grad()
    def _switch(self, *, to_training: bool) -> None:
        for group in self.param_groups:
            if group["is_training"] == to_training:
                continue
            group["is_training"] = to_training
            for parameter in group["params"]:
                other = self.state[parameter].setdefault("other", parameter.clone())
                kept = parameter.clone()
                parameter.copy_(other)
                other.copy_(kept)

    def train(self) -> None:
        self._switch(to_training=True)

    def eval(self) -> None:
        self._switch(to_training=False)

    def step(self, closure: Any = None) -> Any:
        assert all(group["is_training"] for group in self.param_groups)
        result = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                other = self.state[parameter].setdefault("other", parameter.clone())
                other.lerp_(parameter.detach(), 0.25)
        return result


@pytest.fixture
def two_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Trainer, "get_optimizer_cls_and_kwargs", staticmethod(lambda *_: (TwoSets, {}))
    )


@pytest.fixture
def saved(words_alone: dict[str, Any]) -> dict[str, Any]:
    return words_alone | {
        "train.num_train_epochs": 1,
        "train.packs_per_step": 1,
        "train.language_model_lr": 0.1,
        "train.connector_lr": 0,
        "train.save_strategy": "steps",
        "train.save_steps": 2,
    }


def weights(folder: Path) -> Tensor:
    return load_file(folder / "model.safetensors")[NAME]


def states(run: FinishedRun) -> tuple[Tensor, Tensor]:
    """Return the weights of the live model, and those that the optimizer takes gradients at."""
    parameter = run.trained.trainer.model.get_parameter(NAME)
    optimizer: Any = run.trained.trainer.optimizer
    assert optimizer is not None
    return parameter.detach(), optimizer.state[parameter]["other"]


@pytest.mark.usefixtures("two_sets")
def test_checkpoints_evaluations_and_the_final_model_hold_the_resting_weights(
    train_run: TrainRun, saved: dict[str, Any], rows_folder: Path, tmp_path: Path
) -> None:
    seen: list[Tensor] = []

    def evaluate(model: Any) -> dict[str, float]:
        seen.append(model.get_parameter(NAME).detach().clone())
        return {"exact_match": 0.0}

    held_out = [{"json_path": str(rows_folder / "words.jsonl")}]
    asked = {"data.eval_mixture": held_out, "train.eval_strategy": "steps", "train.eval_steps": 2}
    run = train_run(tmp_path, saved | asked, make_evaluate=lambda *_: evaluate)
    checkpoints = [run.folder / f"checkpoint-{step}" for step in (2, 4)]
    pairs = zip(checkpoints, seen, strict=False)  # the last step may be evaluated too
    assert all(torch.equal(weights(folder), value) for folder, value in pairs)
    live, trained = states(run)
    assert torch.equal(weights(run.folder), live)
    assert not torch.equal(trained, live)
    states_of_optimizer = torch.load(checkpoints[0] / "optimizer.pt")
    assert not any(group["is_training"] for group in states_of_optimizer["param_groups"])


@pytest.mark.usefixtures("two_sets")
def test_a_run_that_is_resumed_equals_its_twin(
    train_run: TrainRun, saved: dict[str, Any], tmp_path: Path
) -> None:
    whole = train_run(tmp_path / "whole", saved)
    again = saved | {"train.resume_from_checkpoint": str(whole.folder / "checkpoint-2")}
    resumed = train_run(tmp_path / "again", again)
    assert torch.equal(weights(whole.folder), weights(resumed.folder))


@pytest.mark.usefixtures("two_sets")
def test_the_best_model_stays_as_it_was_saved(
    train_run: TrainRun, saved: dict[str, Any], rows_folder: Path, tmp_path: Path
) -> None:
    scores = iter([0.9, 0.1, 0.1, 0.1])
    held_out = [{"json_path": str(rows_folder / "words.jsonl")}]
    asked = {
        "data.eval_mixture": held_out,
        "train.eval_strategy": "steps",
        "train.eval_steps": 2,
        "train.load_best_model_at_end": True,
        "train.metric_for_best_model": "exact_match",
        "train.greater_is_better": True,
    }
    run = train_run(
        tmp_path,
        saved | asked,
        make_evaluate=lambda *_: lambda _: {"exact_match": next(scores)},
    )
    assert torch.equal(weights(run.folder), weights(run.folder / "checkpoint-2"))


def test_an_optimizer_of_one_set_and_none_at_all_are_left_alone() -> None:
    rest_optimizer(None)
    rest_optimizer(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1))


@pytest.mark.parametrize("name", ["schedule_free_adamw", "schedule_free_sgd"])
def test_the_schedule_free_ones(
    train_run: TrainRun, saved: dict[str, Any], tmp_path: Path, name: str
) -> None:
    """The third, `schedule_free_radam`, does not move in its first five steps."""
    pytest.importorskip("schedulefree", reason="the package schedulefree is not installed")
    changes = saved | {"train.optim": name, "train.lr_scheduler_type": "constant"}
    whole = train_run(tmp_path / "whole", changes)
    live = whole.trained.trainer.model.get_parameter(NAME).detach().clone()
    assert torch.equal(weights(whole.folder), live)
    optimizer: Any = whole.trained.trainer.optimizer
    optimizer.train()
    assert not torch.equal(whole.trained.trainer.model.get_parameter(NAME), live)
    again = changes | {"train.resume_from_checkpoint": str(whole.folder / "checkpoint-2")}
    resumed = train_run(tmp_path / "again", again)
    assert torch.equal(weights(whole.folder), weights(resumed.folder))
