"""A tracker gets the names of metrics.jsonl, in transformers' groups; of a private run no paths."""

import os
from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.train import TrainConfig
from smolvlm.train.arguments import training_arguments
from smolvlm.train.trackers import without_places
from tests.train.conftest import TrainRun


def test_tensorboard_gets_what_the_log_has(
    train_run: TrainRun,
    words_alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    run = train_run(tmp_path / "run", words_alone | {"train.report_to": "tensorboard"})
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    logged = {key for key in run.steps[0] if key not in ("step", "epoch")}
    assert {f"train/{key}" for key in logged} <= set(scalars)
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx(run.losses)
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, len(losses) + 1))


def told_tensorboard(folder: Path) -> str:
    """Return all text that TensorBoard was given."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return "".join(
        event.tensor_proto.string_val[0].decode()
        for tag in events.Tags()["tensors"]
        for event in events.Tensors(tag)
    )


@pytest.mark.parametrize("is_private", [False, True])
def test_a_private_run_tells_trackers_no_path(
    is_private: bool,
    train_run: TrainRun,
    words_alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "events"))
    settings = {"train.report_to": "tensorboard", "train.private": is_private}
    run = train_run(tmp_path / "run", words_alone | settings)
    told = told_tensorboard(tmp_path / "events")
    assert '"learning_rate"' in told
    assert '"model_type": "smolvlm"' in told
    assert (str(tmp_path) in told) is not is_private
    if is_private:
        assert "/" not in told.replace("</", "").replace("/>", "")
        saved = [path.read_text() for path in tmp_path.rglob("config.json")]
        assert saved
        assert not any(str(tmp_path) in text for text in saved)
    assert len(run.losses) > 0


def test_places_are_hidden_and_all_else_stays() -> None:
    settings = {
        "output_dir": "out",
        "deepspeed": None,
        "seed": 7,
        "optim": "adamw_torch",
        "nested": {"file": "a/b.json", "list": [Path("c"), "~", r"C:\d", "plain", True]},
    }
    assert without_places(settings) == {
        "output_dir": "(private)",
        "deepspeed": None,
        "seed": 7,
        "optim": "adamw_torch",
        "nested": {
            "file": "(private)",
            "list": ["(private)", "(private)", "(private)", "plain", True],
        },
    }


def test_the_project_has_our_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    train = TrainConfig(output_dir=Path("out"), arguments={"use_cpu": True})
    assert training_arguments(train, num_steps=1).project == "smolvlm"
    assert os.environ["WANDB_PROJECT"] == "smolvlm"
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    named = TrainConfig(output_dir=Path("out"), arguments={"use_cpu": True, "project": "ours"})
    assert training_arguments(named, num_steps=1).project == "ours"
    assert os.environ["WANDB_PROJECT"] == "mine"
