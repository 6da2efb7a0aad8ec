"""A run that a signal stops is saved first, and what goes on from there is the whole run."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, TrainingArguments

from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError
from smolvlm.train.checkpoint_folder import whole_checkpoints
from smolvlm.train.stop_signal import check_stop_signal
from smolvlm.train.train import train
from tests.train.conftest import TrainRun, WriteRun

ASKED = {"train.enable_jit_checkpoint": True, "train.packs_per_step": 1}


class Stopped(BaseException):
    """What the handler of these tests raises, as the command line's does."""


@pytest.fixture(autouse=True)
def handler() -> Iterator[Any]:
    def stop(*_: object) -> None:
        raise Stopped

    earlier = signal.signal(signal.SIGTERM, stop)
    yield stop
    assert signal.signal(signal.SIGTERM, earlier) is stop, "it was given back"


class Sending(TrainerCallback):
    """Sends SIGTERM to this process when a step begins or has ended."""

    def __init__(self, *, step: int, event: str = "on_step_begin", times: int = 1) -> None:
        self._step, self._times = step, times
        setattr(self, event, self._send)

    def _send(self, _args: object, state: Any, _control: object, **_: object) -> None:
        if state.global_step + 1 == self._step:
            for _number in range(self._times):
                os.kill(os.getpid(), signal.SIGTERM)


def stopped(run_file: Path, sending: Sending) -> list[str]:
    """Train until the signal; return the names of the checkpoints that are whole then."""
    config = load_run_config(run_file)
    with pytest.raises(Stopped):
        train(config, callbacks=[sending])
    out = Path(config.train.output_dir)
    assert not (out / "model.safetensors").exists(), "it is not done"
    return [folder.name for folder in whole_checkpoints(out)]


def test_the_run_that_goes_on_is_the_run_that_was_never_stopped(
    write_run: WriteRun, train_run: TrainRun, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    changes = words_alone | ASKED | {"train.logging_steps": 4}
    assert stopped(write_run(tmp_path / "one", changes), Sending(step=3)) == ["checkpoint-3"]
    resumed = train_run(tmp_path / "one", changes)
    whole = train_run(tmp_path / "whole", changes)
    assert [row["step"] for row in resumed.steps if row["step"] != 3] == [
        row["step"] for row in whole.steps
    ]
    assert 3 in [row["step"] for row in resumed.steps], "the steps before it have their line"
    ours, theirs = (load_file(run.folder / "model.safetensors") for run in (resumed, whole))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert (resumed.folder / "samples.jsonl").read_text() == (
        whole.folder / "samples.jsonl"
    ).read_text()


@pytest.mark.parametrize(
    ("sending", "kept"),
    [
        (Sending(step=2, event="on_pre_optimizer_step"), ["checkpoint-2"]),
        (Sending(step=2, event="on_save"), ["checkpoint-1"]),
        (Sending(step=3, times=2), ["checkpoint-1", "checkpoint-2"]),
    ],
    ids=["within a step", "while it saves", "a second one does not wait"],
)
def test_whenever_it_comes(
    write_run: WriteRun,
    words_alone: dict[str, Any],
    tmp_path: Path,
    sending: Sending,
    kept: list[str],
) -> None:
    saved = {"train.save_strategy": "steps", "train.save_steps": 1}
    every = saved if "checkpoint-1" in kept else {}
    assert stopped(write_run(tmp_path, words_alone | ASKED | every), sending) == kept


def test_without_the_setting_it_ends_where_it_is(
    write_run: WriteRun, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    changes = words_alone | ASKED | {"train.enable_jit_checkpoint": False}
    assert stopped(write_run(tmp_path, changes), Sending(step=3)) == []


def arguments(**settings: Any) -> TrainingArguments:
    return TrainingArguments(use_cpu=True, enable_jit_checkpoint=True, **settings)


def test_several_ranks_and_other_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[ConfigError] = []

    def ask() -> None:
        with pytest.raises(ConfigError) as caught:
            check_stop_signal(arguments())
        refused.append(caught.value)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _: 4))
    ask()
    texts = [str(error) for error in refused]
    assert "signals reach the main thread alone, and this run is in another" in texts[0]
    assert "4 ranks may hear of a signal in different steps" in texts[1]
    assert all("train.enable_jit_checkpoint=true: " in text for text in texts)
