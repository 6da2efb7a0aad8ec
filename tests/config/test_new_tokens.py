"""New tokens in the run file: both ways to write one, and what cannot be meant."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.config.new_tokens import NewToken
from smolvlm.config.schema import NEW_TOKENS_LR, RunConfig
from smolvlm.errors import ConfigError

LORA = {"adapters": {"language": {"type": "lora", "lr": 3e-4}}}
FROZEN = {"adapters": {"language": "frozen"}}


def load(folder: Path, tokens: Any, **sections: Any) -> RunConfig:
    content: dict[str, Any] = {
        "model": {"path": "o/x"},
        "data": {"mixture": []},
        "train": {"output_dir": "out"},
    }
    if tokens is not None:
        content["model"]["new_tokens"] = tokens
    for name, section in sections.items():
        content[name] = content.get(name, {}) | section
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return load_run_config(folder / "run.yaml")


def test_a_text_or_a_mapping(tmp_path: Path) -> None:
    config = load(tmp_path, ["<box>", {"token": "</box>", "description": "end of a box"}])
    assert config.model.new_tokens == [
        NewToken(token="<box>"),
        NewToken(token="</box>", description="end of a box"),
    ]
    assert [own.words for own in config.model.new_tokens] == ["<box>", "end of a box"]
    (tmp_path / "again.yaml").write_text(dump_run_config(config))
    assert load_run_config(tmp_path / "again.yaml") == config
    assert (
        "- <box>\n  - token: </box>\n    description: end of a box\n"
        in (tmp_path / "again.yaml").read_text()
    )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ("<box>", "must be a list of texts, or of mappings with `token` and `description`"),
        ([3], "must be a list of texts"),
        ([{"description": "a"}], "must be a list of texts"),
        (["<a>", "<b>", "<a>"], "<a> stands in it twice"),
        (["<a>", {"token": "<a>", "description": "b"}], "<a> stands in it twice"),
        ([""], "holds an empty token"),
        ([" \n"], "holds an empty token"),
        (["<a> "], "'<a> ' begins or ends with white space"),
        ([{"token": "<a>", "description": " "}], "the description of <a> is empty"),
    ],
)
def test_what_is_no_token_is_refused(tmp_path: Path, tokens: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, tokens)
    assert "model.new_tokens = " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "rate"),
    [
        ({}, 0.0),
        (LORA, 3e-4),
        (LORA | {"train": {"new_tokens_lr": 1e-2}}, 1e-2),
        (FROZEN, NEW_TOKENS_LR),
        ({"train": {"language_model_lr": 0, "new_tokens_lr": 2e-3}}, 2e-3),
        ({"train": {"language_model_lr": 0, "connector_lr": 0}}, NEW_TOKENS_LR),
    ],
)
def test_their_rate_is_the_adapters_unless_given(
    tmp_path: Path, sections: Any, rate: float
) -> None:
    config = load(tmp_path, ["<box>"], **sections)
    assert config.token_rows_lr == rate
    assert config.trains_language_whole == (rate == 0)


@pytest.mark.parametrize(
    ("tokens", "sections", "message"),
    [
        (
            ["<a>"],
            {"train": {"new_tokens_lr": 1e-3}},
            "train.new_tokens_lr = 0.001: has no effect: the language model",
        ),
        (
            None,
            {"train": {"trainable_tokens": ["<row_*>"]}},
            "has no effect: the language model trains in full",
        ),
        (None, LORA | {"train": {"new_tokens_lr": 1e-3}}, "has no effect without model.new_tokens"),
        (
            ["<a>"],
            LORA | {"train": {"new_tokens_lr": 0}},
            "model.new_tokens: their rows would neither train nor be",
        ),
        (
            None,
            FROZEN | {"train": {"trainable_tokens": ["x"], "new_tokens_lr": 0}},
            "train.trainable_tokens: their",
        ),
        (
            ["<a>"],
            {"freeze": {"output_head": True}},
            "their rows would stay as they begin: freeze.output_head",
        ),
    ],
)
def test_what_would_train_nothing_or_has_no_effect_is_refused(
    tmp_path: Path, tokens: Any, sections: Any, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, tokens, **sections)
    assert message in str(caught.value)
    assert "1 problem" in str(caught.value)
