"""Scores of log lines, and which are worse than the untrained model's."""

import pytest

from smolvlm.report.worse import scores_of, worse_by_source, worse_scores


def line(**scores: tuple[float, float, float]) -> dict[str, float]:
    """Return a log line: metric (and source) -> value and the ends of its interval."""
    found: dict[str, float] = {"step": 1}
    for name, (value, low, high) in scores.items():
        found |= {
            f"eval_{name}": value,
            f"eval_{name}_ci95_low": low,
            f"eval_{name}_ci95_high": high,
        }
    return found


def test_a_key_is_a_metric_and_a_source() -> None:
    logged = line(exact_match_my_photos=(0.5, 0.4, 0.6), loss=(2.0, 1.5, 2.5)) | {
        "eval_token_accuracy": 0.25,
        "eval_iou_unreadable": 0.5,
        "eval_runtime": 3.0,
        "loss": 7.0,
    }
    found = [(one.metric, one.source, one.value, one.low, one.high) for one in scores_of(logged)]
    assert found == [
        ("loss", "", 2.0, 1.5, 2.5),
        ("token_accuracy", "", 0.25, None, None),
        ("exact_match", "my_photos", 0.5, 0.4, 0.6),
    ]
    assert [one.interval for one in scores_of(logged)] == [
        "1.5000 to 2.5000",
        "",
        "0.4000 to 0.6000",
    ]


@pytest.mark.parametrize(
    ("name", "now", "is_worse"),
    [
        ("exact_match", 0.39, True),
        ("exact_match", 0.4, False),
        ("exact_match", 0.9, False),
        ("loss", 0.61, True),
        ("loss", 0.6, False),
        ("loss", 0.1, False),
        ("loss_general", 0.61, True),
    ],
)
def test_worse_is_beyond_the_interval_on_the_bad_side(
    name: str, now: float, is_worse: bool
) -> None:
    start = line(**{name: (0.5, 0.4, 0.6)})
    assert bool(worse_scores(start, line(**{name: (now, 0.0, 1.0)}))) == is_worse


def test_what_has_no_interval_or_was_not_scored_before_is_not_worse() -> None:
    now = line(exact_match=(0.0, 0.0, 0.1))
    assert worse_scores({}, now) == ()
    assert worse_scores({"step": 0, "eval_exact_match": 0.9}, now) == ()


def test_it_is_said_a_source_at_a_time() -> None:
    start = line(
        exact_match=(0.5, 0.4, 0.6), exact_match_general=(0.5, 0.4, 0.6), loss_general=(1, 0.9, 1.1)
    )
    now = line(exact_match=(0.9, 0.8, 1), exact_match_general=(0.1, 0, 0.2), loss_general=(3, 2, 4))
    assert worse_by_source(worse_scores(start, now)) == {
        "general": "exact_match 0.1000 (was 0.5000), loss 3.0000 (was 1.0000)"
    }
