"""`smolvlm report`: a run's page, or runs side by side."""

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def other(out: Path, tmp_path: Path) -> Path:
    """The trained run as another one, with another learning rate in its settings."""
    folder = tmp_path / "other"
    folder.mkdir()
    for name in ("metrics.jsonl", "predictions.jsonl", "run.json", "run.yaml"):
        shutil.copy(out / name, folder / name)
    text = (folder / "run.yaml").read_text()
    changed = text.replace("language_model_lr: 0.001", "language_model_lr: 0.0625")
    assert changed != text
    (folder / "run.yaml").write_text(changed)
    return folder


def test_runs_side_by_side(smolvlm_command: Any, out: Path, other: Path, tmp_path: Path) -> None:
    page = tmp_path / "both.html"
    outcome = smolvlm_command("report", out, other, "--html", page)
    assert outcome.status == 0, outcome.messages
    words = " ".join(outcome.messages.split())
    assert "train.language_model_lr 0.001 0.0625" in words
    assert "exact_match" in words
    assert "note:" not in words
    assert words.endswith(str(page))
    assert "train.language_model_lr" in page.read_text()


def test_a_page_goes_where_it_is_asked_for(smolvlm_command: Any, out: Path, tmp_path: Path) -> None:
    outcome = smolvlm_command("report", out, "--html", tmp_path / "one.html")
    assert outcome.status == 0
    assert outcome.messages.strip() == str(tmp_path / "one.html")
    assert (tmp_path / "one.html").read_text() == (out / "report.html").read_text()


def test_brackets_in_settings_are_text(smolvlm_command: Any, out: Path, other: Path) -> None:
    text = (other / "run.yaml").read_text()
    (other / "run.yaml").write_text(text.replace("metric: null", "metric: [bleu]"))
    assert "[bleu]" in smolvlm_command("report", out, other).messages
    assert smolvlm_command("report", out, other, "--html", other).status == 1
    assert smolvlm_command("report", out, out).status == 1
