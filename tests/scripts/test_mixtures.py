"""The example mixtures: they load, and hold the shares that they claim."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture

MIXTURES = Path(__file__).parents[2] / "scripts" / "mixtures"
PUBLISHED_PERCENT = {"image": 34.4, "video": 33.0, "text": 20.2, "multiimage": 12.3}
ROUNDING = 0.15
"""Of a dozen published shares, each rounded to a tenth."""


def test_the_video_stage_has_the_published_shares(tmp_path: Path) -> None:
    """Every source is given one row; its place in the mix is its weight's."""
    groups = yaml.safe_load((MIXTURES / "video_stage.yaml").read_text())
    (tmp_path / "rows").mkdir()
    for source in (source for group in groups.values() for source in group):
        (tmp_path / source["json_path"]).write_text('{"question": "q", "answer": "a"}\n')
    (tmp_path / "video_stage.yaml").write_text((MIXTURES / "video_stage.yaml").read_text())
    sources = open_sources(load_mixture("video_stage.yaml", base_dir=tmp_path))
    group_of = {source["name"]: group for group, own in groups.items() for source in own}
    percent: Counter[str] = Counter()
    for source in sources:
        percent[group_of[source.spec.name]] += source.spec.weight or 0
    assert len(sources) == len(group_of) == 26
    assert dict(percent) == pytest.approx(PUBLISHED_PERCENT, abs=ROUNDING)
