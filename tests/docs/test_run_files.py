"""Every YAML block of the pages is read as what it is: a run file, a part of one, or a mixture."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from braceexpand import braceexpand
from safetensors.torch import load_file

from smolvlm.cli.early_checks import check_run_file
from smolvlm.config.schema import SECTIONS
from smolvlm.datasets.rows.mixture import load_mixture
from tests.command_line import call_smolvlm
from tests.docs.conftest import ROOT, blocks_of

PAGES = sorted(
    page
    for pattern in ("README.md", "docs/**/*.md")
    for page in (path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
)
BLOCKS = [(page, block) for page in PAGES for block in blocks_of(ROOT / page, "yaml")]
WHOLE = {
    "model": {"path": "a/b"},
    "data": {"mixture": [{"json_path": "rows.jsonl"}]},
    "train": {"output_dir": "out"},
}
"""What a part of a run file leaves to the reader."""


def is_run_file(content: Any) -> bool:
    return isinstance(content, dict) and set(content) <= set(SECTIONS)


def place_files(sources: Any, folder: Path) -> None:
    """Make the files and folders that a mixture's sources name, if only empty."""
    groups = sources.values() if isinstance(sources, dict) else [sources]
    for source in (one for group in groups for one in group):
        rows = source.get("json_path")
        if rows is not None and "path" in source:
            (folder / source["path"]).mkdir(parents=True, exist_ok=True)
        for name in braceexpand((rows or source.get("path", "rows.jsonl")).replace("*", "0")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()


def test_there_are_blocks_of_both_kinds() -> None:
    kinds = [is_run_file(yaml.safe_load(block)) for _, block in BLOCKS]
    assert sum(kinds) >= 12
    assert kinds.count(False) >= 3


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[page for page, _ in BLOCKS])
def test_the_block_is_read(page: str, block: str, tmp_path: Path) -> None:
    content = yaml.safe_load(block)
    if not is_run_file(content):
        place_files(content, tmp_path)
        (tmp_path / "mixture.yaml").write_text(block)
        assert load_mixture("mixture.yaml", base_dir=tmp_path)
        return
    for section, least in WHOLE.items():
        content[section] = {**least, **content.get(section, {})}
    if "eval" in content:  # which has nothing to act on otherwise
        content["data"].setdefault("eval_mixture", [{"json_path": "eval.jsonl"}])
    for key in ("mixture", "eval_mixture"):
        mixture = content["data"].get(key, [])
        if isinstance(mixture, str):
            (tmp_path / "rows.jsonl").touch()
            (tmp_path / mixture).write_text("- {json_path: rows.jsonl}\n")
        else:
            place_files(mixture, tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    check_run_file(tmp_path / "run.yaml", [])


def test_a_run_that_evaluates_as_the_page_says_keeps_its_best(
    reader_folder: Path,
) -> None:
    """The block of docs/evaluating.md, with an evaluation every second step in place of every
    200th."""
    (block,) = (
        text for text in blocks_of(ROOT / "docs" / "evaluating.md", "yaml") if "eval_steps" in text
    )
    content = yaml.safe_load(block.replace(": 200 ", ": 2 ").replace(": 200\n", ": 2\n"))
    content["model"] = {"path": "tiny"}
    content["data"]["image_splitting"] = False
    content["train"] |= {"packs_per_step": 1, "max_steps": 4, "output_dir": "runs/evaluated"}
    (reader_folder / "my" / "evaluated.yaml").write_text(yaml.safe_dump(content))
    outcome = call_smolvlm("train", "my/evaluated.yaml")
    assert outcome.status == 0, outcome.messages
    run = reader_folder / "runs" / "evaluated"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scored = [line["step"] for line in lines if "eval_exact_match" in line]
    assert scored == [0, 2, 4], "the untrained model's is step 0; step 2's stays the best"
    kept, best = (load_file(folder / "model.safetensors") for folder in (run, run / "checkpoint-2"))
    assert all(torch.equal(kept[name], value) for name, value in best.items())
    assert (run / "predictions-before.jsonl").is_file()
    assert (run / "predictions.jsonl").is_file()
