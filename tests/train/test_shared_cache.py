"""One vision cache for ranks, for runs at once and for those after them: all of it is kept, losses
are those without it, and what one has computed the others do not compute again."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from smolvlm.model.vision_cache import VisionCache
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
from tests.train.conftest import FinishedRun, TrainRun, json_rows
from tests.train.runs_apart import problem_of, runs_apart

TIMEOUT_S = 300
NUM_EPOCHS = 3
CHANGES = {
    "train.num_train_epochs": NUM_EPOCHS,
    "train.connector_lr": 0.0,
    "train.packs_per_step": 2,
}


def job(write_run: Any, folder: Path, cache: Path, ranks: int) -> Path:
    """Write a job for `engine_runs.py`, and return its file."""
    changes = CHANGES | {"data.vision_cache_dir": str(cache)}
    if ranks > 1:
        changes |= {"train.ddp_backend": "gloo"}
    entry = {"run": str(write_run(folder, changes)), "ranks": ranks, "notes_tiles": True}
    path = folder.parent / f"{folder.name}.json"
    path.write_text(json.dumps([entry | {"limit_s": TIMEOUT_S}]))
    return path


def num_computed(folder: Path) -> int:
    assert problem_of(folder) is None, problem_of(folder)
    notes = [path.read_text().splitlines() for path in folder.glob("tiles-*.txt")]
    return sum(int(line) for lines in notes for line in lines)


def losses(folder: Path) -> list[float]:
    assert problem_of(folder) is None, problem_of(folder)
    return [row["loss"] for row in json_rows(folder / "out" / "metrics.jsonl") if "loss" in row]


@pytest.fixture(scope="module")
def folders(write_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Runs by name: `ranks` are two of one run; `left` and `right` ran at once; `later` came after
    them."""
    root = tmp_path_factory.mktemp("shared-cache")
    found = {name: root / name for name in ("ranks", "left", "right", "later")}
    jobs = {
        name: job(
            write_run,
            folder,
            root / ("cache-of-ranks" if name == "ranks" else "cache"),
            2 if name == "ranks" else 1,
        )
        for name, folder in found.items()
    }

    def started(name: str) -> Any:
        return runs_apart("engines/engine_runs.py", jobs[name], logs=root, timeout_s=TIMEOUT_S)

    with started("ranks"):
        pass
    with started("left"), started("right"):
        pass
    with started("later"):
        pass
    return found


@pytest.fixture(scope="module")
def alone(train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The same run in this process, its cache its own."""
    return train_run(tmp_path_factory.mktemp("alone"), CHANGES)


def kept(alone: FinishedRun, folder: Path) -> int:
    cache = alone.trained.vision_cache
    assert cache is not None
    (path,) = folder.glob("*.lmdb")
    assert path.name == cache.path.name
    return VisionCache(path, cache.layout).count()


@pytest.mark.parametrize("name", ["ranks", "left", "right", "later"])
def test_losses_are_those_of_a_run_by_itself(
    folders: Mapping[str, Path], alone: FinishedRun, name: str
) -> None:
    assert losses(folders[name]) == pytest.approx(alone.losses, rel=1e-5)


@pytest.mark.parametrize("name", ["cache-of-ranks", "cache"])
def test_all_tiles_are_kept_once(
    folders: Mapping[str, Path], alone: FinishedRun, name: str
) -> None:
    assert alone.trained.vision_cache is not None
    assert kept(alone, folders["ranks"].parent / name) == alone.trained.vision_cache.count()


def test_later_runs_compute_nothing(folders: Mapping[str, Path]) -> None:
    assert num_computed(folders["later"]) == 0


def test_ranks_compute_a_tile_again_only_where_they_meet_it_together(
    folders: Mapping[str, Path], alone: FinishedRun
) -> None:
    shown = sum(row["num_tiles"] for row in alone.steps) // NUM_EPOCHS
    distinct = kept(alone, folders["ranks"].parent / "cache-of-ranks")
    assert distinct <= num_computed(folders["ranks"]) <= shown


@pytest.mark.parametrize("name", ["left", "right"])
def test_runs_at_once_compute_no_more_than_one_alone_would(
    folders: Mapping[str, Path], alone: FinishedRun, name: str
) -> None:
    """They need not share a tile, since they keep step with each other; but each computes none
    twice."""
    assert alone.trained.vision_cache is not None
    assert num_computed(folders[name]) <= alone.trained.vision_cache.count()


def test_steps_go_on_while_another_process_holds_the_files_one_write_lock(
    train_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given back at the last step, and what was waiting is kept then."""
    cache = tmp_path / "cache"
    first = train_run(tmp_path / "first", CHANGES | {"data.vision_cache_dir": str(cache)})
    kept_there = first.trained.vision_cache
    assert kept_there is not None
    num_kept = kept_there.count()
    kept_there.close()
    (path,) = cache.glob("*.lmdb")
    (path / "data.mdb").unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    steps: list[int] = []
    training_step = SmolVLMTrainer.training_step

    def counted(self: SmolVLMTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, *args, **kwargs)
        if self.state.global_step + 1 == self.state.max_steps and holder.poll() is None:
            steps.append(self.state.global_step + 1)
            holder.communicate(b"end\n", timeout=60)
        return loss

    monkeypatch.setattr(SmolVLMTrainer, "training_step", counted)
    try:
        second = train_run(tmp_path / "second", CHANGES | {"data.vision_cache_dir": str(cache)})
    finally:
        holder.kill()
        holder.communicate()
    assert steps == [second.trained.planned.plan.num_steps], "all steps were made before"
    assert second.losses == pytest.approx(first.losses, rel=1e-6)
    assert second.trained.vision_cache is not None
    assert second.trained.vision_cache.count() == num_kept


HOLDER = """
import sys, lmdb
with lmdb.open(sys.argv[1], map_size=1 << 40, max_readers=512) as environment:
    transaction = environment.begin(write=True)
    print("held", flush=True)
    sys.stdin.readline()
    transaction.abort()
"""
