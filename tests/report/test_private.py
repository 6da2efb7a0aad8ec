"""A private run's pages: numbers and names of sources, and no row, picture or path."""

import base64
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm import api
from smolvlm.build.processor import ModelType
from smolvlm.report.private import hidden_settings, is_private, shown_settings
from smolvlm.report.report import run_report
from smolvlm.report.side_by_side import compare_runs
from smolvlm.report.side_page import side_page

SETTINGS: dict[str, Any] = {
    "model": {"path": "HuggingFaceTB/SmolVLM-256M-Instruct"},
    "data": {
        "mixture": {
            "own": [{"name": "scans", "json_path": "a.jsonl", "path": "pictures", "weight": 2.0}],
            "other": [{"hub": "owner/secret", "filter": {"ward": "B"}, "license": "cc-by-4.0"}],
        },
        "base_dir": "/home/me",
        "image_splitting": False,
        "sampling": "fps",
    },
    "train": {"output_dir": "out", "private": True, "optim": "adamw_torch", "report_to": "none"},
    "eval": {"best_by": "yes_no/exact_match"},
}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(SETTINGS, True), ({}, False), ({"train": None}, False), ({"train": {"private": 1}}, False)],
)
def test_what_is_private(settings: dict[str, Any], expected: bool) -> None:
    assert is_private(settings) is expected


def test_settings_keep_what_names_no_place() -> None:
    shown = yaml.safe_load(hidden_settings(SETTINGS))
    text = hidden_settings(SETTINGS)
    assert not any(word in text for word in ("a.jsonl", "pictures", "secret", "ward: B", "/home"))
    assert shown["model"] == SETTINGS["model"]
    (own,) = shown["data"]["mixture"]["own"]
    assert (own["name"], own["weight"]) == ("scans", 2.0)
    assert shown["data"]["mixture"]["other"][0]["license"] == "cc-by-4.0"
    assert (shown["data"]["image_splitting"], shown["data"]["sampling"]) == (False, "fps")
    assert shown["train"]["optim"] == "adamw_torch"
    assert shown["eval"] == SETTINGS["eval"]


def test_two_places_are_told_apart() -> None:
    def shown(path: str) -> str:
        settings = {"data": {"mixture": path}, "train": {"private": True}}
        return yaml.safe_load(shown_settings(yaml.safe_dump(settings)))["data"]["mixture"]

    assert shown("a.yaml") == shown("a.yaml")
    assert shown("a.yaml") != shown("b.yaml")
    assert shown("a.yaml").startswith("(private, ")


@pytest.mark.parametrize("text", ["", "- 1", ": {", "train: {private: false}"])
def test_all_else_is_shown_as_it_is(text: str) -> None:
    assert shown_settings(text) == text


@pytest.fixture(scope="module")
def runs(
    checkpoint_folders: dict[ModelType, Path],
    photos: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[bool, Path]:
    """Two runs of one row with a picture, one of them private."""
    root = tmp_path_factory.mktemp("private")
    picture = root / "secretpicture.jpg"
    shutil.copy(photos["coffee"], picture)
    rows = [{"question": "Secretquestion?", "answer": "secretanswer", "image": str(picture)}]
    found: dict[bool, Path] = {}
    for private in (False, True):
        run_dir = root / str(private)
        settings: dict[str, Any] = {
            "model": {"path": str(checkpoint_folders["smolvlm"])},
            "data": {"longest_edge_px": 64, "max_tokens_per_pack": 128},
            "train": {
                "output_dir": str(run_dir),
                "packs_per_step": 1,
                "max_steps": 2,
                "logging_steps": 1,
                "eval_strategy": "steps",
                "eval_steps": 1,
                "use_cpu": True,
                "private": private,
            },
            "eval": {"max_new_tokens": 2},
        }
        api.train(api.load_config(settings, rows=rows, eval_rows=rows))
        found[private] = run_dir
    return found


def test_the_page_has_numbers_alone(runs: dict[bool, Path], photos: dict[str, Path]) -> None:
    assert photos["coffee"].is_file()
    open_page, page = (run_report(runs[private]) for private in (False, True))
    words = ("Secretquestion", "secretanswer", "<img", str(runs[True].parent))
    assert [word in open_page for word in words] == [True, True, True, True]
    assert [word in page for word in words] == [False] * 4
    assert "the run is private" in page
    assert "the run is private" not in open_page
    assert "Accuracy" in page
    assert "eval_rows" in page, "names of sources stay"


def test_side_by_side_too(runs: dict[bool, Path]) -> None:
    page = side_page(compare_runs([runs[True], _renamed(runs[True])]))
    assert str(runs[True].parent) not in page
    assert base64.b64encode(b"secret").decode() not in page


def _renamed(run_dir: Path) -> Path:
    other = run_dir.with_name("again")
    shutil.copytree(run_dir, other)
    return other
