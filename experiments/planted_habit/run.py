"""`python -m experiments.planted_habit.run`: a bad habit planted in a model, and what DPO does
about it.

A small model learns easy-VQA from answers of which three in five stand in a wrong form ("The answer
is circle."), so that it nearly always answers so. Then 1,000 pairs made of training rows alone
(better: "circle"; worse: the habit) go through `dpo.yaml` beside this file, and for comparison the
same rows' plain answers are simply learned, at the same cost in tokens. Held-out questions say how
often each model answers in the wrong form, and how often it is right: strictly, and whatever the
form.

Everything is made by this command in `--out`; a command that was stopped goes on. `--tiny` runs the
same at toy sizes.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.planted_habit.scores import (
    Score,
    as_json,
    draw_rewards,
    in_habit,
    markdown_table,
    scores_of,
    test_logps,
)
from smolvlm.build.tiny import tiny_model
from smolvlm.cli.quickstart import GROUPS, RUN_FILE, split_by_group
from smolvlm.cli.train import train_aloud
from smolvlm.config.load import load_run_config
from smolvlm.quickstart.easy_vqa import prepare_easy_vqa
from smolvlm.report.files import read_predictions
from smolvlm.runs.model import with_model
from smolvlm.train.planned_rows import plan_run

DPO_FILE = Path(__file__).parent / "dpo.yaml"
HABIT_SHARE = 0.6
"""Of the training answers."""
PLANTING = (
    "data.mixture=[{name: planted, json_path: data/planted.jsonl, path: data}]",
    "eval.at_start=false",
    "eval.max_new_tokens=8",
)
"""Over the quickstart's settings."""
PLAIN = (
    "data.mixture=[{name: plain, json_path: data/plain.jsonl, path: data}]",
    "train.method=sft",
    "train.beta=0.1",
    "train.sft_weight=0",
)
"""Over the preference run's: its rows' plain answers are learned; no other setting differs."""
FORWARD_ALONE = 1 / 3
"""What a token costs in a pass without gradient, of one that is learned from."""
FILES = ("planted.jsonl", "pairs.jsonl", "plain.jsonl", "test_pairs.jsonl")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much of everything."""

    train_rows: int | None
    """The first so many rows; None is all."""
    pairs: int
    test_rows: int
    """Of each question type, generated answers."""
    test_pairs: int
    """Of each question type, for log-probabilities."""
    planting: tuple[str, ...]
    """Settings over the quickstart's."""


FULL = Sizes(
    train_rows=None,
    pairs=1000,
    test_rows=500,
    test_pairs=200,
    planting=("train.num_train_epochs=2",),
)
TINY = Sizes(
    train_rows=120,
    pairs=24,
    test_rows=4,
    test_pairs=3,
    planting=("train.num_train_epochs=3", "data.max_tokens_per_pack=512"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the rows, train three times, print the table and draw the figure."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.planted_habit.run", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("runs/habit"))
    parser.add_argument(
        "--tiny", action="store_true", help="toy sizes: checks that it runs, shows nothing"
    )
    parser.add_argument("settings", nargs="*", help="section.key=value, over those of dpo.yaml")
    options = parser.parse_args(arguments)
    out: Path = options.out.absolute()
    sizes = TINY if options.tiny else FULL
    write_rows(prepare_easy_vqa(out / "data"), sizes)
    if options.tiny:
        tiny_model(out / "tiny", longest_edge_px=32)
    begin = [f"model.path={out / 'tiny'}", "train.use_cpu=true"] if options.tiny else []
    shared = [
        "train.disable_tqdm=true",
        f"eval.max_rows={sizes.test_rows}",
        f"data.vision_cache_dir={out / 'cache'}",
    ]
    stage(out, "planted", RUN_FILE, [*PLANTING, *sizes.planting, *begin, *shared])
    stage(out, "dpo", DPO_FILE, [*shared, *options.settings])
    epochs = epochs_of_the_same_cost(out, [*shared, *options.settings])
    stage(
        out,
        "sft",
        DPO_FILE,
        [*shared, *options.settings, *PLAIN, f"train.num_train_epochs={epochs}"],
    )
    scores = {name: _scores(out, name) for name in ("planted", "dpo", "sft")}
    (out / "scores.json").write_text(json.dumps(as_json(scores), indent=1) + "\n", encoding="utf-8")
    draw_rewards(json_lines(out / "dpo" / "metrics.jsonl"), out / "dpo_rewards.svg")
    print(markdown_table(scores))
    return 0


def write_rows(data: Path, sizes: Sizes) -> None:
    """Write the rows of all three runs, and the held-out pairs; pairs come of training pictures
    alone."""
    split_by_group(data)
    if all((data / name).is_file() for name in FILES):
        return
    choose = random.Random(0)
    rows = json_lines(data / "train.jsonl")[: sizes.train_rows]
    planted = [
        row | {"answer": in_habit(row["answer"])} if choose.random() < HABIT_SHARE else row
        for row in rows
    ]
    chosen = random.Random(1).sample(rows, sizes.pairs)
    write_lines(data / "planted.jsonl", planted)
    write_lines(data / "plain.jsonl", chosen)
    write_lines(data / "pairs.jsonl", [as_pair(row) for row in chosen])
    held_out = [
        row
        for group in GROUPS
        for row in json_lines(data / f"eval-{group}.jsonl")[: sizes.test_pairs]
    ]
    write_lines(data / "test_pairs.jsonl", [as_pair(row) for row in held_out])


def as_pair(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row's plain answer preferred to the same answer in the habit's form."""
    answer = row["answer"]
    return {"prompt": row["question"], "chosen": answer, "rejected": in_habit(answer)} | {
        name: row[name] for name in ("image", "question_type")
    }


def epochs_of_the_same_cost(out: Path, settings: Sequence[str]) -> float:
    """Return how often the plain answers can be learned for what the preference run's tokens
    cost."""
    pairs = load_run_config(out / "dpo.yaml", settings)
    plain = load_run_config(out / "dpo.yaml", [*settings, *PLAIN])
    of_pairs, of_plain = (
        int(plan_run(own)[1].measured.lengths.num_tokens.sum()) for own in (pairs, plain)
    )
    epochs = float(pairs.train.arguments["num_train_epochs"])
    return round((epochs + FORWARD_ALONE) * of_pairs / of_plain, 2)


def stage(out: Path, name: str, run_file: Path, settings: Sequence[str]) -> None:
    """Train one of the runs, unless it has been."""
    folder = out / name
    if (folder / "predictions.jsonl").is_file():
        print(f"{name}: done before, in {folder}", file=sys.stderr)
        return
    own = out / f"{name}.yaml"
    own.write_text(run_file.read_text(encoding="utf-8"), encoding="utf-8")
    train_aloud(with_model(load_run_config(own, [f"train.output_dir={folder}", *settings])))


def _scores(out: Path, name: str) -> dict[str, Score]:
    pairs_file = out / "data" / "test_pairs.jsonl"
    types = np.array([row["question_type"] for row in json_lines(pairs_file)])
    logps = test_logps(out / name, pairs_file)
    by_type = {group: logps[types == group] for group in GROUPS}
    return scores_of(read_predictions(out / name / "predictions.jsonl"), by_type)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """Read one object a line."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
