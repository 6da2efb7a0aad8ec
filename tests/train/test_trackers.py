"""A tracker gets the names of metrics.jsonl, in transformers' groups."""

from pathlib import Path
from typing import Any

import pytest

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
