"""The report of a run: one file, from whatever the run left."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolvlm.report.files import read_run_files, training_seconds
from smolvlm.report.places import duration
from smolvlm.report.report import (
    accuracy_rows,
    short_count,
    write_run_report,
)

LineOf = Callable[..., dict[str, Any]]
SCRIPT = "<script>alert(1)</script>"


def text_of(page: str) -> str:
    """Return what a reader sees, white space folded."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


@pytest.fixture(scope="module")
def full_run(write_run: Callable[..., Path], answer_of: LineOf, photos: dict[str, Path]) -> Path:
    """A run with two groups, answers before and after, and baselines."""
    yes_no = [
        answer_of(
            number,
            group="yes_no",
            references=["yes" if number % 4 else "no"],
            correct=float(number % 2),
        )
        for number in range(20)
    ]
    shapes = [
        answer_of(100 + number, question=f"Which shape? {SCRIPT}", images=[str(photos["coffee"])])
        for number in range(30)
    ]
    before = [
        {**line, "correct": 0.0, "prediction": f"{SCRIPT} before"} for line in yes_no + shapes
    ]
    return write_run(
        after=yes_no + shapes,
        before=before,
        baselines={
            "majority": {"shape": 0.35, "yes_no": 0.75},
            "question_only": {"shape": 0.4, "yes_no": 0.75},
        },
        settings=f"model:\n  path: {SCRIPT}\n",
    )


@pytest.fixture(scope="module")
def full_page(full_run: Path) -> str:
    assert write_run_report(full_run) == full_run / "report.html"
    return (full_run / "report.html").read_text(encoding="utf-8")


def test_it_says_what_came_out(full_page: str) -> None:
    text = text_of(full_page)
    assert (
        "Of 50 held-out rows the model answers 80.0 % right; before training it was 0.0 %." in text
    )
    assert "The best baseline, question only, gets 54.0 %." in text
    assert "Not clearly better than a baseline in: yes_no." in text
    assert "Time in steps 40 s 20 steps" in text
    assert "Samples 50.0 / s 2,000 in all" in text
    assert "Tokens 80 k 10.0 % learned, 240 tiles" in text
    assert "Loss 8.00 → 0.400" in text
    assert "peak memory, GB 2.5 2.5 2.5" in text
    assert "Frozen, at 0 throughout: vision tower." in text


def test_the_table_has_groups_intervals_baselines_and_the_balanced_score(full_page: str) -> None:
    text = text_of(full_page)
    assert "overall 50 rows 0.0 % 0.0 to 7.1 80.0 % 67.0 to 88.8 51.0 % 54.0 %" in text
    assert (
        "yes_no 20 rows 0.0 % 0.0 to 16.1 50.0 % 29.9 to 70.1 75.0 % 75.0 % 33.3 % before 0.0"
        in text
    )


def test_all_rows_stand_first_and_weight_the_baselines(full_run: Path) -> None:
    rows = accuracy_rows(read_run_files(full_run))
    assert [row.after.group for row in rows] == ["overall", "shape", "yes_no"]
    assert rows[0].baselines == pytest.approx((0.51, 0.54))


def test_it_needs_nothing_else_and_escapes_what_rows_and_settings_say(full_page: str) -> None:
    bare = re.sub(r"data:image/[a-z]+;base64,[\w+/=]*", "data:", full_page)
    assert not re.findall(r"https?:|//|@import|<script|<link|src=\"(?!data:)", bare)
    assert full_page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3
    assert "data:image/png;base64," in full_page


def test_the_same_folder_gives_the_same_bytes(full_run: Path, full_page: str) -> None:
    assert write_run_report(full_run).read_text(encoding="utf-8") == full_page


def test_one_step_and_nothing_else(write_run: Callable[..., Path]) -> None:
    page = write_run_report(write_run(steps=1)).read_text(encoding="utf-8")
    assert "Trained for 1 step; no held-out answers were kept." in text_of(page)
    assert "Loss 8.000 one logged step" in text_of(page)
    assert "nan" not in page
    for heading in (
        "Accuracy on",
        "Evaluations",
        "Some of its",
        "Learning rates",
        "Where it ran",
        "Settings",
    ):
        assert f"<h2>{heading}" not in page


def test_it_says_where_the_run_ran(
    write_run: Callable[..., Path], start_of: Callable[..., Any]
) -> None:
    page = write_run_report(write_run(steps=1, start=start_of(optimizer=SCRIPT))).read_text(
        encoding="utf-8"
    )
    text = text_of(page)
    assert (
        "Where it ran started 2026-01-31 12:00 UTC device cpu: A CPU, 2 threads, 1 rank weights "
        "dtype float32 autocast dtype none " in text
    )
    assert "torch compile off" in text
    assert (
        "versions python 3.11.7, torch 2.14.1 commit 0123456789abcdef0123456789abcdef01234567, "
        "modified" in text
    )
    assert "resumed" not in text
    assert SCRIPT not in page


def test_an_earlier_start_is_told_by_what_was_different(
    write_run: Callable[..., Path], start_of: Callable[..., Any]
) -> None:
    gpu = {"type": "cuda", "name": "A GPU", "num_ranks": 4, "num_threads": None}
    newest = start_of(step=6) | {"earlier": [start_of(device=gpu, autocast_dtype="bfloat16")]}
    text = text_of(write_run_report(write_run(steps=1, start=newest)).read_text(encoding="utf-8"))
    assert (
        "resumed at step 6 earlier, from step 0 2026-01-31 12:00 UTC; cuda: A GPU, 4 ranks; "
        "autocast dtype bfloat16" in text
    )
    assert text.endswith("autocast dtype bfloat16"), "and nothing that was the same"


def test_it_says_when_it_began_and_how_long_it_took(
    write_run: Callable[..., Path], start_of: Callable[..., Any]
) -> None:
    start = start_of() | {"seconds": 725.4, "started_at": "2026-01-31T13:30:00+02:00"}
    text = text_of(write_run_report(write_run(start=start)).read_text(encoding="utf-8"))
    assert "started 2026-01-31 11:30 UTC" in text
    assert "took in all 12 min 5 s: loading, steps, evaluations, saving" in text
    stopped = start_of() | {"started_at": "yesterday"}
    text = text_of(write_run_report(write_run(start=stopped)).read_text(encoding="utf-8"))
    assert "started yesterday device" in text
    assert "took in all" not in text


def test_sources_have_their_shares_of_an_epoch(
    write_run: Callable[..., Path], start_of: Callable[..., Any]
) -> None:
    one = {"name": f"one {SCRIPT}", "num_rows": 1000, "num_used": 300, "repeat": 1.0}
    two = {"name": "two", "num_rows": 50, "num_used": 50, "repeat": 2.0}
    sources = [one | {"num_tokens": 6000, "num_tiles": 300}, two | {"num_tokens": 1000}]
    sources[1]["num_tiles"] = 0
    page = write_run_report(write_run(start=start_of() | {"sources": sources}))
    text = text_of(page.read_text(encoding="utf-8"))
    assert f"one {SCRIPT} 1,000 300 1 75.0 % 6,000 75.0 % 300" in text
    assert "two 50 50 2 25.0 % 2,000 25.0 % 0" in text
    assert SCRIPT not in page.read_text(encoding="utf-8")


def test_paths_of_the_home_folder_are_shortened(
    write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    settings = "data:\n  mixture: /home/someone/my/mixture.yaml\n"
    page = write_run_report(write_run(settings=settings)).read_text(encoding="utf-8")
    assert "mixture: ~/my/mixture.yaml" in page
    assert "someone" not in page


def test_ranks_that_share_packs_are_named(
    write_run: Callable[..., Path], start_of: Callable[..., Any]
) -> None:
    shared = {"engine": "fsdp2", "context_ranks": 2, "context_exchange": "gather"}
    device = {"type": "cpu", "name": "A CPU", "num_ranks": 4, "num_threads": 1, **shared}
    run_dir = write_run(steps=1, start=start_of(device=device))
    text = text_of(write_run_report(run_dir).read_text(encoding="utf-8"))
    assert "A CPU, 1 thread, 4 ranks (fsdp2, 2 to a pack, gather)" in text


def test_answers_alone(write_run: Callable[..., Path], answer_of: LineOf) -> None:
    run_dir = write_run(steps=1, after=[answer_of(1, images=["gone.png"])])
    (run_dir / "metrics.jsonl").unlink()
    text = text_of(write_run_report(run_dir).read_text(encoding="utf-8"))
    assert "Of 1 held-out row the model answers 100.0 % right." in text
    assert "picture not found" in text
    assert "Gradients, speed and memory" not in text


def test_logged_lines_may_lack_keys(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": 1}\n'
    )
    text = text_of(write_run_report(tmp_path).read_text(encoding="utf-8"))
    assert "Loss 2.00 → 1.000" in text


def test_time_is_what_the_lines_add_up_to() -> None:
    lines = [
        {"step": 1, "num_samples": 100, "samples_per_s": 50.0},
        {"step": 2, "num_samples": 30, "samples_per_s": 10},
    ]
    assert training_seconds(lines) == 5.0
    assert (
        training_seconds([{"step": 1, "num_samples": 3, "samples_per_s": 0.0}, {"step": 2}]) == 0.0
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.24, "1.2 s"),
        (42.4, "42 s"),
        (59.6, "1 min 0 s"),
        (725, "12 min 5 s"),
        (11220, "3 h 7 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (873, "873"),
        (9999, "9,999"),
        (12_400, "12.4 k"),
        (999_900, "1,000 k"),
        (1_254_000, "1.25 M"),
    ],
)
def test_counts(count: int, text: str) -> None:
    assert short_count(count) == text
