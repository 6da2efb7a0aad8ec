"""The evidence for preferences at toy sizes: rows, three runs and a table; and what counts as the
habit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.planted_habit.run import main
from experiments.planted_habit.scores import in_habit, scores_of, without_habit
from smolvlm.eval.prediction import Prediction

SHORT = (
    "data.max_tokens_per_pack=256",
    "train.num_train_epochs=4",
    "train.language_model_lr=2e-3",
    "train.sft_weight=0",
)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("habit")
    assert main(["--tiny", "--out", str(folder), *SHORT]) == 0
    return folder


def test_pairs_are_of_training_pictures_and_differ_in_form_alone(out: Path) -> None:
    pairs, plain = rows(out / "data" / "pairs.jsonl"), rows(out / "data" / "plain.jsonl")
    trained = {row["image"] for row in rows(out / "data" / "planted.jsonl")}
    for pair, row in zip(pairs, plain, strict=True):
        assert pair["image"] in trained
        assert (pair["prompt"], pair["chosen"]) == (row["question"], row["answer"])
        assert pair["rejected"] == f"The answer is {pair['chosen']}."
    assert not trained & {row["image"] for row in rows(out / "data" / "test_pairs.jsonl")}


def test_the_habit_is_planted_in_the_share_that_is_said(out: Path) -> None:
    answers = [row["answer"] for row in rows(out / "data" / "planted.jsonl")]
    share = sum(answer.startswith("The answer is ") for answer in answers) / len(answers)
    assert share == pytest.approx(0.6, abs=0.15)


def test_the_preference_run_begins_as_its_own_reference_and_learns_the_order(out: Path) -> None:
    logged = [line for line in rows(out / "dpo" / "metrics.jsonl") if "rewards_margin" in line]
    assert logged[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert logged[-1]["rewards_margin"] > 0.05
    assert logged[-1]["loss"] < logged[0]["loss"]


def test_every_model_has_a_score_for_every_type(out: Path) -> None:
    scores = json.loads((out / "scores.json").read_text())
    assert list(scores) == ["planted", "dpo", "sft"]
    for own in scores.values():
        assert list(own) == ["shape", "color", "yes_no"]
        assert all(group["num_rows"] == 4 for group in own.values())
    gain = {
        name: np.mean([group["plain_logp"] - group["habit_logp"] for group in own.values()])
        for name, own in scores.items()
    }
    assert gain["dpo"] > gain["planted"] + 0.5
    assert (out / "dpo_rewards.svg").read_text().startswith("<?xml")


def test_a_second_call_trains_nothing(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--out", str(out), *SHORT]) == 0
    assert capsys.readouterr().err.count("done before") == 3


@pytest.mark.parametrize("answer", ["circle", "yes", "3.5"])
def test_the_habit_is_taken_off_as_it_was_put_on(answer: str) -> None:
    assert without_habit(in_habit(answer)) == without_habit(in_habit(answer).rstrip(".")) == answer
    assert without_habit(answer) == answer


def test_what_counts() -> None:
    said = ("circle", "The answer is circle.", "The answer is square.", "square")
    predictions = [
        Prediction(
            where="",
            source="shape",
            group="shape",
            question="?",
            answer=answer,
            references=("circle",),
            correct=float(answer == "circle"),
            images=(),
        )
        for answer in said
    ]
    own = scores_of(predictions, {"shape": np.array([[-1.0, -2.0], [-3.0, -4.0]], np.float32)})[
        "shape"
    ]
    assert (own.num_rows, own.in_habit, own.right_strictly, own.right_in_any_form) == (
        4,
        0.5,
        0.25,
        0.5,
    )
    assert (own.plain_logp, own.habit_logp) == (-2.0, -3.0)
