"""Runs over real photographs, pairs of them and plain text, small enough to be trained many times
over."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.build.tiny import tiny_model
from smolvlm.config.load import load_run_config
from smolvlm.train.train import RunHooks, TrainedRun, train
from smolvlm.train.trainer_parts import Evaluate, Evaluations
from tests.processors import loaded_once
from tests.train.runs_apart import runs_apart

SHOWN = ("coffee", "rocket", "chelsea", "camera", "horse")
NUM_WORDS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedRun:
    """A run that was trained, and what it wrote."""

    folder: Path
    trained: TrainedRun

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [row for row in json_rows(self.folder / "metrics.jsonl") if "loss" in row]

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.steps]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoppedRun:
    """A run that was killed, was started again, and its twin that was not."""

    whole: FinishedRun
    resumed: Path
    messages_before: str
    """Standard error of the process that was killed."""
    messages: str
    """Standard error of the second start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForkedRuns:
    """What ran in processes of its own."""

    stopped: dict[str, StoppedRun]
    shared: Path
    """Output folder of the run that two ranks shared; `plain_run` is its twin."""


WriteRun = Callable[..., Path]
TrainRun = Callable[..., FinishedRun]
CHILD_TIMEOUT_S = 400
KILLED_IN_STEP = 9


def json_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="session", autouse=True)
def processors_loaded_once() -> Iterator[None]:
    """Every run loads the same processor twice, which takes as long as its steps."""
    with loaded_once():
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SmolVLM; not to be written to."""
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=32)


@pytest.fixture(scope="session")
def rows_folder(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos.jsonl` (three questions a photograph), `pairs.jsonl` and `words.jsonl`; not to be
    written to."""
    folder = tmp_path_factory.mktemp("rows")
    about_photos = [
        {"image": str(photos[name]), "question": question, "answer": answer}
        for name in SHOWN
        for question, answer in [
            ("What is shown?", name),
            ("Is it a photograph?", "no" if name == "horse" else "yes"),
            ("Describe it.", f"a small picture of {name}"),
        ]
    ]
    pairs = [
        {
            "messages": [
                _asked(photos[left], photos[right]),
                {"role": "assistant", "content": f"{left} and {right}"},
            ]
        }
        for left, right in pairwise(SHOWN[:4])
    ]
    words = [
        {"question": f"What is {n} plus {n % 7}?", "answer": f"It is {n + n % 7}."}
        for n in range(NUM_WORDS)
    ]
    for name, rows in {"photos": about_photos, "pairs": pairs, "words": words}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def _asked(*pictures: Path) -> dict[str, Any]:
    blocks = [{"type": "image", "path": str(picture)} for picture in pictures]
    return {"role": "user", "content": [*blocks, {"type": "text", "text": "Which two are these?"}]}


@pytest.fixture(scope="session")
def settings(tiny_folder: Path, rows_folder: Path) -> dict[str, Any]:
    """A whole run's settings as `section.key` -> value: two epochs, everything logged; `output_dir`
    is missing."""
    sources = [
        {"json_path": str(rows_folder / f"{name}.jsonl")} for name in ("photos", "pairs", "words")
    ]
    return {
        "model.path": str(tiny_folder),
        "data.mixture": sources,
        "data.allow_outside_root": True,
        "data.max_tokens_per_pack": 128,
        "data.longest_edge_px": 64,
        "train.language_model_lr": 1e-3,
        "train.connector_lr": 5e-4,
        "train.packs_per_step": 2,
        "train.num_train_epochs": 2,
        "train.use_cpu": True,
        "train.logging_steps": 1,
        "train.save_strategy": "no",
        "train.log_sample_ids": True,
        "train.disable_tqdm": True,
    }


@pytest.fixture(scope="session")
def words_alone(rows_folder: Path) -> dict[str, Any]:
    """Changes that leave text alone to be trained on, in five packs an epoch: for what pictures do
    not bear upon."""
    return {"data.mixture": [{"json_path": str(rows_folder / "words.jsonl")}]}


@pytest.fixture(scope="session")
def write_run(settings: dict[str, Any]) -> WriteRun:
    """Writes `run.yaml` into a folder, `output_dir` being its `out`; changes are `section.key` ->
    value."""

    def write(folder: Path, changes: dict[str, Any] | None = None) -> Path:
        sections: dict[str, dict[str, Any]] = {}
        for key, value in (
            settings | {"train.output_dir": str(folder / "out")} | (changes or {})
        ).items():
            section, _, name = key.partition(".")
            sections.setdefault(section, {})[name] = value
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "run.yaml").write_text(yaml.safe_dump(sections))
        return folder / "run.yaml"

    return write


@pytest.fixture(scope="session")
def train_run(write_run: WriteRun) -> TrainRun:
    """Trains in this process."""

    def run(
        folder: Path,
        changes: dict[str, Any] | None = None,
        *,
        make_evaluate: Callable[..., Evaluate] | None = None,
    ) -> FinishedRun:
        config = load_run_config(write_run(folder, changes))
        make = make_evaluate and (lambda *base: Evaluations(evaluate=make_evaluate(*base)))
        trained = train(
            config,
            hooks=RunHooks(make_evaluations=make),
            say=lambda text: print(text, file=sys.stderr),
        )
        return FinishedRun(folder=Path(config.train.output_dir), trained=trained)

    return run


PLAIN = {"train.vision_tower_lr": 2e-4, "train.num_train_epochs": 4, "train.packs_per_step": 4}
FROZEN = {"train.packs_per_step": 1, "train.warmup_steps": 2, "train.lr_scheduler_type": "cosine"}


@pytest.fixture(scope="session")
def plain_changes() -> dict[str, Any]:
    """What `plain_run` changes."""
    return PLAIN


@pytest.fixture(scope="session")
def plain_run(train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """The run that others are compared with: all three towers trained, so without a vision cache;
    not to be written to.

    Four packs a step, of which the last step of an epoch has empty ones.
    """
    return train_run(tmp_path_factory.mktemp("plain"), PLAIN)


@pytest.fixture(scope="session")
def frozen_run(train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A run with the tower frozen and its features cached, one pack a step, so that some steps have
    no picture.

    A checkpoint every sixth step; not to be written to.
    """
    saved = {"train.save_strategy": "steps", "train.save_steps": 6}
    return train_run(tmp_path_factory.mktemp("frozen"), FROZEN | saved)


@pytest.fixture(scope="session")
def forked_runs(
    write_run: WriteRun,
    rows_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> ForkedRuns:
    """The plain and the frozen run again, killed and resumed, and the plain one on two ranks.

    They run while their twins do in this process; one that hangs is killed with all that it
    started.
    """
    root = tmp_path_factory.mktemp("forked")
    saved = {"train.save_strategy": "steps", "train.save_steps": 6}
    held_out = [
        {"json_path": str(rows_folder / f"{name}.jsonl"), "name": name}
        for name in ("photos", "words")
    ]
    evaluated = {"data.eval_mixture": held_out, "eval.max_rows": 5, "eval.max_new_tokens": 3}
    stopped = {
        "cached": write_run(root / "cached", FROZEN | saved),
        "workers": write_run(root / "workers", PLAIN | saved | {"train.dataloader_num_workers": 2}),
    }
    (root / "cached" / "out" / "checkpoint-8").mkdir(
        parents=True
    )  # as if cut off before its marker was written
    helped = {"train.dataloader_num_workers": 1, "data.prefetch_mb": 1}
    shared = write_run(root / "shared", PLAIN | evaluated | helped | {"train.ddp_backend": "gloo"})
    files = (*stopped.values(), shared)
    with runs_apart("forked_runs.py", KILLED_IN_STEP, *files, logs=root, timeout_s=CHILD_TIMEOUT_S):
        twins = {
            "cached": request.getfixturevalue("frozen_run"),
            "workers": request.getfixturevalue("plain_run"),
        }
    return ForkedRuns(
        stopped={
            name: StoppedRun(
                whole=twins[name],
                resumed=root / name / "out",
                messages_before=(root / name / "killed.log").read_text(),
                messages=(root / name / "again.log").read_text(),
            )
            for name in stopped
        },
        shared=root / "shared" / "out",
    )
