"""What is meant by a setting's bare name, or by another trainer's name for it."""

import re

import pytest

from smolvlm.config.names import homes_of, is_known, is_switch, known_sections, override_for
from smolvlm.config.other_trainers import OTHER_TRAINERS
from smolvlm.config.problems import Problem
from smolvlm.config.training_arguments import FORMER, REFUSED


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("output_dir", "write `train.output_dir=x`"),
        ("max_rows", "write `eval.max_rows=x`"),
        ("train.seed", "write `train.seed=x`"),
        ("data.seed", "write `train.seed=x`"),
        ("warmup_steps", "write `train.warmup_steps=x`"),
        ("num_train_epoch", "did you mean `train.num_train_epochs=x`?"),
        ("max_token_per_pack", "did you mean `data.max_tokens_per_pack=VALUE`?"),
        ("evaluation_strategy", "renamed; set train.eval_strategy"),
        ("max_tokens_per_pack", "write `data.max_tokens_per_pack=x`"),
        ("hub_tokens", "did you mean `model.new_tokens=VALUE`?"),
        (
            "cutoff_len",
            "set data.max_tokens_per_pack: a pack holds whole conversations, none is cut",
        ),
        ("nothing_like_it", None),
    ],
)
def test_the_override_is_written_out(name: str, hint: str | None) -> None:
    assert override_for(name, "x") == hint


def test_a_refused_name_says_what_to_set_instead() -> None:
    assert "set train.language_model_lr" in (override_for("learning_rate", "1e-4") or "")


@pytest.mark.parametrize(
    ("name", "is_so"),
    [
        ("seed", True),
        ("eval.max_rows", True),
        ("learning_rate", True),
        ("no_cuda", True),
        ("seeds", False),
    ],
)
def test_names_that_are_known(name: str, is_so: bool) -> None:
    assert is_known(name) is is_so


def test_a_value_that_a_shell_would_split_is_quoted() -> None:
    assert override_for("run_name", "my run") == "write `'train.run_name=my run'`"


def test_a_name_of_two_sections_is_written_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smolvlm.config.names.own_names", lambda _: ("twice",))
    assert homes_of("twice")[:2] == ["model", "data"]
    assert (override_for("twice", "x") or "").startswith(
        "write `model.twice=x` or `data.twice=x` or "
    )


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("bf16", True),
        ("train.bf16", True),
        ("tf32", True),
        ("share_media", True),
        ("image_splitting", False),
        ("seed", False),
        ("output_dir", False),
        ("gone", False),
    ],
)
def test_switches(name: str, is_one: bool) -> None:
    assert is_switch(name) is is_one


@pytest.mark.parametrize("name", sorted(OTHER_TRAINERS))
def test_names_of_other_trainers_are_answered_with_ours(name: str) -> None:
    """Each hint names settings that there are, and no name is one of ours where it is asked."""
    hint = OTHER_TRAINERS[name]
    for section, setting in re.findall(r"\b(model|data|train|eval)\.([a-z_0-9]+)", hint):
        assert homes_of(setting), f"{section}.{setting}"
        assert section in homes_of(setting)
    for section in ("train", "data", "model"):
        if section not in homes_of(name) and name not in REFUSED and name not in FORMER:
            problems: list[Problem] = []
            known_sections({section: {name: 1}}, problems=problems)
            assert problems[0].fix is not None
            assert problems[0].fix == hint or "did you mean" in problems[0].fix
