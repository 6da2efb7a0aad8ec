"""A tracker gets the names of metrics.jsonl, in transformers' groups, and the project's name."""

import os
from pathlib import Path
from typing import Any

import pytest

from smolvlm.train.arguments import training_arguments
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


@pytest.mark.parametrize(
    ("given", "named", "expected"),
    [(None, None, "smolvlm"), (None, "ours", "ours"), ("theirs", "ours", "theirs")],
)
def test_the_project_is_called_as_the_environment_says_or_the_run_or_else_smolvlm(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    named: str | None,
    expected: str,
) -> None:
    from smolvlm.config.schema import TrainConfig

    for name in ("WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "restored at the end of the test")
        monkeypatch.delenv(name)
    if given is not None:
        monkeypatch.setenv("WANDB_PROJECT", given)
    settings = {"use_cpu": True, "report_to": "wandb"} | ({"project": named} if named else {})
    train = TrainConfig(output_dir=tmp_path, arguments=settings)
    arguments = training_arguments(train, num_steps=1)
    assert arguments.project == (named or "smolvlm")
    assert os.environ["WANDB_PROJECT"] == expected
    assert "MLFLOW_EXPERIMENT_NAME" not in os.environ, "nothing is reported there"
