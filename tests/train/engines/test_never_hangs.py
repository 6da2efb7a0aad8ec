"""Ranks that meet a step with different work: text alone, pictures of which all or none are in the
cache, nothing; then held-out rows that do not divide among them.

A collective that one rank calls and another does not shows as a wait without end: each run has a
limit of its own. `make engines` (`--engines`) goes through all of `GRID`; `make test` takes a part.
"""

import json
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.train.runs_apart import problem_of, runs_apart, selected_keys

LIMIT_S, TIMEOUT_S = 180, 3600
"""For one run, some five seconds of work; for all."""
NUM_EPOCHS = 3
HAS_DEEPSPEED = find_spec("deepspeed") is not None
KINDS = {"frozen": ("text", "cached", "pictures"), "trained": ("text", "pictures")}
"""What a rank's pack may be, by what becomes of the tower."""

Key = tuple[str, str, int, bool]
"""(tower, engine, ranks, whether the head takes its targets in chunks)"""
SHARED: tuple[Key, ...] = (("frozen", "fsdp2", 2, True),)
GRID: tuple[Key, ...] = tuple(
    (tower, engine, ranks, is_chunked)
    for tower, ranks, is_chunked in product(KINDS, (2, 4), (False, True))
    for engine in ("ddp", "fsdp2", *(("ddp+2", "fsdp2+2") if ranks == 4 else ()))
) + tuple(
    # DeepSpeed is an optional package, which builds an operator first (make env-deepspeed). ZeRO-3
    # refuses frozen towers and generation.
    (tower, "zero2", ranks, is_chunked)
    for tower, ranks, is_chunked in product(KINDS, (2, 4), (False, True))
    if HAS_DEEPSPEED
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "key" in metafunc.fixturenames:
        wanted = GRID if metafunc.config.getoption("--engines") else SHARED
        metafunc.parametrize("key", wanted, ids=lambda key: "-".join(map(str, key)))


@pytest.fixture(scope="module")
def runs(
    rows_folder: Path,
    write_run: Any,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Mapping[Key, Path]:
    """Folders of finished runs. Packs are small, so that ranks differ; some pictures are cached."""
    root = tmp_path_factory.mktemp("mixed-ranks")
    photos = (rows_folder / "photos.jsonl").read_text().splitlines()
    known, words = root / "known.jsonl", root / "words.jsonl"
    known.write_text("\n".join(photos[:6]) + "\n")
    words.write_text("\n".join((rows_folder / "words.jsonl").read_text().splitlines()[:9]) + "\n")
    held_out = [
        {"json_path": str(rows_folder / f"{name}.jsonl"), "name": name}
        for name in ("photos", "words")
    ]
    settings = {
        "data.mixture": [
            {"json_path": str(path)} for path in (rows_folder / "photos.jsonl", words)
        ],
        "data.max_tokens_per_pack": 64,
        "train.num_train_epochs": NUM_EPOCHS,
        "train.save_strategy": "steps",
        "train.save_steps": 10,
    }
    evaluated = {"data.eval_mixture": held_out, "eval.max_rows": 5, "eval.max_new_tokens": 3}
    cache = root / "warm" / "cache"
    warm = {
        "data.mixture": [{"json_path": str(known)}],
        "data.vision_cache_dir": str(cache),
        "train.num_train_epochs": 1,
    }
    warming = [{"run": str(write_run(root / "warm", settings | warm)), "ranks": 1}]
    (root / "warm.json").write_text(json.dumps(warming))
    with runs_apart("engines/engine_runs.py", root / "warm.json", logs=root, timeout_s=LIMIT_S):
        pass

    jobs, folders = [], dict[Key, Path]()
    for key in selected_keys(request, "key"):
        tower, engine, ranks, is_chunked = key
        folder = folders[key] = root / "-".join(map(str, key))
        engine, _, context = engine.partition("+")
        changes = {
            "train.packs_per_step": ranks,
            "train.ddp_backend": "gloo",
            "train.engine": {"type": "deepspeed", "config": "zero2.json"}
            if engine == "zero2"
            else engine,
            **({"train.context_ranks": int(context)} if context else {}),
        }
        if tower == "frozen":
            shutil.copytree(cache, folder / "cache")
            changes["data.vision_cache_dir"] = str(folder / "cache")
        else:
            changes["train.vision_tower_lr"] = 1e-4
        job = {"run": str(write_run(folder, settings | evaluated | changes)), "ranks": ranks}
        chunk = {"chunk_targets": 4} if is_chunked else {}
        jobs.append(job | chunk | {"limit_s": LIMIT_S, "notes_kinds": True})
    (root / "jobs.json").write_text(json.dumps(jobs))
    with runs_apart("engines/engine_runs.py", root / "jobs.json", logs=root, timeout_s=TIMEOUT_S):
        pass
    return folders


def kinds_by_step(folder: Path, ranks: int) -> list[set[str]]:
    """Return for each step which kinds of packs the ranks had."""
    notes = [(folder / f"kinds-{rank}.txt").read_text().splitlines() for rank in range(ranks)]
    found: dict[str, set[str]] = {}
    for line in (line for lines in notes for line in lines):
        step, kind = line.split()
        found.setdefault(step, set()).add(kind)
    return list(found.values())


def test_ranks_with_other_work_than_each_other_end_together(
    runs: Mapping[Key, Path], key: Key
) -> None:
    """They end at all; and they met what they should."""
    tower, engine, ranks, _ = key
    assert problem_of(runs[key]) is None, problem_of(runs[key])
    steps = kinds_by_step(runs[key], ranks)
    assert {kind for kinds in steps for kind in kinds} >= {*KINDS[tower]}
    for one, other in product(KINDS[tower], KINDS[tower]):
        if one < other and "+" not in engine:  # a context group's ranks hold one pack
            assert any({one, other} <= kinds for kinds in steps), (one, other, steps)
    log = (runs[key] / "out" / "metrics.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert len([line for line in lines if "loss" in line]) == len(steps)
    predictions = (runs[key] / "out" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 5 * 2
    assert (runs[key] / "out" / "model.safetensors").is_file()
