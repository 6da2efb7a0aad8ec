"""Questions about charts: answers recomputed from the wheel's own tables, balance, no held-out row
in training."""

import csv
import gzip
import json
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from experiments.charts.questions import CHART_QUESTION_TYPES, prepare_charts
from experiments.charts.tables import CHART_WHEEL
from smolvlm.eval.baselines import lookup_answers
from smolvlm.package_index import fetch_wheel

SIZES = {"train": 3, "eval": 1}
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_charts(tmp_path_factory.mktemp("data") / "charts", num_cycles=SIZES)


@pytest.fixture(scope="module")
def table() -> dict[str, float]:
    """Every number of both tables by its row's name, read here once more in another way."""
    found = {}
    with zipfile.ZipFile(fetch_wheel(CHART_WHEEL)) as archive:
        texts = {
            name: gzip.decompress(archive.read(f"bokeh_sampledata/_data/{name}.csv.gz"))
            .decode()
            .splitlines()
            for name in ("unemployment09", "stocks")
        }
    for line in csv.reader(texts["unemployment09"]):
        found[f"county {line[1]}{line[2]}"] = float(line[-1])
    for row in csv.DictReader(texts["stocks"]):
        found[f"{row['Ticker']} {row['Date']}"] = float(row["Adj Close"])
    return found


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def answer(question: str, series: dict[str, list[float]]) -> str:
    """Answer a question from the numbers by colour, knowing nothing of how it was made."""
    words = question.rstrip("?").split()
    named = [word for word in words if word in series]
    first = {color: values[0] for color, values in series.items()}
    gain = {color: values[-1] / values[0] for color, values in series.items()}
    if "tallest" in words:
        return max(first, key=first.__getitem__)
    if "shortest" in words:
        return min(first, key=first.__getitem__)
    if "taller" in words:
        return "yes" if first[named[0]] > first[named[1]] else "no"
    if "rise" in words:
        return "rise" if gain[named[0]] > 1 else "fall"
    if "highest" in words:
        return max(gain, key=gain.__getitem__)
    if "many" in words:
        return NUMBERS[len(series)]
    assert words[:3] == ["is", "there", "a"]
    return "yes" if named else "no"


@pytest.mark.parametrize("split", ["train", "eval"])
def test_every_answer_follows_from_the_table(
    folder: Path, table: dict[str, float], split: str
) -> None:
    shown = {
        chart["image"]: {
            one["color"]: [table[cell["row"]] for cell in one["cells"]] for one in chart["series"]
        }
        for chart in lines(folder, f"{split}-charts")
    }
    rows = lines(folder, split)
    assert len(rows) > 600 * SIZES[split]
    for row in rows:
        assert row["answer"] == answer(row["question"], shown[row["image"]]), row


def test_no_row_of_a_held_out_chart_is_trained_on(folder: Path) -> None:
    used = {
        split: {
            cell["row"]
            for chart in lines(folder, f"{split}-charts")
            for one in chart["series"]
            for cell in one["cells"]
        }
        for split in SIZES
    }
    assert used["train"]
    assert used["eval"]
    assert not used["train"] & used["eval"]


def test_answers_are_balanced_within_each_type(folder: Path) -> None:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in lines(folder, "train"):
        counts[row["question_type"]][row["answer"]] += 1
    assert set(counts) == set(CHART_QUESTION_TYPES)
    for kind in ("tallest", "taller", "direction", "highest_end", "presence"):
        assert len(set(counts[kind].values())) == 1
    assert max(counts["shortest"].values()) < 1.4 * sum(counts["shortest"].values()) / 6
    assert set(counts["count"]) == set(NUMBERS.values())


def test_looking_the_question_up_is_no_better_than_guessing(folder: Path) -> None:
    known = lookup_answers((row["question"], row["answer"]) for row in lines(folder, "train"))
    right: dict[str, list[bool]] = defaultdict(list)
    for row in lines(folder, "eval"):
        right[row["question_type"]].append(known.get(row["question"]) == row["answer"])
    score = {kind: sum(own) / len(own) for kind, own in right.items()}
    assert max(score["tallest"], score["shortest"], score["highest_end"]) < 0.3
    assert max(score["taller"], score["direction"], score["presence"]) < 0.65
    assert score["count"] < 0.35


def test_pictures_are_there_and_their_questions_stand_together(folder: Path) -> None:
    for split, cycles in SIZES.items():
        images = [row["image"] for row in lines(folder, split)]
        assert images == sorted(images)
        assert len(set(images)) == 168 * cycles
    with Image.open(folder / "images" / "eval-00000.png") as picture:
        assert (picture.size, picture.mode) == ((112, 112), "RGB")
    assert len(list((folder / "images").iterdir())) == 168 * 4


def test_a_second_call_changes_nothing_and_a_fresh_one_gives_the_same_bytes(
    folder: Path, tmp_path: Path
) -> None:
    written = (folder / "eval.jsonl").stat().st_mtime_ns
    assert prepare_charts(folder, num_cycles=SIZES) == folder
    assert (folder / "eval.jsonl").stat().st_mtime_ns == written
    again = prepare_charts(tmp_path / "again", num_cycles=SIZES)
    for name in ("train.jsonl", "eval.jsonl", "eval-charts.jsonl", "images/eval-00100.png"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
