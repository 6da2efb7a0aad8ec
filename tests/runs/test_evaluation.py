"""Which metrics a held-out mixture's sources have, and what a model is compared with."""

from pathlib import Path

import pytest
import yaml

from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError
from smolvlm.runs.evaluation import base_config, metrics_by_source
from smolvlm.runs.evaluation_settings import bare_config, trained_config
from smolvlm.runs.training import check_best_metric


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    held_out = [
        {"json_path": "rows.jsonl", "name": "docs", "metric": "anls"},
        {"json_path": "rows.jsonl", "name": "own"},
    ]
    content = {
        "model": {"path": "o/m"},
        "data": {"mixture": [{"json_path": "rows.jsonl"}], "eval_mixture": held_out},
        "train": {"output_dir": str(tmp_path / "out")},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "run.yaml"


def config(run_file: Path, *overrides: str) -> RunConfig:
    return load_run_config(run_file, list(overrides))


def test_a_source_has_its_own_metrics_or_those_of_the_setting(run_file: Path) -> None:
    assert metrics_by_source(config(run_file)) == {
        "docs": ("anls",),
        "own": ("exact_match", "vqa_accuracy"),
    }
    assert metrics_by_source(config(run_file, "eval.metric=[bleu, cider_d]")) == {
        "docs": ("anls",),
        "own": ("bleu", "cider_d"),
    }


def test_the_best_model_is_chosen_by_a_metric_that_is_written(run_file: Path) -> None:
    amid = ("train.eval_strategy=epoch",)
    for name in ("anls_docs", "loss", "exact_match_own"):
        check_best_metric(config(run_file, f"train.metric_for_best_model={name}", *amid))
    for name in ("anls", "exact_match_docs"):
        with pytest.raises(ConfigError, match="no evaluation writes it"):
            check_best_metric(config(run_file, f"train.metric_for_best_model={name}", *amid))


def test_a_run_is_compared_with_what_it_was_trained_from(run_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run_file.rename(out / "run.yaml")
    (tmp_path / "rows.jsonl").rename(out / "rows.jsonl")
    trained = trained_config(out)
    assert trained is not None
    base = base_config(trained, target="out")
    assert (base.model.path, base.data) == ("o/m", trained.data)


def test_a_hub_id_has_no_known_base() -> None:
    with pytest.raises(ConfigError, match="nothing here says what it was trained from"):
        base_config(bare_config("o/m"), target="o/m")
