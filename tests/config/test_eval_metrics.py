"""The names that `train.metric_for_best_model` may have: those that an evaluation writes."""

import pytest

from smolvlm.config.eval_metrics import is_greater_better, metric_problem


@pytest.mark.parametrize("prefix", ["", "eval_"])
@pytest.mark.parametrize("name", ["exact_match", "vqa_accuracy", "loss"])
def test_what_is_written_is_known_with_and_without_its_prefix(name: str, prefix: str) -> None:
    assert metric_problem(prefix + name) is None
    assert metric_problem(prefix + name, ["one", "two"]) is None
    assert metric_problem(f"{prefix}{name}_one", ["one", "two"]) is None
    assert is_greater_better(prefix + name) == (name != "loss")
    assert is_greater_better(f"{prefix}{name}_one") == (name != "loss")


def test_a_source_is_any_until_the_mixture_is_read() -> None:
    assert metric_problem("loss_anything") is None
    problem = metric_problem("loss_on", ["one", "two"])
    assert problem is not None
    assert "did you mean `loss_one`?" in problem
    assert metric_problem("loss_one", ["one"]) is not None, (
        "of one source only the whole is written"
    )


@pytest.mark.parametrize(
    ("name", "meant"), [("eval_losss", "loss"), ("exact_mach", "exact_match"), ("accuracy", None)]
)
def test_another_name_is_a_problem_that_says_what_is_meant(name: str, meant: str | None) -> None:
    problem = metric_problem(name)
    assert problem is not None
    assert problem.startswith("no evaluation writes it, only exact_match, vqa_accuracy, loss")
    assert (f"did you mean `{meant}`?" in problem) == (meant is not None)
