"""`section.key=value` over the run file's settings."""

from typing import Any

import pytest

from smolvlm.config.overrides import apply_overrides
from smolvlm.config.problems import Problem, problems_error

SETTINGS = {"train": {"output_dir": "out", "fsdp_config": {"version": 2}}, "eval": None}


def apply(*overrides: str) -> tuple[dict[str, Any], frozenset[str], str]:
    problems: list[Problem] = []
    settings, keys = apply_overrides(SETTINGS, overrides, problems=problems)
    return settings, keys, str(problems_error(problems, where="x")) if problems else ""


def test_values_are_yaml_and_later_ones_win() -> None:
    settings, keys, problems = apply(
        "train.connector_lr=1e-4", "data.mixture=[{json_path: a.json}]", "train.connector_lr=0"
    )
    assert settings["train"] == {
        "output_dir": "out",
        "fsdp_config": {"version": 2},
        "connector_lr": 0,
    }
    assert settings["data"] == {"mixture": [{"json_path": "a.json"}]}
    assert keys == {"train.connector_lr", "data.mixture"}
    assert not problems


def test_deeper_keys_keep_their_neighbours() -> None:
    settings, keys, _ = apply(
        "train.fsdp_config.reshard=true", "eval.max_rows=", "train.run_name=a=b"
    )
    assert settings["train"]["fsdp_config"] == {"version": 2, "reshard": True}
    assert settings["eval"] == {"max_rows": None}
    assert settings["train"]["run_name"] == "a=b"
    assert keys == {"train.fsdp_config", "eval.max_rows", "train.run_name"}


def test_the_settings_given_are_not_changed() -> None:
    apply("train.fsdp_config.version=1")
    assert SETTINGS == {"train": {"output_dir": "out", "fsdp_config": {"version": 2}}, "eval": None}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.bf16", "override `train.bf16`: an override is written section.key=value"),
        ("bf16=true", "override `bf16=true`: an override is written section.key=value"),
        ("=1", "override `=1`: an override is written section.key=value"),
        ("train.=1", "override `train.=1`: an override is written section.key=value"),
        ("--train.bf16=true", "an override is written section.key=value; write `train.bf16=true`"),
        ("train.a=[1", "override `train.a=[1`: cannot read the YAML: "),
        ("train.output_dir.x=1", "there is no mapping to set `x` in; override the whole value"),
    ],
)
def test_an_override_that_cannot_be_read_is_a_problem_among_others(
    override: str, message: str
) -> None:
    settings, keys, problems = apply(override, "train.seed=1")
    assert message in problems
    assert settings["train"]["seed"] == 1
    assert keys == {"train.seed"}
