"""One folder of kept features with a bound, and three runs whose features together exceed it: what
was used longest ago goes, the run's own stays, and every loss is that of a run without a cache."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from smolvlm.build.tiny import tiny_model
from smolvlm.model.feature_folder import RESERVE_BYTES
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
from tests.train.conftest import FinishedRun, TrainRun

RUNS = ("first", "second", "third")
CHANGES = {"train.num_train_epochs": 2, "train.packs_per_step": 1}


@dataclass(slots=True)
class Seen:
    """The folder as it was before each step of a run, and behind its last one."""

    files: list[dict[str, int]] = field(default_factory=list)

    @property
    def most(self) -> int:
        return max(sum(sizes.values()) for sizes in self.files)


def sizes_in(folder: Path) -> dict[str, int]:
    """Return what each file takes, by its name."""
    return {path.parent.name: path.stat().st_size for path in folder.glob("*.lmdb/data.mdb")}


def train_seen(
    train_run: TrainRun, folder: Path, cache: Path, changes: Mapping[str, Any]
) -> tuple[FinishedRun, Seen]:
    """Train, and look at the folder of features before each step."""
    seen, training_step = Seen(), SmolVLMTrainer.training_step

    def watched(self: SmolVLMTrainer, *args: Any, **kwargs: Any) -> Any:
        seen.files.append(sizes_in(cache))
        return training_step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SmolVLMTrainer, "training_step", watched)
        kept = {"data.vision_cache_dir": str(cache)}
        run = train_run(folder, {**CHANGES, **changes, **kept})
    seen.files.append(sizes_in(cache))
    return run, seen


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    """Changes that give each run a tower of its own."""
    root = tmp_path_factory.mktemp("towers")
    return {
        name: {"model.path": str(tiny_model(root / name, hidden_size=32, seed=seed))}
        for seed, name in enumerate(RUNS)
    }


@pytest.fixture(scope="module")
def plain(
    train_run: TrainRun,
    models: Mapping[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Mapping[str, FinishedRun]:
    """The runs without a cache."""
    root = tmp_path_factory.mktemp("plain")
    without = {**CHANGES, "data.vision_cache": False}
    return {name: train_run(root / name, {**without, **models[name]}) for name in RUNS}


@pytest.fixture(scope="module")
def run_bytes(
    train_run: TrainRun,
    models: Mapping[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> int:
    """What the features of one run take without a bound."""
    root = tmp_path_factory.mktemp("unbounded")
    _, seen = train_seen(train_run, root / "run", root / "cache", models["first"])
    return seen.most


def test_what_was_used_longest_ago_goes_and_the_runs_own_stays(
    train_run: TrainRun,
    models: Mapping[str, dict[str, Any]],
    plain: Mapping[str, FinishedRun],
    run_bytes: int,
    tmp_path: Path,
) -> None:
    bound = RESERVE_BYTES + int(2.6 * run_bytes)
    cache, left = tmp_path / "cache", {}
    for name in RUNS:
        changes = {**models[name], "data.vision_cache_max_gb": bound / 1e9}
        run, seen = train_seen(train_run, tmp_path / name, cache, changes)
        assert run.losses == pytest.approx(plain[name].losses, rel=1e-6)
        assert seen.most <= bound
        assert run.trained.vision_cache is not None
        stem = run.trained.vision_cache.path.name.removesuffix(".lmdb")
        own = [{file for file in files if file.startswith(stem)} for files in seen.files]
        assert own[-1]
        assert all(before <= after for before, after in pairwise(own))
        left[name] = own[-1]
    there = set(sizes_in(cache))
    assert left["third"] <= there
    assert left["second"] <= there
    assert left["first"] - there, "all three fit, so nothing was tried"


def test_a_run_that_the_bound_cannot_hold_keeps_what_it_met_first(
    train_run: TrainRun,
    models: Mapping[str, dict[str, Any]],
    plain: Mapping[str, FinishedRun],
    run_bytes: int,
    tmp_path: Path,
) -> None:
    bound = RESERVE_BYTES + run_bytes // 2
    cache, changes = tmp_path / "cache", {"data.vision_cache_max_gb": bound / 1e9}
    for name in RUNS[:2]:
        run, seen = train_seen(train_run, tmp_path / name, cache, models[name] | changes)
        assert run.losses == pytest.approx(plain[name].losses, rel=1e-6)
        assert 0 < seen.most <= bound
