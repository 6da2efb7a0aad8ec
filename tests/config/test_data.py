"""`data`: settings that another one leaves without effect."""

import pytest

from smolvlm.config.load import config_from
from smolvlm.errors import ConfigError


def load(**data: object) -> object:
    content = {
        "model": {"path": "embedded"},
        "data": {"mixture": [], **data},
        "train": {"output_dir": "out"},
    }
    return config_from(content, [], where="run.yaml").data.image_splitting


def test_pictures_are_cut_in_three_ways() -> None:
    assert [load(image_splitting=value) for value in (True, False, "overview", None)] == [
        True,
        False,
        "overview",
        None,
    ]
    with pytest.raises(ConfigError, match="must be true, false or overview"):
        load(image_splitting="tiles")


def test_an_overview_is_of_one_tile() -> None:
    with pytest.raises(ConfigError, match=r"data\.longest_edge_px.*pictures are one tile"):
        load(image_splitting="overview", longest_edge_px=1024)
