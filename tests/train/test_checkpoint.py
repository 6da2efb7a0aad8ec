"""The files beside a model's weights, and what marks a checkpoint as whole."""

import json
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from smolvlm.train.checkpoint import (
    CheckpointFiles,
    CheckpointFinisher,
    final_model,
)
from smolvlm.train.checkpoint_folder import MARKER, mark_whole, whole_checkpoints
from smolvlm.train.resuming import RunIdentity

IDENTITY = RunIdentity(settings={"model.path": "some/model"}, plan="digest")


def files() -> CheckpointFiles:
    return CheckpointFiles(
        save_processor=lambda folder: (folder / "processor").touch(), identity=IDENTITY
    )


def test_a_models_folder_gets_its_processor(tmp_path: Path) -> None:
    files().complete(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"processor"}


def test_a_final_model_takes_the_place_of_a_former_one_and_its_adapter(tmp_path: Path) -> None:
    out, meetings = tmp_path / "out", list[int]()
    out.mkdir()
    (out / "metrics.jsonl").touch()
    former = ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "config.json")
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, *former):
        (out / name).write_text("former")
    with final_model(out, is_writer=True, meet=lambda: meetings.append(1)) as folder:
        folder.mkdir()
        for name in ("model.safetensors", "config.json"):
            (folder / name).write_text("new")
        assert (out / "config.json").read_text() == "former"
    assert len(meetings) == 2
    left = {path.name: path.read_text() for path in out.iterdir()}
    assert left == {"metrics.jsonl": "", "model.safetensors": "new", "config.json": "new"}


def test_a_marker_says_whose_it_is_and_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("content")
    files().finish(tmp_path, step=7)
    assert json.loads((tmp_path / MARKER).read_text()) == {
        "step": 7,
        "settings": {"model.path": "some/model"},
        "plan": "digest",
        "relative": {},
        "files": {"weights": 7},
        "sha256": {"weights": sha256(b"content").hexdigest()},
    }


def written(output_dir: Path, step: int) -> Path:
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_text("content")
    return folder


def test_checkpoints_are_finished_behind_the_steps_and_older_ones_go_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def slow_disk(*arguments: object) -> None:
        assert goes_on.wait(60)
        mark_whole(*arguments)  # type: ignore[arg-type]

    older = written(tmp_path, 1)
    mark_whole(older, {"step": 1, "settings": {}, "plan": ""})
    monkeypatch.setattr("smolvlm.train.checkpoint.mark_whole", slow_disk)
    finisher = CheckpointFinisher(files(), limit=1)
    with finisher:
        newer = written(tmp_path, 2)
        finisher.finish(newer, step=2, best=None)
        assert whole_checkpoints(tmp_path) == [older], "training goes on meanwhile"
        goes_on.set()
        finisher.begin(tmp_path / "checkpoint-3")
        assert whole_checkpoints(tmp_path) == [newer] == list(tmp_path.glob("checkpoint-*"))


def test_what_is_written_later_is_there_before_the_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    goes_on = threading.Event()

    def write() -> None:
        assert goes_on.wait(60)
        order.append("state")

    monkeypatch.setattr("smolvlm.train.checkpoint.mark_whole", lambda *_: order.append("marker"))
    finisher = CheckpointFinisher(files(), limit=None)
    finisher.begin(tmp_path / "checkpoint-1")
    finisher.write_later(write)
    finisher.finish(written(tmp_path, 1), step=1, best=None)
    assert order == [], "training goes on meanwhile"
    goes_on.set()
    finisher.wait()
    assert order == ["state", "marker"]
    finisher.finish(tmp_path / "checkpoint-1", step=1, best=None)
    finisher.wait()
    assert order == ["state", "marker", "marker"], "once"


def test_what_cannot_be_written_later_leaves_no_folder(tmp_path: Path) -> None:
    def full() -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    finisher = CheckpointFinisher(files(), limit=None)
    finisher.begin(tmp_path / "checkpoint-1")
    finisher.write_later(full)
    finisher.finish(written(tmp_path, 1), step=1, best=None)
    with pytest.raises(OSError, match="Input/output error"):
        finisher.wait()
    assert list(tmp_path.glob("checkpoint-*")) == []


def test_what_goes_wrong_behind_the_steps_is_raised_and_costs_no_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "weights")

    older = written(tmp_path, 1)
    mark_whole(older, {"step": 1, "settings": {}, "plan": ""})
    monkeypatch.setattr("smolvlm.train.checkpoint.mark_whole", full)
    finisher = CheckpointFinisher(files(), limit=1)
    finisher.finish(written(tmp_path, 2), step=2, best=None)

    def check_each_step() -> None:
        while True:
            finisher.check()

    def end_a_run(error: type[BaseException] | None) -> None:
        with finisher:
            finisher.finish(tmp_path / "checkpoint-2", step=2, best=None)
            if error is not None:
                raise error

    with pytest.raises(OSError, match="No space left"):
        check_each_step()
    finisher.check()
    with pytest.raises(OSError, match="No space left"):
        end_a_run(None)
    with pytest.raises(KeyboardInterrupt) as stopped:
        end_a_run(KeyboardInterrupt)
    assert "the last checkpoint is not whole" in stopped.value.__notes__[0]
    assert whole_checkpoints(tmp_path) == [older]
