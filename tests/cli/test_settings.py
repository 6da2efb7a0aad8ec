"""`smolvlm settings` answers by a setting's name, its last part, or its section."""

from typing import Any

import pytest


@pytest.mark.parametrize("name", ["data.fps", "fps"])
def test_one_setting(smolvlm_command: Any, name: str) -> None:
    outcome = smolvlm_command("settings", name)
    assert outcome.status == 0
    first, second = outcome.output.splitlines()
    assert first == "data.fps  number above 0; default 1"
    assert second.startswith("    Frames shown of a second of video")


def test_a_section_all_of_them_and_as_json(smolvlm_command: Any) -> None:
    section = smolvlm_command("settings", "quantization", "--json").objects
    assert {one["key"] for one in section} == {
        "quantization.bits",
        "quantization.towers",
        "quantization.quant_type",
        "quantization.double_quant",
    }
    every = smolvlm_command("settings", "--json").objects
    assert len(every) > 80
    assert {"key": "train.output_dir", "type": "path", "default": None} in [
        {name: one[name] for name in ("key", "type", "default")} for one in every
    ]


def test_names_of_transformers_and_names_of_nobody(smolvlm_command: Any) -> None:
    outcome = smolvlm_command("settings", "warmup_steps")
    assert outcome.output.splitlines()[0] == "train.warmup_steps"
    outcome = smolvlm_command("settings", "train.conector_lr")
    assert outcome.status == 2
    assert "did you mean train.connector_lr?" in outcome.messages


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("learning_rate", "each part has its own rate; set train.language_model_lr"),
        ("train.learning_rate", "each part has its own rate"),
        ("warmup_ratio", "set train.warmup_steps below 1"),
        ("cutoff_len", "set data.max_tokens_per_pack"),
    ],
)
def test_names_that_are_refused_are_answered_with_what_to_set(
    smolvlm_command: Any, name: str, words: str
) -> None:
    outcome = smolvlm_command("settings", name)
    assert (outcome.status, outcome.output) == (2, "")
    assert f"{name} is no setting here: " in outcome.messages
    assert words in outcome.messages


def test_a_name_of_two_meanings_has_both_answers(smolvlm_command: Any) -> None:
    outcome = smolvlm_command("settings", "lr")
    assert outcome.status == 0
    assert outcome.output.startswith("adapters.language.lr ")
    assert "of another trainer, lr: set train.language_model_lr" in outcome.messages
