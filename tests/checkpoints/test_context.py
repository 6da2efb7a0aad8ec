"""A model's context, and how it is extended: what is written is what plain transformers reads."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from smolvlm.checkpoints.context import (
    RECORD,
    context_tokens,
    name_rope_for_older_readers,
    scale_context,
)
from smolvlm.checkpoints.load import load_checkpoint, read_model_config
from smolvlm.config.rope import RopeScaling
from smolvlm.errors import ConfigError

SCALINGS = [
    RopeScaling(type="linear", factor=2.0),
    RopeScaling(type="dynamic", factor=4.0),
    RopeScaling(type="yarn", factor=2.0),
    RopeScaling(type="yarn", factor=1.5, attention_factor=1.2, beta_fast=16.0, beta_slow=2.0),
]


def rotary(model: Any) -> Any:
    return model.model.text_model.rotary_emb


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_what_is_saved_is_the_same_model_in_plain_transformers(
    folder: Path, tmp_path: Path, scaling: RopeScaling
) -> None:
    ours = load_checkpoint(str(folder), rope_scaling=scaling).model
    ours.save_pretrained(tmp_path)
    name_rope_for_older_readers(tmp_path / "config.json")
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert torch.equal(rotary(stock).inv_freq, rotary(ours).inv_freq)
    assert rotary(stock).attention_scaling == rotary(ours).attention_scaling
    assert context_tokens(stock.config) == 8192 * scaling.factor
    before = AutoModelForImageTextToText.from_pretrained(folder)
    assert not torch.equal(rotary(before).inv_freq, rotary(ours).inv_freq)


def test_the_frequencies_are_those_of_transformers_rules(folder: Path) -> None:
    plain = rotary(load_checkpoint(str(folder)).model).inv_freq
    found = [
        rotary(load_checkpoint(str(folder), rope_scaling=scaling).model) for scaling in SCALINGS
    ]
    torch.testing.assert_close(found[0].inv_freq, plain / 2)
    text = AutoConfig.from_pretrained(folder).text_config
    text.rope_parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100_000.0}
    longest, _ = ROPE_INIT_FUNCTIONS["dynamic"](text, None, seq_len=4 * 8192)
    torch.testing.assert_close(found[1].inv_freq, longest)
    assert found[2].attention_scaling == pytest.approx(
        1 + 0.1 * torch.log(torch.tensor(2.0)).item()
    )
    assert found[3].attention_scaling == 1.2


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_older_readers_find_base_and_scaling_under_their_names(
    folder: Path, tmp_path: Path, scaling: RopeScaling
) -> None:
    read_model_config(str(folder), scaling).save_pretrained(tmp_path)
    name_rope_for_older_readers(tmp_path / "config.json")
    text = json.loads((tmp_path / "config.json").read_text())["text_config"]
    new = text["rope_parameters"]
    assert text["rope_theta"] == new["rope_theta"]
    if scaling.type == "dynamic":
        assert "rope_scaling" not in text
        assert new == {
            "rope_type": "default",
            "rope_theta": pytest.approx(100_000 * 13 ** (16 / 14)),
        }
    else:
        assert text["rope_scaling"] == {
            name: value for name, value in new.items() if name != "rope_theta"
        }
        assert new["rope_type"] == scaling.type
    again = AutoConfig.from_pretrained(tmp_path).text_config
    assert again.rope_parameters == new


def test_a_base_extended_by_hand_is_the_same_model(folder: Path, tmp_path: Path) -> None:
    """As docs/context.md writes it, for adapters."""
    text = json.loads((folder / "config.json").read_text())
    text["text_config"] |= {
        "max_position_embeddings": 16384,
        "rope_parameters": {
            "rope_type": "yarn",
            "factor": 2.0,
            "original_max_position_embeddings": 8192,
            "rope_theta": 100000,
        },
    }
    del text["text_config"]["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(text))
    by_hand = read_model_config(str(tmp_path)).text_config
    scaled = read_model_config(str(folder), RopeScaling(type="yarn", factor=2.0)).text_config
    assert by_hand.rope_parameters == scaled.rope_parameters
    assert by_hand.max_position_embeddings == scaled.max_position_embeddings == 16384


def test_where_there_is_no_configuration_nothing_is_written(tmp_path: Path) -> None:
    name_rope_for_older_readers(tmp_path / "config.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_a_scaled_checkpoint_is_scaled_no_further(
    folder: Path, tmp_path: Path, scaling: RopeScaling
) -> None:
    """A run's settings are read again with its own model in place of the base, by `smolvlm eval`
    for one."""
    scaled = read_model_config(str(folder), scaling)
    scaled.save_pretrained(tmp_path)
    assert (
        read_model_config(str(tmp_path), scaling).to_dict()
        == read_model_config(str(tmp_path)).to_dict()
    )
    with pytest.raises(ConfigError) as caught:
        read_model_config(str(tmp_path), RopeScaling(type="linear", factor=8.0))
    assert str(caught.value) == (
        f"model.rope_scaling: the checkpoint's context is extended already ({scaling.type}, factor "
        f"{scaling.factor})\n"
        "  fix: take it out, or begin at the checkpoint as it was before"
    )


def test_a_checkpoint_scaled_elsewhere_is_refused(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    config.text_config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e5}
    with pytest.raises(ConfigError, match=r"is extended already \(linear, factor 2\.0\)"):
        scale_context(config, RopeScaling(type="yarn", factor=2.0))
    assert not hasattr(config.text_config, RECORD)


def test_half_a_position_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_model_config(str(folder), RopeScaling(type="linear", factor=1.3))
    assert str(caught.value) == (
        "model.rope_scaling.factor: 1.3 times the checkpoint's 8192 positions is no whole number\n"
        "  fix: set it to 1.300048828125, for 10650 positions"
    )
    assert (
        context_tokens(
            read_model_config(str(folder), RopeScaling(type="linear", factor=1.300048828125))
        )
        == 10650
    )
    with pytest.raises(ConfigError, match=r"set it to 1\.0001220703125, for 8193 positions"):
        read_model_config(str(folder), RopeScaling(type="linear", factor=1.00003))


@pytest.mark.parametrize(
    ("rope", "context"),
    [
        ({"rope_type": "default", "rope_theta": 1e5}, 8192),
        ({"rope_type": "linear", "factor": 2.0, "rope_theta": 1e5}, 8192),
        ({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e5}, 8192),
        (
            {"rope_type": "longrope", "original_max_position_embeddings": 4096, "rope_theta": 1e5},
            4096,
        ),
    ],
)
def test_the_context_ends_where_frequencies_would_change(
    folder: Path, rope: dict[str, Any], context: int
) -> None:
    config = AutoConfig.from_pretrained(folder)
    config.text_config.rope_parameters = rope
    assert context_tokens(config) == context


def test_transformers_dynamic_scaling_depends_on_what_was_seen_before(folder: Path) -> None:
    """Why `dynamic` is written as an enlarged base: below the context nothing changes, beyond it
    everything does."""
    config = AutoConfig.from_pretrained(folder)
    config.text_config.max_position_embeddings = 16
    config.text_config.rope_parameters = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e5}
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, config=config)
    own = rotary(model)

    def angles(length: int, *, beside: int = 0) -> torch.Tensor:
        positions = torch.cat([torch.arange(length), torch.arange(beside)])[None]
        return own(torch.zeros(1), positions)[0][0, :length].clone()

    alone = angles(10)
    within = angles(16, beside=10)
    assert torch.equal(angles(10, beside=16), alone)
    assert not torch.equal(angles(10, beside=40), alone), "a longer conversation in the pack"
    assert not torch.equal(angles(16), within), (
        "and behind it what is exactly as long as the context"
    )
    assert torch.equal(angles(10), alone)
    assert torch.equal(copy.deepcopy(angles(16)), within)
