"""Every set of a CPU's ways trains in either precision, on rows long enough for each of them."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from smolvlm.model.attention.dense import MIN_FLOAT32_ROWS
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices
from smolvlm.train import cpu_ways
from tests.train.conftest import TrainRun

WAYS = [
    CpuChoices(bf16_products=bf16, onednn_products=onednn, packed_tower=packed)
    for bf16, onednn, packed in product((True, False), repeat=3)
]


@pytest.fixture(scope="module")
def long_rows(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conversation longer than `MIN_FLOAT32_ROWS`, a picture with a long answer, and a tree of
    two questions about another picture."""
    words = " ".join(
        f"{number} is {number % 7} and then" for number in range(MIN_FLOAT32_ROWS // 4)
    )
    rows = [
        {"question": "Count.", "answer": words},
        {"image": str(photos["coffee"]), "question": "Count.", "answer": words},
        {"image": str(photos["chelsea"]), "question": "Describe it.", "answer": words},
        {"image": str(photos["chelsea"]), "question": "What is it?", "answer": "a cat"},
    ]
    path = tmp_path_factory.mktemp("long") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("is_half", [False, True], ids=["float32", "bf16"])
def test_all_ways_learn_the_same(
    train_run: TrainRun,
    long_rows: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_half: bool,
) -> None:
    changes: dict[str, Any] = {
        "data.mixture": [{"json_path": str(long_rows)}],
        "data.max_tokens_per_pack": 4096,
        "train.bf16": is_half,
        "train.packs_per_step": 1,
        "train.num_train_epochs": 3,
    }
    losses = {}
    for number, ways in enumerate(WAYS):
        monkeypatch.setattr(cpu_ways, "machine_choices", lambda ways=ways: ways)
        run = train_run(tmp_path / str(number), changes)
        losses[ways] = run.losses
        assert max(line["num_tokens"] for line in run.steps) > 2 * MIN_FLOAT32_ROWS
    stock = losses[STOCK_CHOICES]
    assert len(stock) > 1
    for ways, found in losses.items():
        assert found == pytest.approx(stock, rel=1e-2 if is_half else 1e-5), ways
