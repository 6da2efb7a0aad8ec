"""Help without noise, and settings of the run file that are written as options."""

from typing import Any

import pytest

from smolvlm.cli.options import unknown_options

OPTIONS = {"--rows": True, "--json": False}


@pytest.mark.parametrize("command", ["", "train", "inspect", "build", "export"])
def test_help_names_no_type_beside_flags(smolvlm_command: Any, command: str) -> None:
    output = smolvlm_command(*filter(None, [command]), "--help").output
    assert "--help" in output
    assert "<bool>" not in output
    assert "--no-json" not in output


def test_the_version(smolvlm_command: Any) -> None:
    outcome = smolvlm_command("--version")
    assert (outcome.status, outcome.output, outcome.messages) == (0, "smolvlm 0.1.0\n", "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("run.yaml --output_dir x", [("--output_dir", "x")]),
        ("--output_dir=x run.yaml", [("--output_dir", "x")]),
        ("--output-dir x run.yaml", [("--output-dir", "x")]),
        ("--bf16 run.yaml", [("--bf16", None)]),
        ("--bf16 True run.yaml", [("--bf16", "True")]),
        ("--train.bf16 run.yaml", [("--train.bf16", None)]),
        ("--gone run.yaml", [("--gone", None)]),
        ("run.yaml --gone --seed 3", [("--gone", None), ("--seed", "3")]),
        ("run.yaml --gone train.seed=3", [("--gone", None)]),
        ("run.yaml --max_steps -1", [("--max_steps", "-1")]),
        ("run.yaml --rows --seed", []),
        ("run.yaml --rows=0:3 --json train.seed=3", []),
        ("run.yaml --json --seed", [("--seed", None)]),
        ("run.yaml -- --seed 3", []),
        ("run.yaml -s 3", []),
    ],
)
def test_options_that_a_command_does_not_have(
    arguments: str, expected: list[tuple[str, str | None]]
) -> None:
    assert list(unknown_options(arguments.split(), OPTIONS)) == expected


def test_each_is_answered_with_the_override(smolvlm_command: Any) -> None:
    outcome = smolvlm_command(
        *(
            "inspect",
            "run.yaml",
            "--output_dir",
            "my run",
            "--learning_rate",
            "1e-4",
            "--bf16",
            "--fp16=false",
        ),
        *("--num_train_epoch", 3, "--hub_tokens", "secret", "--jsn", "--rows", "0:2", "--fast"),
    )
    assert outcome.status == 2
    assert outcome.output == ""
    lines = outcome.messages.splitlines()
    assert lines[0] == "error: smolvlm inspect: 8 problems:"
    what = "no such option; settings are written section.key=value"
    assert lines[1:3] == [
        f"  - --output_dir = 'my run': {what}; write `'train.output_dir=my run'`",
        f"  - --learning_rate = '1e-4': {what}; each part has its own rate; set "
        "train.language_model_lr, "
        "train.connector_lr and train.vision_tower_lr",
    ]
    assert lines[3:6] == [
        f"  - --bf16: {what}; write `train.bf16=true`",
        f"  - --fp16 = 'false': {what}; write `train.fp16=false`",
        f"  - --num_train_epoch = '3': {what}; did you mean `train.num_train_epochs=3`?",
    ]
    assert "secret" not in outcome.messages
    assert lines[7:] == [
        "  - --jsn: no such option or setting; did you mean `--json`?",
        "  - --fast: no such option or setting",
    ]


def test_an_option_that_is_near_comes_before_a_setting_that_is(smolvlm_command: Any) -> None:
    messages = smolvlm_command("inspect", "run.yaml", "--row", "0:3", "--mixture", "a").messages
    assert "--row = '0:3': no such option or setting; did you mean `--rows`?" in messages
    assert "write `data.mixture=a`" in messages


@pytest.mark.parametrize("command", ["train", "eval", "inspect", "prepare", "check"])
def test_every_command_that_takes_overrides_answers(smolvlm_command: Any, command: str) -> None:
    outcome = smolvlm_command(command, "run.yaml", "--seed", 3)
    assert outcome.status == 2
    assert "write `train.seed=3`" in outcome.messages
