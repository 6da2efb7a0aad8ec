"""The plan knows nothing of where the rows and pictures lie."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import measure_sources
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.measured import RowRequirements, settle_rows
from smolvlm.datasets.packing.plan import PlanSettings, plan_training
from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture

NUM_QUESTIONS = 7


@pytest.fixture
def folder(tmp_path: Path, photos: dict[str, Path]) -> Path:
    """Questions about five photographs, from two sources that share their pictures."""
    root = tmp_path / "first"
    (root / "pictures").mkdir(parents=True)
    names = sorted(photos)[:5]
    for name in names:
        shutil.copy(photos[name], root / "pictures" / photos[name].name)
    for source in ("one", "two"):
        rows = [
            {"image": photos[name].name, "question": f"{source} {number}?", "answer": "yes"}
            for number in range(NUM_QUESTIONS)
            for name in names
        ]
        (root / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def plan_of(folder: Path, prompt: PromptSettings, *, path: Any = "pictures") -> str:
    entries = [{"json_path": f"{name}.jsonl", "path": str(path)} for name in ("one", "two")]
    sources = open_sources(load_mixture(entries, base_dir=folder))
    budget = Budget(max_tokens=1000, max_tiles=32)
    measured = settle_rows(
        sources,
        measure_sources(sources, prompt),
        requirements=RowRequirements(budget=budget),
        on_bad_sample="error",
        max_bad_fraction=0,
    )
    assert measured.lengths.prefix_group.max() == 4, "the sources share their pictures"
    chosen = PlanSettings(budget=budget, packs_per_step=2, share_media=True, max_branches=4, seed=3)
    return plan_training(measured.lengths, chosen).packs.digest()


def test_rows_that_are_moved_make_the_same_packs(folder: Path, prompt: PromptSettings) -> None:
    expected = plan_of(folder, prompt)
    for number in range(4):  # of one place in two, the digests would come in the same order
        moved = folder.parent / f"elsewhere {number}" / "deeper"
        shutil.copytree(folder, moved)
        assert plan_of(moved, prompt) == expected
        assert plan_of(moved, prompt, path=moved / "pictures") == expected
