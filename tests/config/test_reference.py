"""Every setting is named with its type, its default and its meaning; the page says what the schema
does."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.load import config_from
from smolvlm.config.reference import all_settings, settings_page
from smolvlm.config.schema import SECTIONS, own_names
from smolvlm.config.yaml_text import parse_yaml

ROOT = Path(__file__).parents[2]


def test_every_name_that_a_run_file_may_say_is_there_with_its_meaning() -> None:
    facts = list(all_settings())
    keys = {one.key for one in facts}
    assert keys >= {f"{section}.{name}" for section in SECTIONS for name in own_names(section)}
    assert len(keys) == len(facts)
    assert [one.key for one in facts if not one.meaning.endswith((".", ")"))] == []
    assert [one.key for one in facts if one.type in ("", "value")] == []


def test_the_page_is_the_schemas() -> None:
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == settings_page(), "run python scripts/settings_page.py"


def test_defaults_are_those_of_a_run_that_says_nothing() -> None:
    content: dict[str, Any] = {
        "model": {"path": "a/b"},
        "data": {"mixture": []},
        "train": {"output_dir": "."},
    }
    whole = config_from(content, (), where="run").model_dump(mode="json")
    checked = 0
    for one in all_settings():
        section, _, name = one.key.partition(".")
        if one.default is None or "." in name or name not in whole[section] or name == "base_dir":
            continue
        assert parse_yaml(one.default, where=one.key) == whole[section][name], one.key
        checked += 1
    assert checked > 40


@pytest.mark.parametrize(
    ("key", "type_", "default"),
    [
        ("train.output_dir", "path", None),
        ("train.language_model_lr", "number at least 0, at most 1", "2e-05"),
        ("data.sampling", "fps | uniform", "fps"),
        ("quantization.bits", "8 | 4 | null", "null"),
        ("adapters.language.r", "whole number at least 1", "8"),
        ("train.beta", "number above 0", "0.1"),
    ],
)
def test_some_by_hand(key: str, type_: str, default: str | None) -> None:
    (found,) = [one for one in all_settings() if one.key == key]
    assert (found.type, found.default) == (type_, default)
