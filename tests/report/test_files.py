"""A run's output folder is read back, whole or torn."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import ConfigError, SampleError
from smolvlm.report.files import read_run_files

LineOf = Callable[..., dict[str, Any]]


def test_everything_there_is_read(write_run: Callable[..., Path], answer_of: LineOf) -> None:
    run_dir = write_run(
        steps=3,
        after=[answer_of(1, images=["a.png"])],
        before=[answer_of(1, prediction="", correct=False)],
        baselines={"majority": {"shape": 0.35}},
        settings="train:\n  output_dir: first\n",
    )
    run = read_run_files(run_dir)
    assert [line["step"] for line in run.train] == [1, 2, 3]
    assert run.after[0].images == ("a.png",)
    assert run.before[0].correct == 0.0
    assert run.baselines == {"majority": {"shape": 0.35}}
    assert run.settings.startswith("train:")
    assert run.starts == ()


def test_what_is_missing_is_empty(write_run: Callable[..., Path]) -> None:
    run = read_run_files(write_run(steps=1))
    assert (run.evals, run.before, run.after, run.baselines, run.settings) == ((), (), (), {}, "")


def test_starts_are_read_oldest_first(
    write_run: Callable[..., Path], start_of: Callable[..., Any]
) -> None:
    newest = start_of(step=12, torch_compile=True) | {"earlier": [start_of(), start_of(step=6)]}
    starts = read_run_files(write_run(steps=1, start=newest)).starts
    assert [start.step for start in starts] == [0, 6, 12]
    assert [start.kernels["torch_compile"] for start in starts] == [False, False, True]
    assert starts[0].commit == "0123456789abcdef0123456789abcdef01234567"
    assert starts[0].is_modified


def test_a_start_outside_a_checkout_has_no_commit(
    write_run: Callable[..., Path], start_of: Callable[..., Any]
) -> None:
    [start] = read_run_files(
        write_run(steps=1, start=start_of() | {"commit": None, "modified": None})
    ).starts
    assert (start.commit, start.is_modified) == (None, False)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "an object, with a list of objects as `earlier`"),
        ('{"earlier": {}}', "an object, with a list of objects as `earlier`"),
        ("{}", "an object as `device`"),
        ('{"device": {}, "kernels": [], "versions": {}}', "an object as `kernels`"),
        ('{"device": {}, "kernels": {}, "versions": {}, "commit": 3}', "text as `commit`"),
        ('{"device": {}, "kernels": {}, "versions": {}, "step": "3"}', "a number as `step`"),
        ('{"device": {}, "kernels": {}, "versions": {}, "seconds": "3"}', "a number as `seconds`"),
        ('{"device": {}, "kernels": {}, "versions": {}, "sources": {}}', "a list of objects as"),
        ('{"device": {}, "kernels": {}, "versions": {}, "sources": [{}]}', "text as `name`"),
    ],
)
def test_a_damaged_description_of_a_start_is_named(
    write_run: Callable[..., Path], content: str, expected: str
) -> None:
    run_dir = write_run(steps=1)
    (run_dir / "run.json").write_text(content)
    with pytest.raises(SampleError, match=rf"run\.json: .*{expected}"):
        read_run_files(run_dir)


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither metrics\.jsonl nor predictions\.jsonl here"):
        read_run_files(tmp_path)


def test_evaluations_of_a_step_are_one_and_other_lines_are_passed_over(
    tmp_path: Path, line_of: LineOf
) -> None:
    lines = [
        line_of(1),
        {"step": 1, "eval_loss": 2.0},
        {"step": 1, "eval_exact_match": 0.5},
        {"step": 1, "train_runtime": 9.5, "note": "text"},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run_files(tmp_path)
    assert run.evals == ({"step": 1.0, "eval_loss": 2.0, "eval_exact_match": 0.5},)
    assert len(run.train) == 1


def test_of_a_step_done_again_the_last_line_counts(tmp_path: Path, line_of: LineOf) -> None:
    lines = [line_of(1), line_of(2, loss=9.0), line_of(2, loss=1.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line["loss"] for line in read_run_files(tmp_path).train] == [8.0, 1.0]


def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path, line_of: LineOf) -> None:
    lines = [line_of(1, grad_norm=float("nan")), line_of(2, loss=float("inf"))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read_run_files(tmp_path).train
    assert "grad_norm" not in first
    assert "loss" not in second
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line_of(1, grad_norm=10**400)) + "\n")
    assert "grad_norm" not in read_run_files(tmp_path).train[0]


def test_a_last_line_cut_short_is_passed_over_and_an_earlier_one_is_not(
    tmp_path: Path, line_of: LineOf
) -> None:
    whole = json.dumps(line_of(1))
    (tmp_path / "metrics.jsonl").write_text(f'{whole}\n{{"step": 2, "lo')
    assert len(read_run_files(tmp_path).train) == 1
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1, "lo\n{whole}\n')
    with pytest.raises(SampleError, match=r"metrics\.jsonl:1: not JSON"):
        read_run_files(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"question": None}, "text as `question`"),
        ({"references": "circle"}, "a list of texts as `references`"),
        ({"correct": 1.5}, "a share from 0 to 1 as `correct`"),
        ({"correct": "yes"}, "a number as `correct`"),
    ],
)
def test_a_wrong_prediction_is_named(
    tmp_path: Path, answer_of: LineOf, changes: dict[str, Any], expected: str
) -> None:
    (tmp_path / "predictions.jsonl").write_text(json.dumps(answer_of(1, **changes)) + "\n")
    with pytest.raises(SampleError, match=rf"predictions\.jsonl:1: expected {expected}"):
        read_run_files(tmp_path)


@pytest.mark.parametrize(
    "content", ["[1]", '{"majority": 0.5}', '{"majority": {"shape": 35}}', "{"]
)
def test_wrong_baselines_are_named(write_run: Callable[..., Path], content: str) -> None:
    run_dir = write_run(steps=1)
    (run_dir / "baselines.json").write_text(content)
    with pytest.raises(SampleError, match=r"baselines\.json"):
        read_run_files(run_dir)


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        read_run_files(tmp_path / "nosuch")
