"""A run that diverges ends at once, keeps its last healthy checkpoint, and says where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import TrainerCallback

from smolvlm import api
from smolvlm.build.tiny import tiny_model
from smolvlm.train.finite import FiniteWatch, NotFiniteError

ROWS = [{"question": f"{number} + 1?", "answer": str(number + 1)} for number in range(8)]


class SpoilWeights(TrainerCallback):
    """Puts a value into one weight as a step begins, as a rate far too high would."""

    def __init__(self, value: float, *, before_step: int) -> None:
        self._value, self._before_step = value, before_step

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self._before_step:
            with torch.no_grad():
                kwargs["model"].lm_head.weight[0] = self._value


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    tiny_model(tmp_path / "model")

    def of(**train: Any) -> dict[str, Any]:
        return {
            "model": {"path": str(tmp_path / "model")},
            "train": {
                "output_dir": str(tmp_path / "run"),
                "max_steps": 6,
                "packs_per_step": 1,
                "save_steps": 1,
                "save_total_limit": 1,
                "save_strategy": "steps",
                "language_model_lr": 1e-4,
                **train,
            },
            "data": {"max_tokens_per_pack": 40},
        }

    return of


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_it_stops_keeps_the_healthy_checkpoint_and_writes_the_report(
    settings: Callable[..., dict[str, Any]], tmp_path: Path, value: float
) -> None:
    config = api.load_config(settings(logging_steps=1), rows=ROWS)
    with pytest.raises(NotFiniteError) as caught:
        api.train(config, callbacks=[SpoilWeights(value, before_step=4)])
    assert caught.value.where == "step 4"
    assert "the loss" in caught.value.what
    assert ":" in caught.value.what.rpartition("rows of this rank: ")[2], "names file:row"
    run = tmp_path / "run"
    assert [path.name for path in sorted(run.glob("checkpoint-*"))] == ["checkpoint-3"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert (run / "report.html").is_file()


def test_a_checkpoint_between_two_lines_is_not_written_either(
    settings: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    config = api.load_config(settings(logging_steps=100), rows=ROWS)
    with pytest.raises(NotFiniteError, match=r"^steps? 4"):
        api.train(config, callbacks=[SpoilWeights(float("nan"), before_step=4)])
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-3"]


def alone(value: torch.Tensor) -> torch.Tensor:
    return value


def test_a_loss_of_any_pack_is_enough() -> None:
    watch = FiniteWatch()
    for step, loss in enumerate((1.0, float("inf"), 2.0), start=1):
        watch.add(torch.tensor(loss), step=step, rows=[f"a:{step}"])
    with pytest.raises(NotFiniteError, match=r"^steps 1 to 3: the loss .*: a:1, a:2, a:3"):
        watch.check(alone, step=3)
    watch.check(alone, step=3)  # what was said is not said again


def test_gradients_and_weights_count_too() -> None:
    watch, model = FiniteWatch(), nn.Linear(2, 2)
    watch.check(alone, step=1, grad_norm=3.0, model=model)
    with pytest.raises(NotFiniteError, match=r"^step 2: the gradient "):
        watch.check(alone, step=2, grad_norm=float("nan"))
    with torch.no_grad():
        model.bias[0] = float("inf")
    with pytest.raises(NotFiniteError, match=r"^step 5: the weights "):
        watch.check(alone, step=5, model=model)
    model.bias.requires_grad_(False)
    watch.check(alone, step=6, model=model)


def test_what_another_rank_saw_ends_this_one() -> None:
    watch = FiniteWatch()
    watch.add(torch.tensor(1.0), step=1, rows=["a:1"])
    with pytest.raises(NotFiniteError, match="the loss"):
        watch.check(lambda flags: flags + torch.tensor([1.0, 0.0, 0.0]), step=1)
