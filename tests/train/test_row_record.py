"""A run that is resumed over other rows or other files is refused by name, or says what it does."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainerCallback

from smolvlm.config.load import load_run_config
from smolvlm.datasets.packing.row_digests import NO_MEDIA
from smolvlm.errors import ConfigError, SampleError
from smolvlm.train.checkpoint_folder import mark_whole, read_marker
from smolvlm.train.row_record import FILE_NAME
from smolvlm.train.train import TrainedRun, train
from tests.train.conftest import SHOWN

CHECKPOINT = 2
SIZE = (40, 40)
ROWS = 6


class Stopped(Exception):
    """In place of a kill: whole processes are killed in test_resume.py."""


class StopAfter(TrainerCallback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self._step:
            raise Stopped


def write_run(folder: Path, model: Path, photos: dict[str, Path], *, num_rows: int = ROWS) -> Path:
    """Write a run with a picture a row; uncompressed, so that a changed one has the same size."""
    (folder / "pictures").mkdir(parents=True)
    rows: list[dict[str, str]] = []
    for number in range(num_rows):
        name = SHOWN[number % len(SHOWN)]
        with Image.open(photos[name]) as picture:
            picture.convert("RGB").resize(SIZE).save(folder / "pictures" / f"{number}.bmp")
        rows.append({"image": f"{number}.bmp", "question": "What is it?", "answer": name})
    write_rows(folder, rows)
    mixture = [{"json_path": "rows.jsonl", "path": "pictures"}]
    (folder / "mixture.yaml").write_text(yaml.safe_dump(mixture))
    settings: dict[str, dict[str, Any]] = {
        "model": {"path": str(model)},
        "data": {"mixture": "mixture.yaml", "max_tokens_per_pack": 96, "longest_edge_px": 64},
        "train": {
            "output_dir": str(folder / "out"),
            "language_model_lr": 1e-3,
            "packs_per_step": 1,
            "num_train_epochs": 2,
            "use_cpu": True,
            "logging_steps": 1,
            "save_steps": CHECKPOINT,
            "disable_tqdm": True,
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder / "run.yaml"


def read_rows(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(run_file: Path, *overrides: str, stop: int | None = None) -> tuple[TrainedRun, str]:
    said: list[str] = []
    callbacks = [StopAfter(stop)] if stop else []
    trained = train(load_run_config(run_file, overrides), callbacks=callbacks, say=said.append)
    return trained, "\n".join(said)


def stopped_run(folder: Path, model: Path, photos: dict[str, Path], **options: Any) -> Path:
    """Return the run file of a run that was stopped behind its first checkpoint."""
    run_file = write_run(folder, model, photos, **options)
    with pytest.raises(Stopped):
        run(run_file, stop=CHECKPOINT + 1)
    assert (folder / "out" / f"checkpoint-{CHECKPOINT}" / FILE_NAME).is_file()
    return run_file


def repaint(path: Path) -> None:
    """Change a picture's pixels, and nothing of its size."""
    size = path.stat().st_size
    with Image.open(path) as picture:
        changed = Image.eval(picture, lambda value: 255 - value)
    changed.save(path)
    assert path.stat().st_size == size


def change_answer(folder: Path) -> None:
    rows = read_rows(folder)
    rows[2]["answer"] = "x" * len(rows[2]["answer"])
    write_rows(folder, rows)


def exchange_names(folder: Path) -> None:
    rows = read_rows(folder)
    rows[2]["image"], rows[3]["image"] = rows[3]["image"], rows[2]["image"]
    write_rows(folder, rows)


def add_a_row(folder: Path) -> None:
    rows = read_rows(folder)
    write_rows(folder, [*rows[:4], rows[0], *rows[4:]])


def drop_the_last_row(folder: Path) -> None:
    write_rows(folder, read_rows(folder)[:-1])


def recompress(folder: Path) -> None:
    """Write another picture of the same sides, in another number of bytes."""
    path = folder / "pictures" / "3.bmp"
    with Image.open(path) as picture:
        picture.convert("L").save(path)


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "an answer": (change_answer, r"rows.jsonl:3: another text"),
    "exchanged names": (exchange_names, r"rows.jsonl:3, .*rows.jsonl:4: another text, or other m"),
    "one row more": (add_a_row, r"6 there, 7 here; the first that differs is .*rows.jsonl:5"),
    "one row less": (drop_the_last_row, r"6 there, 5 here; the last ones are gone"),
    "a file of another size": (
        recompress,
        r"rows.jsonl:4 \(.*3.bmp\): its files are others, or have other sizes",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named_before_a_step_is_taken(
    name: str, tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    change, words = CHANGES[name]
    run_file = stopped_run(tmp_path, tiny_folder, photos)
    before = (tmp_path / "out" / "metrics.jsonl").read_bytes()
    change(tmp_path)
    with pytest.raises(ConfigError, match=words) as caught:
        run(run_file)
    assert "train.on_changed_data=warn" in str(caught.value)
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == before
    trained, said = run(run_file, "train.on_changed_data=warn")
    assert trained.trainer.state.global_step == trained.planned.plan.num_steps
    assert "goes on with what changed" in said


def unread_row(folder: Path) -> int:
    """Return a row whose picture no step before the checkpoint has read."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "out" / f"checkpoint-{CHECKPOINT}" / FILE_NAME)
    return table["read"].to_pylist().index(NO_MEDIA)


def read_row(folder: Path) -> int:
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "out" / f"checkpoint-{CHECKPOINT}" / FILE_NAME)
    return next(row for row, read in enumerate(table["read"].to_pylist()) if read != NO_MEDIA)


def test_changed_pixels_of_a_picture_that_was_not_read_yet_are_named(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    run_file = stopped_run(tmp_path, tiny_folder, photos)
    row = unread_row(tmp_path)
    repaint(tmp_path / "pictures" / f"{row}.bmp")
    with pytest.raises(
        ConfigError, match=rf"rows.jsonl:{row + 1} \(.*\): its files have another time"
    ):
        run(run_file)


@pytest.mark.parametrize("keeps_time", [False, True], ids=["another time", "the same time"])
def test_changed_pixels_of_a_picture_that_was_read_are_found_by_its_bytes(
    keeps_time: bool, tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    run_file = stopped_run(tmp_path, tiny_folder, photos)
    row = read_row(tmp_path)
    path = tmp_path / "pictures" / f"{row}.bmp"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    repaint(path)
    if keeps_time:
        os.utime(path, ns=times)
    with pytest.raises(ConfigError, match=rf"changed since .*rows.jsonl:{row + 1} \("):
        run(run_file, "train.verify_data=true")
    with pytest.raises(SampleError, match=rf"rows.jsonl:{row + 1}: the files of this row changed"):
        run(run_file)
    trained, _ = run(run_file, "train.on_changed_data=warn")
    assert trained.trainer.state.global_step == trained.planned.plan.num_steps


def test_pictures_exchanged_while_a_run_goes_on_end_it(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    """No resuming at all: the second epoch reads what the first did."""
    run_file = write_run(tmp_path, tiny_folder, photos, num_rows=4)

    class Exchange(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == CHECKPOINT:
                for path in (tmp_path / "pictures").iterdir():
                    repaint(path)

    config = load_run_config(run_file, ["train.dataloader_num_workers=0"])
    with pytest.raises(SampleError, match="the files of this row changed since the run began"):
        train(config, callbacks=[Exchange()])


def test_a_copy_with_other_times_is_the_same_run(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    run_file = stopped_run(tmp_path / "one", tiny_folder, photos)
    shutil.copytree(tmp_path / "one", tmp_path / "twin")
    for path in (tmp_path / "one" / "pictures").iterdir():
        os.utime(path, ns=(10**18, 10**18))
    _, said = run(run_file)
    assert "media have other times of change than when the run began, all of them" in said
    text = (tmp_path / "twin" / "run.yaml").read_text()
    (tmp_path / "twin" / "run.yaml").write_text(text.replace("/one/", "/twin/"))
    run(tmp_path / "twin" / "run.yaml")
    ours, theirs = (
        load_file(tmp_path / name / "out" / "model.safetensors") for name in ("one", "twin")
    )
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def test_a_copy_is_compared_by_content_where_it_was_read(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    run_file = stopped_run(tmp_path, tiny_folder, photos)
    repaint(tmp_path / "pictures" / f"{read_row(tmp_path)}.bmp")
    for path in (tmp_path / "pictures").iterdir():
        os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(SampleError, match="the files of this row changed"):
        run(run_file)


def test_with_everything_read_at_the_start_nothing_is_left_open(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    run_file = write_run(tmp_path, tiny_folder, photos)
    with pytest.raises(Stopped):
        run(run_file, "train.verify_data=true", stop=CHECKPOINT + 1)
    with pytest.raises(ValueError, match="is not in list"):
        unread_row(tmp_path)
    path = tmp_path / "pictures" / f"{ROWS - 1}.bmp"
    repaint(path)
    for picture in (tmp_path / "pictures").iterdir():
        os.utime(picture, ns=(10**18, 10**18))
    with pytest.raises(ConfigError, match=rf"changed since .*rows.jsonl:{ROWS} \("):
        run(run_file, "train.verify_data=true")


def test_a_checkpoint_of_an_earlier_version_is_resumed_with_a_word(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    run_file = stopped_run(tmp_path, tiny_folder, photos)
    folder = tmp_path / "out" / f"checkpoint-{CHECKPOINT}"
    marker = read_marker(folder)
    assert marker is not None
    (folder / FILE_NAME).unlink()
    mark_whole(folder, {key: marker[key] for key in ("step", "settings", "plan", "relative")})
    trained, said = run(run_file)
    assert "holds no digests of rows: changes are not noticed" in said
    assert trained.trainer.state.global_step == trained.planned.plan.num_steps


def test_an_unchanged_run_says_nothing_and_is_the_run_that_was_never_stopped(
    tiny_folder: Path, photos: dict[str, Path], tmp_path: Path
) -> None:
    run_file = stopped_run(tmp_path / "one", tiny_folder, photos)
    _, said = run(run_file, "train.verify_data=true")
    assert "change" not in said.replace(str(tmp_path), "")
    run(write_run(tmp_path / "whole", tiny_folder, photos))
    ours, theirs = (
        load_file(tmp_path / name / "out" / "model.safetensors") for name in ("one", "whole")
    )
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []
