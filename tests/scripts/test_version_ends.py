"""Both ends of the ranges of versions, as pip is asked for them."""

import tomllib
from pathlib import Path

import pytest

from scripts.version_ends import KEPT, pins

ROOT = Path(__file__).parents[2]


def test_the_ends_of_ranges() -> None:
    ranges = ["torch>=2.9", "peft>=0.21", "transformers>=5.23,<6", "ray[data]>=2.40"]
    assert pins(ranges, "oldest") == ["peft==0.21", "transformers==5.23", "ray==2.40"]
    assert pins(ranges, "newest") == ["peft", "transformers<6", "ray"]


@pytest.mark.parametrize("requirement", ["hjson", "peft==0.21", "peft<1", "peft>=1; extra"])
def test_what_has_no_two_ends_is_refused(requirement: str) -> None:
    with pytest.raises(ValueError, match="is not NAME>=LOW"):
        pins([requirement], "oldest")


def test_every_dependency_has_a_lower_end() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [requirement.partition(">=")[0] for requirement in project["dependencies"]]
    found = [pin.partition("==")[0] for pin in pins(project["dependencies"], "oldest")]
    assert found == [name for name in named if name not in KEPT]
