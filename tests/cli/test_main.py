"""Exit statuses, help, and what is not imported before a command is chosen."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("train", "eval", "inspect", "prepare", "check", "quickstart", "report", "export")


def test_help_names_every_command(smolvlm_command: Any) -> None:
    outcome = smolvlm_command("--help")
    assert outcome.status == 0
    assert all(f" {command} " in outcome.output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(smolvlm_command: Any, command: str) -> None:
    assert smolvlm_command(command, "--help").status == 0


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["train"], ["train", "run.yaml", "--fast"], ["inspect", "run.yaml", "--rows"], []],
)
def test_wrong_usage_is_status_two(smolvlm_command: Any, arguments: list[str]) -> None:
    assert smolvlm_command(*arguments).status == 2


def test_a_missing_run_file_is_status_one(smolvlm_command: Any, tmp_path: Path) -> None:
    outcome = smolvlm_command("train", tmp_path / "none.yaml")
    assert outcome.status == 1
    assert outcome.messages.startswith(f"error: {tmp_path / 'none.yaml'}: ")


def test_nothing_heavy_is_imported_before_a_command_is_chosen() -> None:
    heavy = "{'torch', 'transformers', 'numpy', 'matplotlib'}"
    code = f"import sys, smolvlm.cli.main; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_report_is_written_anew(smolvlm_command: Any, out: Path) -> None:
    page = (out / "report.html").read_text()
    (out / "report.html").unlink()
    outcome = smolvlm_command("report", out)
    assert outcome.status == 0
    assert outcome.messages.strip() == str(out / "report.html")
    assert len((out / "report.html").read_text()) == pytest.approx(len(page), rel=0.2)


def test_a_folder_without_a_run_has_no_report(smolvlm_command: Any, tmp_path: Path) -> None:
    outcome = smolvlm_command("report", tmp_path)
    assert outcome.status == 1
    assert outcome.messages.startswith(f"error: {tmp_path}: ")
