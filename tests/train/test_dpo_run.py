"""Preference training from a run file: it learns what is preferred, says so, and refuses rows of
the other kind."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from smolvlm.errors import SampleError
from tests.train.conftest import TrainRun

KEYS = (
    "logps_chosen",
    "logps_rejected",
    "rewards_chosen",
    "rewards_rejected",
    "rewards_margin",
    "rewards_accuracy",
)


@pytest.fixture(scope="module")
def preferences(
    tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path], clips: dict[str, Path]
) -> Path:
    """Short answers preferred to long ones: about pictures, a clip, and nothing at all."""
    rows = [
        {
            "prompt": "What is shown?",
            "chosen": name,
            "rejected": f"This is a picture of {name}.",
            "image": str(path),
        }
        for name, path in photos.items()
    ]
    rows.append(
        {
            "prompt": "What is it?",
            "chosen": "Coffee.",
            "rejected": "A film.",
            "video": str(clips["uneven"]),
        }
    )
    rows += [
        {"prompt": f"{n} and 2?", "chosen": f"{n + 2}", "rejected": f"It is {n + 2}."}
        for n in range(8)
    ]
    path = tmp_path_factory.mktemp("preferences") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def changes(preferences: Path) -> dict[str, Any]:
    return {
        "data.mixture": [{"json_path": str(preferences)}],
        "data.max_tokens_per_pack": 256,
        "train.method": "dpo",
        "train.beta": 0.5,
        "train.num_train_epochs": 6,
        "train.packs_per_step": 2,
    }


def test_it_learns_what_is_preferred(
    train_run: TrainRun, changes: dict[str, Any], tmp_path: Path
) -> None:
    run = train_run(tmp_path, changes)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(set(KEYS) <= line.keys() for line in lines)
    first, last = lines[0], lines[-1]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5), (
        "the model begins as its own reference"
    )
    assert first["rewards_margin"] == pytest.approx(0, abs=1e-5)
    assert last["loss"] < 0.5
    assert last["rewards_accuracy"] == 1.0
    assert last["rewards_margin"] == pytest.approx(
        last["rewards_chosen"] - last["rewards_rejected"], abs=1e-4
    )
    samples = [
        json.loads(line)["where"]
        for line in (run.folder / "samples.jsonl").read_text().splitlines()
    ]
    assert sum(map(len, samples)) == 6 * 15, "a pair is one row"
    assert load_file(run.folder / "reference.safetensors")["logps"].shape == (15, 2)


def test_without_a_reference_none_is_computed(
    train_run: TrainRun, changes: dict[str, Any], tmp_path: Path
) -> None:
    own = changes | {
        "train.loss_type": "simpo",
        "train.beta": 2.0,
        "train.margin": 0.5,
        "train.sft_weight": 0.1,
    }
    run = train_run(tmp_path, own)
    assert not (run.folder / "reference.safetensors").exists()
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_packs_and_their_order_do_not_matter(
    train_run: TrainRun, changes: dict[str, Any], tmp_path: Path
) -> None:
    """All rows in each step: many small packs or one large one, the losses are the same."""
    own = changes | {"train.num_train_epochs": 2, "data.max_tiles_per_pack": 200}
    runs = [
        train_run(
            tmp_path / "one", own | {"data.max_tokens_per_pack": 4096, "train.packs_per_step": 1}
        ),
        train_run(
            tmp_path / "many", own | {"data.max_tokens_per_pack": 200, "train.packs_per_step": 64}
        ),
    ]
    losses = [
        [
            json.loads(line)["loss"]
            for line in (run.folder / "metrics.jsonl").read_text().splitlines()
        ]
        for run in runs
    ]
    assert len(losses[0]) == 2
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_rows_of_the_other_kind_are_refused(
    train_run: TrainRun, changes: dict[str, Any], words_alone: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(
        SampleError, match=r"`chosen` and `rejected` are missing(.|\n)*set `train.method: sft`"
    ):
        train_run(tmp_path / "words", changes | words_alone)
    mixture = {"data.mixture": changes["data.mixture"]}
    with pytest.raises(
        SampleError, match=r"where answers are learned(.|\n)*set `train.method: dpo`"
    ):
        train_run(tmp_path / "pairs", mixture)
