"""Mistakes in settings are named before anything heavy is imported, whatever the command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEAVY = (
    *("torch", "transformers", "accelerate", "peft", "bitsandbytes", "datasets"),
    *("pandas", "pyarrow", "matplotlib", "numpy", "PIL", "av"),
)
_CODE = (
    "import sys\nfrom smolvlm.cli.main import main\n"
    f"try:\n    main()\nfinally:\n    print([name for name in {HEAVY} if name in sys.modules], "
    "file=sys.stderr)"
)
SOURCE = "{json_path: rows.jsonl}"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run `smolvlm` in a process of its own; return its status and messages, having imported
    nothing heavy."""
    (tmp_path / "rows.jsonl").write_text(
        json.dumps({"question": "What?", "answer": "That."}) + "\n"
    )
    (tmp_path / "mix.yaml").write_text(f"[{SOURCE}]\n")
    (tmp_path / "bad_mix.yaml").write_text("[{json_path: rows.jsonl, wieght: 2}]\n")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))

    def call(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-W", "error", "-c", _CODE, *map(str, arguments)]
        ran = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        messages, _, imported = ran.stderr.rstrip().rpartition("\n")
        assert imported == "[]"
        return ran.returncode, messages or ran.stdout

    return call


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., str]:
    """Write a run file that is right but for these sections."""

    def write(**sections: str) -> str:
        right = {
            "model": "{path: o/m}",
            "data": f"{{mixture: [{SOURCE}]}}",
            "train": "{output_dir: out}",
        }
        lines = [f"{name}: {content}\n" for name, content in {**right, **sections}.items()]
        (tmp_path / "run.yaml").write_text("".join(lines))
        return "run.yaml"

    return write


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--help",), "Usage: "),
        (("--version",), "smolvlm 0.1.0"),
        (("train", "--help"), "Usage: "),
        (("build", "--help"), "Usage: "),
        (("eval", "--help"), "Usage: "),
    ],
)
def test_answers_that_need_no_run_file(
    told: Any, arguments: tuple[str, ...], expected: str
) -> None:
    status, messages = told(*arguments)
    assert status == 0
    assert expected in messages


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"modle": "{path: o/m}"}, "modle: no such section; did you mean `model`?"),
        (
            {"train": "{output_dir: out, packs_per_stepp: 3}"},
            "train.packs_per_stepp = 3: no such setting; did you mean train.packs_per_step?",
        ),
        (
            {"train": "{output_dir: out, packs_per_step: x}"},
            "train.packs_per_step = 'x': must be a whole number",
        ),
        (
            {"train": "{output_dir: out, connector_lr: 2}"},
            "train.connector_lr = 2: must be at most 1",
        ),
        (
            {"train": "{output_dir: out, save_stepz: 3}"},
            "train.save_stepz = 3: no such setting; did you mean train.save_steps?",
        ),
        ({"train": "{output_dir: out, save_steps: x}"}, "train.save_steps = 'x': must be a number"),
        (
            {"train": "{output_dir: out, optim: adam}"},
            "train.optim = 'adam': must be one of adamw_torch, ",
        ),
        (
            {"train": "{output_dir: out, eval_strategy: steps}"},
            "there is no data.eval_mixture to evaluate on",
        ),
        ({"data": "{mixture: [{path: gone.jsonl}]}"}, "run.yaml: data.mixture: 1 problem:"),
        (
            {"data": "{mixture: bad_mix.yaml}"},
            "[0].wieght = 2: unknown key; did you mean `weight`?",
        ),
        (
            {"data": "{mixture: rows.jsonl}"},
            "rows.jsonl: this is a file of rows (JSON lines), not a mixture",
        ),
    ],
)
def test_a_mistake_in_a_run_file(
    told: Any, write_run: Any, sections: dict[str, str], expected: str
) -> None:
    status, messages = told("train", write_run(**sections))
    assert (status, expected in messages) == (1, True), messages


@pytest.mark.parametrize("command", ["inspect", "prepare", "check", "eval"])
def test_other_commands_that_take_a_run_file(told: Any, write_run: Any, command: str) -> None:
    run_file = write_run(train="{output_dir: out, save_stepz: 3}")
    status, messages = told(command, run_file, "eval.batch_size=0")
    assert status == 1
    assert messages.startswith("error: run.yaml: 2 problems:\n")
    assert "eval.batch_size = 0 (on the command line): must be at least 1" in messages


@pytest.mark.parametrize("command", ["prepare", "check"])
def test_a_mixture_by_itself(told: Any, command: str) -> None:
    status, messages = told(command, "bad_mix.yaml")
    assert (status, "[0].wieght = 2: unknown key" in messages) == (1, True)
    status, messages = told(command, "rows.jsonl")
    assert status == 1
    assert "this is a file of rows (JSON lines), not a mixture or a run file" in messages


def test_held_out_mixtures_of_the_command_line(told: Any, write_run: Any, tmp_path: Path) -> None:
    assert "[0].wieght" in told("check", "mix.yaml", "--held-out", "bad_mix.yaml")[1]
    assert "[0].wieght" in told("eval", "o/m", "--mixture", "bad_mix.yaml")[1]
    assert "[0].wieght" in told("eval", write_run(), "--mixture", "bad_mix.yaml")[1]
    assert "nothing to evaluate on" in told("eval", write_run())[1]
    (tmp_path / "out" / "checkpoint-1").mkdir(parents=True)
    (tmp_path / "run.yaml").rename(tmp_path / "out" / "run.yaml")
    (tmp_path / "out" / "rows.jsonl").write_text("")
    for target in ("out", "out/checkpoint-1"):
        assert "nothing to evaluate on" in told("eval", target)[1]


def test_what_is_no_run_is_not_evaluated_without_rows(told: Any) -> None:
    for target in ("o/m", "gone", "out/checkpoint-9"):
        assert (
            "neither a run folder nor a run file, so there is no eval_mixture"
            in told("eval", target)[1]
        )


def test_a_file_of_rows_is_not_evaluated(told: Any) -> None:
    status, messages = told("eval", "rows.jsonl")
    assert status == 1
    assert (
        "this is a file of rows (JSON lines), not a run folder, a run file or a checkpoint"
        in messages
    )


def test_settings_written_as_options(told: Any, write_run: Any) -> None:
    status, messages = told("train", write_run(), "--output_dir", "x")
    assert status == 2
    assert messages.endswith("; write `train.output_dir=x`")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--merge", "--merge: has no effect with --to gguf"),
        ("--dtype=q4_k", "--dtype q4_k: --to gguf has no such weights"),
    ],
)
def test_options_that_an_export_has_no_use_for(told: Any, option: str, message: str) -> None:
    assert message in told("export", "x", "--out", "y", "--to", "gguf", option)[1]


def test_mistakes_in_settings_and_in_mixtures_are_said_at_once(
    told: Any, write_run: Any, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "other.yaml").write_text("[{json_path: gone.jsonl}]\n")
    run = write_run(
        train="{output_dir: out, packs_per_stepp: 3}",
        data="{mixture: bad_mix.yaml, eval_mixture: folder/other.yaml, fps: x}",
    )
    for command in ("train", "prepare", "check", "inspect"):
        status, messages = told(command, run)
        assert status == 1
        lines = messages.splitlines()
        assert lines[0] == "error: run.yaml: 2 problems:"
        assert sum("packs_per_stepp = 3" in line or "data.fps = 'x'" in line for line in lines) == 2
        assert "bad_mix.yaml: 1 problem:" in messages
        assert "[0].wieght = 2: unknown key" in messages
        assert "other.yaml: 1 problem:" in messages
        assert "no such file: " in messages


@pytest.mark.parametrize(
    ("data", "num_errors"),
    [
        ("{mixture: gone.yaml}", 1),
        ("{mixture: 3}", 1),
        ("{mixture: }", 1),
        ("{}", 1),
        ("[mixture]", 1),
        ("{mixture: [], eval_mixture: bad_mix.yaml}", 3),
        ("{mixture: [{json_path: rows.jsonl, wieght: 2}]}", 2),
        ("{mixture: bad_mix.yaml, base_dir: folder/..}", 2),
        ("{mixture: bad_mix.yaml, base_dir: 3}", 2),
    ],
)
def test_a_mixture_that_the_settings_refuse_is_not_said_twice(
    told: Any, write_run: Any, tmp_path: Path, data: str, num_errors: int
) -> None:
    (tmp_path / "folder").mkdir()
    run = write_run(train="{output_dir: out, packs_per_stepp: 3}", data=data)
    status, messages = told("train", run)
    assert status == 1
    assert messages.count("packs_per_stepp = 3") == 1
    begins = [line for line in messages.splitlines() if not line.startswith(" ")]
    assert len(begins) == num_errors, messages


def test_a_bare_mixture_and_the_held_out_one_are_looked_at_together(
    told: Any, tmp_path: Path
) -> None:
    (tmp_path / "held.yaml").write_text("[{json_path: gone.jsonl}]\n")
    status, messages = told("check", "bad_mix.yaml", "--held-out", "held.yaml")
    assert status == 1
    assert "unknown key; did you mean `weight`?" in messages
    assert "no such file: " in messages
    status, messages = told("eval", "o/m", "--mixture", "bad_mix.yaml", "eval.batch_sice=2")
    assert status == 1
    assert "unknown key; did you mean `weight`?" in messages
    assert "eval.batch_sice = 2" in messages
