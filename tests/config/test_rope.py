"""`model.rope_scaling`: what it may hold, and what it cannot stand beside."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.config.rope import RopeScaling
from smolvlm.errors import ConfigError


def test_without_it_the_context_is_the_checkpoints(load: Any) -> None:
    assert load().model.rope_scaling is None


def test_it_is_written_and_read_back_equal(load: Any, tmp_path: Path) -> None:
    config = load(
        "model.rope_scaling={type: yarn, factor: 2, beta_fast: 16}", "model.rope_scaling.factor=4.0"
    )
    assert config.model.rope_scaling == RopeScaling(type="yarn", factor=4.0, beta_fast=16.0)
    (tmp_path / "run.yaml").write_text(dump_run_config(config))
    assert load_run_config(tmp_path / "run.yaml") == config


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        (
            "yarn",
            "model.rope_scaling = 'yarn' (on the command line): must be a mapping of settings; the "
            "settings of",
        ),
        (
            "{type: yarn}",
            "model.rope_scaling.factor (on the command line): is required, and missing; write it "
            "beneath",
        ),
        ("{factor: 2}", "model.rope_scaling.type (on the command line): is required, and missing"),
        ("{type: yarm, factor: 2}", "must be 'linear', 'dynamic' or 'yarn'; did you mean `yarn`?"),
        (
            "{type: yarn, factor: 1}",
            "model.rope_scaling.factor = 1 (on the command line): must be above 1",
        ),
        (
            "{type: yarn, factor: '2'}",
            "model.rope_scaling.factor = '2' (on the command line): must be a number",
        ),
        ("{type: yarn, factr: 2, factor: 2}", "no such setting; did you mean `factor`?"),
        (
            "{type: yarn, old: 2, factor: 2}",
            "; the settings of model.rope_scaling are type, factor, attention",
        ),
        ("{type: linear, factor: 2, beta_fast: 3}", "linear takes no `beta_fast`"),
        ("{type: dynamic, factor: 2, attention_factor: 1}", "dynamic takes no `attention_factor`"),
        (
            "{type: yarn, factor: 2, beta_fast: 1}",
            "beta_fast (32 unless given) must be above beta_slow",
        ),
    ],
)
def test_what_cannot_be_is_refused(load: Any, scaling: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"model.rope_scaling={scaling}")
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)


@pytest.mark.parametrize(
    "adapter",
    [
        ["adapters.language=lora"],
        ["adapters.language=frozen", "model.new_tokens=['<point>']"],
        [
            "train.language_model_lr=0",
            "train.trainable_tokens=['<image>']",
            "train.new_tokens_lr=1e-3",
        ],
    ],
)
def test_where_an_adapters_folder_is_saved_it_is_refused(load: Any, adapter: list[str]) -> None:
    """Rows of single tokens are saved as one too."""
    scaled = "model.rope_scaling={type: yarn, factor: 2}"
    load(*adapter)
    with pytest.raises(ConfigError) as caught:
        load(scaled, *adapter)
    assert (
        "an adapter's folder does not carry it: put onto its base, the adapter would see other"
        in str(caught.value)
    )
    assert "1 problem:" in str(caught.value)
    load(scaled, "adapters.language=full", "model.new_tokens=['<point>']")
