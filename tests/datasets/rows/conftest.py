"""Files that mixtures name."""

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with rows in three formats; the mixture reader opens none of them."""
    for name in ("a.json", "b.jsonl", "c.parquet", "sub/a.json"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    return tmp_path
