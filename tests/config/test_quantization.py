"""The section `quantization`: its defaults, and combinations that could not train or have no
effect."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.errors import ConfigError

ADAPTED = "adapters.language=lora"


def given(section: str) -> list[str]:
    """Return overrides that say what a section `{key: value; ...}` says."""
    return [
        f"quantization.{setting.strip().replace(': ', '=', 1)}" for setting in section.split(";")
    ]


def test_without_the_section_nothing_is_quantised(load: Any) -> None:
    assert load().quantization.parts == ()


def test_by_default_the_language_model_alone_in_nf4_with_double_quantisation(load: Any) -> None:
    own = load(ADAPTED, "quantization.bits=4").quantization
    assert (own.parts, own.codebook, own.has_double_quant) == (("language",), "nf4", True)


def test_what_is_given_is_taken(load: Any) -> None:
    own = load(
        ADAPTED, *given("bits: 4; quant_type: fp4; double_quant: false; towers: [language, vision]")
    )
    assert own.quantization.parts == ("language", "vision")
    assert (own.quantization.codebook, own.quantization.has_double_quant) == ("fp4", False)


@pytest.mark.parametrize(
    "section", ["", "bits: 8", "bits: 4", "bits: 4, double_quant: false, towers: [vision]"]
)
def test_it_is_written_and_read_back_equal(run_dir: Path, section: str) -> None:
    with (run_dir / "run.yaml").open("a") as file:
        file.write(f"adapters: {{language: lora}}\nquantization: {{{section}}}\n")
    config = load_run_config(run_dir / "run.yaml")
    (run_dir / "again.yaml").write_text(dump_run_config(config))
    assert load_run_config(run_dir / "again.yaml") == config


@pytest.mark.parametrize("type", ["lora", "rslora", "dora"])
def test_a_quantised_tower_with_an_adapter_or_frozen_is_well(load: Any, type: str) -> None:
    load(f"adapters.language={type}", *given("bits: 8; towers: [language, vision]"))
    load(f"adapters.connector={type}", "train.language_model_lr=0", "quantization.bits=4")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quantization.bits=5"], "quantization.bits = 5: must be 8 or 4"),
        (["quantization.bits='4'"], "quantization.bits = '4': must be 8 or 4"),
        (
            given("bits: 4; quant_type: int4"),
            "quantization.quant_type = 'int4': must be 'nf4' or 'fp4'",
        ),
        (given("bits: 4; towers: []"), "quantization.towers = []: must not be empty"),
        (given("bits: 4; towers: [text]"), "must be 'language', 'connector' or 'vision'"),
        (
            given("bits: 4; quanttype: nf4"),
            "no such setting; did you mean quantization.quant_type?",
        ),
        (
            given("bits: 8; quant_type: nf4"),
            "quantization.quant_type = 'nf4': has no effect with 8 bits",
        ),
        (
            given("bits: 8; double_quant: true"),
            "quantization.double_quant = true: has no effect with 8 bits",
        ),
        (
            given("towers: [language]"),
            "towers = ['language']: has no effect with no quantization.bits",
        ),
        (given("bits: 8; towers: [language, language]"), "names a tower twice"),
        (
            ["quantization.bits=4", "adapters.language=pissa"],
            "it takes the base's weights apart, and quantization hol",
        ),
        (
            given("bits: 4; towers: [connector]"),
            "quantization.towers = 'connector': weights in 4 bits are not trained, and "
            "train.connector_lr = 0.0001; "
            "add adapters.connector: lora, or set the rate to 0",
        ),
        (
            [*given("bits: 4; towers: [language, connector]"), "adapters.connector=full"],
            "weights in 4 bits are not trained, and train.connector_lr = 0.0001",
        ),
        (
            ["quantization.bits=4", "train.fsdp=full_shard"],
            "quantised weights cannot be cut into the shards",
        ),
    ],
)
def test_what_cannot_be_is_refused(load: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ADAPTED, *overrides)
    assert message in str(caught.value).replace(" (on the command line)", "")
    assert "1 problem:" in str(caught.value)


def test_without_any_adapter_it_is_refused(load: Any) -> None:
    with pytest.raises(ConfigError, match="what is saved is an adapter, and no tower has one"):
        load("quantization.bits=8", "train.language_model_lr=0")


@pytest.mark.parametrize(
    ("bits", "expected"), [("null", ()), ("8", ("vision",)), ("4", ("vision",))]
)
def test_other_bits_on_the_command_line_take_what_they_leave_without_effect_out(
    run_dir: Path, bits: str, expected: tuple[str, ...]
) -> None:
    """So that `smolvlm eval FOLDER quantization.bits=null` is all that the full base asks for."""
    with (run_dir / "run.yaml").open("a") as file:
        file.write(
            "adapters: {language: lora}\nquantization: {bits: 4, quant_type: fp4, towers: "
            "[vision]}\n"
        )
    own = load_run_config(run_dir / "run.yaml", [f"quantization.bits={bits}"]).quantization
    assert own.parts == expected
    assert getattr(own, "quant_type", None) == ("fp4" if bits == "4" else None)
    with pytest.raises(ConfigError, match="has no effect with 8 bits"):
        load_run_config(
            run_dir / "run.yaml", ["quantization.bits=8", "quantization.quant_type=nf4"]
        )
