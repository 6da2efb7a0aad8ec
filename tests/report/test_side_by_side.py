"""Runs side by side: what differs in their settings, what came of them, and what is unfair."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import ConfigError
from smolvlm.report.progress import Progress, write_progress
from smolvlm.report.side_by_side import Comparison, compare_runs
from smolvlm.report.side_charts import side_held_out_chart, side_loss_chart
from smolvlm.report.side_page import side_page
from tests.report.test_report import text_of

SCRIPT = "<script>alert(1)</script>"
SETTINGS = """
model: {path: base/model}
data:
  mixture: [{json_path: a.jsonl}]
train: {output_dir: runs/%(name)s, connector_lr: %(rate)s, seed: 1}
"""
SOURCES = [
    {
        "name": "a",
        "num_rows": 10,
        "num_used": 8,
        "repeat": 1.0,
        "num_tokens": 800,
        "num_tiles": 8,
    }
]

Side = Callable[..., Path]


@pytest.fixture
def side(
    write_run: Callable[..., Path],
    answer_of: Callable[..., dict[str, Any]],
    start_of: Callable[..., dict[str, Any]],
) -> Side:
    """Writes a run of 20 steps that was evaluated at 0, 10 and 20."""

    def write(
        *, name: str = "one", rate: str = "1.0e-4", score: float = 0.5, **changes: Any
    ) -> Path:
        settings = changes.pop("settings", SETTINGS) % {"name": name, "rate": rate}
        sources = changes.pop("sources", SOURCES)
        asked = changes.pop("asked", 4)
        run_dir = write_run(
            after=[answer_of(number) for number in range(asked)],
            settings=settings,
            start=start_of() | {"seconds": 90.0, "sources": sources},
        )
        lines = [
            {
                "step": step,
                "eval_exact_match": value,
                "eval_exact_match_ci95_low": value - 0.1,
                "eval_exact_match_ci95_high": value + 0.1,
                "eval_loss": 2 - value,
            }
            for step, value in ((0, 0.1), (10, 0.2), (20, score))
        ]
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        return run_dir

    return write


def rows(comparison: Comparison) -> dict[str, tuple[str, ...]]:
    return {row.name: row.cells for row in (*comparison.settings, *comparison.costs)}


def test_settings_that_differ_scores_and_cost(side: Side) -> None:
    found = compare_runs([side(), side(name="two", rate="5.0e-4", score=0.75)])
    assert [(row.name, row.cells) for row in found.settings] == [
        ("train.connector_lr", ("0.0001", "0.0005"))
    ], "output folders always differ"
    assert found.notes == ()
    scores = {(row.source, row.metric): row for row in found.scores}
    assert list(scores) == [("all", "exact_match"), ("all", "loss")]
    matched = scores["all", "exact_match"]
    assert matched.before is not None
    assert matched.before.value == 0.1
    assert [score and (score.value, score.interval) for score in matched.scores] == [
        (0.5, "0.4000 to 0.6000"),
        (0.75, "0.6500 to 0.8500"),
    ]
    cost = rows(found)
    assert cost["steps"] == ("20", "20")
    assert cost["time in all"] == ("1 min 30 s", "1 min 30 s")
    assert cost["samples"] == ("2,000", "2,000")
    assert cost["device"] == ("cpu: A CPU, 2 threads, 1 rank",) * 2
    assert cost["commit"] == ("0123456789ab modified",) * 2


def test_a_setting_that_one_run_lacks_is_shown_so(side: Side) -> None:
    longer = SETTINGS.replace("seed: 1", "seed: 1, warmup_steps: 3")
    found = compare_runs([side(), side(settings=longer)])
    assert rows(found)["train.warmup_steps"] == ("—", "3")


def test_other_data_another_base_and_other_questions_are_said(side: Side) -> None:
    other = [SOURCES[0] | {"name": "b", "num_used": 5, "repeat": 2.0}]
    elsewhere = SETTINGS.replace("base/model", "other/model")
    first, second = side(), side(settings=elsewhere, sources=other, asked=3)
    notes = compare_runs([first, second]).notes
    assert len(notes) == 3
    assert "different models: " in notes[0]
    assert "base/model; " in notes[0]
    assert notes[1].endswith(f"{second.name}: b 5 rows x 2.")
    assert "evaluated on different rows" in notes[2]
    assert notes[2].endswith(f"{first.name}: eval 4; {second.name}: eval 3.")


def test_a_run_that_is_not_done_is_said(side: Side) -> None:
    first, second = side(), side()
    write_progress(second, Progress(step=5, num_steps=20))
    notes = compare_runs([first, second]).notes
    assert f"{second.name}: Step 5 of 20, still training." in notes


def test_another_kind_of_loss_is_not_drawn_over_it(
    side: Side, write_run: Callable[..., Path]
) -> None:
    pairs = write_run(settings="train: {method: dpo, loss_type: sigmoid}")
    lines = [{"step": step, "loss": 0.6, "rewards_margin": 0.1} for step in (1, 2)]
    (pairs / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = compare_runs([side(), pairs])
    assert any("Their losses are not the same thing" in note for note in found.notes)
    assert side_loss_chart(found.sides) is None
    assert side_held_out_chart(found.sides) is not None
    assert "<h2>Loss</h2>" not in side_page(found)


def test_the_before_of_runs_that_began_differently_is_left_out(side: Side) -> None:
    first, second = side(), side()
    text = (second / "metrics.jsonl").read_text().replace('"eval_loss": 1.9', '"eval_loss": 1.8')
    (second / "metrics.jsonl").write_text(text)
    assert all(row.before is None for row in compare_runs([first, second]).scores)


def test_folders_of_one_name_are_told_apart_and_one_is_not_named_twice(
    side: Side, tmp_path: Path
) -> None:
    places = [tmp_path / parent / "run" for parent in ("a", "b")]
    for place in places:
        place.parent.mkdir()
        side().rename(place)
    assert compare_runs(places).names == ("a/run", "b/run")
    with pytest.raises(ConfigError, match="named twice"):
        compare_runs([places[0], places[1].parent / ".." / "a" / "run"])


def test_a_run_without_settings_or_evaluations_has_its_place(
    side: Side, write_run: Callable[..., Path]
) -> None:
    found = compare_runs([side(), write_run(steps=1)])
    assert all(row.scores[1] is None for row in found.scores)
    assert rows(found)["train.seed"] == ("1", "—")
    assert rows(found)["steps"] == ("20", "1")


def test_the_page_needs_nothing_else_and_escapes(side: Side) -> None:
    bad = side(settings=SETTINGS.replace("base/model", SCRIPT), rate="2.0e-3")
    page = side_page(compare_runs([side(), bad]))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    text = text_of(page)
    assert "train.connector_lr 0.0001 0.002" in text
    assert "They were trained from different models" in text
    for heading in ("Settings that differ", "Scores", "Loss", "Held-out loss", "Cost"):
        assert f"<h2>{heading}" in page


def test_every_run_has_its_curve_and_its_name_in_the_key(side: Side) -> None:
    found = compare_runs([side(), side(name="two"), side(name="three")])
    chart = side_loss_chart(found.sides)
    assert chart is not None
    assert [name for name, _ in chart.key] == list(found.names)
    assert len({colour for _, colour in chart.key}) == 3
    assert all(f"stroke: var(--{colour})" in chart.svg for _, colour in chart.key)
