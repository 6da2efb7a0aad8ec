"""Every YAML block of the pages is read as what it is: a run file, a part of one, or a mixture."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from braceexpand import braceexpand

from smolvlm.cli.early_checks import check_run_file
from smolvlm.config.schema import SECTIONS
from smolvlm.datasets.rows.mixture import load_mixture
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
    for key in ("mixture", "eval_mixture"):
        mixture = content["data"].get(key, [])
        if isinstance(mixture, str):
            (tmp_path / "rows.jsonl").touch()
            (tmp_path / mixture).write_text("- {json_path: rows.jsonl}\n")
        else:
            place_files(mixture, tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    check_run_file(tmp_path / "run.yaml", [])
