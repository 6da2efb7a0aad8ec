"""`eval.best_by` and `eval.patience`: what they accept, and which evaluation is the best."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.config.best import Best, best_evaluation, written_metric
from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError

AMID = ("data.eval_mixture=eval.yaml", "train.eval_strategy=steps")


@pytest.fixture
def load(tmp_path: Path) -> Any:
    content = {
        "model": {"path": "o/m"},
        "data": {"mixture": "mix.yaml"},
        "train": {"output_dir": "out"},
    }
    for name in ("mix.yaml", "eval.yaml"):
        (tmp_path / name).write_text("- {json_path: rows.jsonl}\n")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    return lambda *overrides: load_run_config(tmp_path / "run.yaml", overrides)


def lines(*values: float, key: str = "eval_loss") -> list[dict[str, float]]:
    return [{"step": 10 * number, key: value} for number, value in enumerate(values, start=1)]


def test_a_source_stands_before_the_metric() -> None:
    assert written_metric("loss") == "loss"
    assert written_metric("photos/exact_match") == "exact_match_photos"
    assert written_metric("a/b/loss") == "loss_a/b"


def test_less_loss_is_better_and_more_of_all_else() -> None:
    assert best_evaluation(lines(3, 1, 2), "loss") == Best(step=20, value=1, num_since=1)
    matched = lines(3, 1, 2, key="eval_exact_match_a")
    assert best_evaluation(matched, "a/exact_match") == Best(step=10, value=3, num_since=2)
    falling = lines(3, 1, 2, key="eval_loss_a")
    assert best_evaluation(falling, "a/loss") == Best(step=20, value=1, num_since=1)


def test_of_equals_the_first_is_the_best() -> None:
    assert best_evaluation(lines(1, 1, 1), "loss") == Best(step=10, value=1, num_since=2)


def test_the_untrained_model_and_lines_without_the_metric_do_not_count() -> None:
    start = {"step": 0, "eval_loss": 0.5}
    others = [{"step": 15, "loss": 9.0}, {"step": 16, "eval_exact_match": 1.0}]
    found = best_evaluation([start, *lines(3, 2), *others], "loss")
    assert found == Best(step=20, value=2, num_since=0)
    assert best_evaluation([start, *others], "loss") is None


def test_what_is_no_number_is_no_better() -> None:
    found = best_evaluation(lines(float("nan"), 2, float("nan")), "loss")
    assert found == Best(step=20, value=2, num_since=1)


@pytest.mark.parametrize("best_by", ["loss", "exact_match", "photos/anls"])
def test_what_is_accepted(load: Any, best_by: str) -> None:
    config = load(*AMID, f"eval.best_by={best_by}", "eval.patience=3")
    assert (config.eval.best_by, config.eval.patience) == (best_by, 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["eval.patience=2"], "eval.patience = 2 (on the command line): has no effect without"),
        ([*AMID, "eval.best_by=loss", "eval.patience=0"], "must be at least 1"),
        ([*AMID, "eval.best_by=photos/exact_mach"], "no evaluation writes it"),
        (["eval.best_by=loss"], "there is no data.eval_mixture to evaluate on"),
        (
            ["data.eval_mixture=eval.yaml", "eval.best_by=loss"],
            "set train.eval_strategy: steps or epoch",
        ),
        (
            [*AMID, "eval.best_by=loss", "train.metric_for_best_model=loss"],
            "has no effect with eval.best_by = loss, which decides it",
        ),
        (
            [*AMID, "eval.best_by=loss", "train.save_strategy=no"],
            "train.save_strategy = 'no' (on the command line): cannot stand beside eval.best_by",
        ),
    ],
)
def test_what_is_refused(load: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)
