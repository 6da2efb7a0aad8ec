"""Metrics equal published code: on a few hundred answers kept with what that code said of them,
and, where its packages are, on what they say now.

`published_metrics.py` makes the kept file and names the packages' versions.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from smolvlm.eval.metrics import cider_d, grounding
from smolvlm.eval.metrics.anls import anls
from smolvlm.eval.metrics.multiple_choice import multiple_choice
from smolvlm.eval.metrics.relaxed_accuracy import relaxed_accuracy
from smolvlm.eval.metrics.vqa_accuracy import normalize_vqa, vqa_accuracy
from tests.parity.published_metrics import FILE, made_of

PUBLISHED: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
PEERS = os.environ.get("SMOLVLM_METRIC_PEERS")
Score = Callable[[str, Sequence[str]], float]


def scores(part: str, value: str = "value") -> list[float]:
    """Return the published values of a part, which are right and wrong often enough to tell."""
    values = [case[value] for case in PUBLISHED[part]]
    assert len(values) >= 120
    assert 0.05 < sum(score > 0 for score in values) / len(values) < 0.95
    return values


def said(part: str, score: Score) -> list[float]:
    return [score(case["answer"], case["references"]) for case in PUBLISHED[part]]


def test_texts_are_normalised_as_the_vqa_evaluation_does() -> None:
    cases = PUBLISHED["vqa_texts"]
    assert [normalize_vqa(case["answer"]) for case in cases] == [case["value"] for case in cases]


@pytest.mark.parametrize(
    "score", [vqa_accuracy, anls, relaxed_accuracy], ids=lambda one: one.__name__
)
def test_answers_are_worth_what_lmms_eval_gives_them(score: Any) -> None:
    assert said(score.__name__, score) == pytest.approx(scores(score.__name__), abs=1e-12)


@pytest.mark.parametrize("name", ["iou", "box_accuracy", "point_in_box"])
def test_boxes_overlap_as_in_lmms_evals_refcoco(name: str) -> None:
    published = scores("grounding", name)
    assert said("grounding", getattr(grounding, name)) == pytest.approx(published, abs=1e-12)


def test_options_are_read_as_mmmu_reads_them() -> None:
    """Of answers in which its reader finds an option; where it finds none it guesses at random."""
    cases = PUBLISHED["multiple_choice"]
    assert [
        multiple_choice(case["answer"], case["references"], question=case["question"])
        for case in cases
    ] == scores("multiple_choice")


@pytest.mark.parametrize(
    "part", PUBLISHED["captions"], ids=lambda part: f"{len(part['rows'])} rows"
)
def test_captions_are_worth_what_pycocoevalcap_gives_them(part: dict[str, Any]) -> None:
    assert 0 < part["value"] < 10
    cut = [" ".join(cider_d.caption_tokens(caption)) for caption in part["answers"]]
    assert cut == part["tokens"]
    for references, tokens in zip(part["references"], part["reference_tokens"], strict=True):
        assert [" ".join(cider_d.caption_tokens(caption)) for caption in references] == tokens
    rows = cider_d.cider_d_rows(part["answers"], part["references"])
    assert rows == pytest.approx(part["rows"], abs=1e-12)
    assert cider_d.cider_d(part["answers"], part["references"]) == pytest.approx(part["value"])


@pytest.mark.skipif(
    PEERS is None,
    reason="the packages want other versions than ours: SMOLVLM_METRIC_PEERS names their folder",
)
def test_the_kept_values_are_what_the_packages_say() -> None:
    assert made_of(Path(str(PEERS))) == PUBLISHED
