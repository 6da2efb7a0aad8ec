"""`python -m experiments.evidence.run`: does the two-stage way of adapting a model teach it to
look?

A model is assembled from SmolLM2-135M-Instruct (4-bit weights, so its scores are neither SmolLM2's
nor SmolVLM's) and a ViT-S/14, joined by a connector that starts at random. On easy-VQA, and on
charts drawn from tables, the run files of `experiments/evidence/runs` train the connector alone,
then connector and LoRA. Held-out questions are answered before, between and after, and compared by
question type with two baselines that never see a picture. All is done by the commands that users
type, and a run that was stopped goes on. All 30 layers take about two hours on one slow core.
`--layers` takes the first few; `--short` does three steps of each stage on a few rows: that checks
the way and measures nothing.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from experiments.charts.questions import CHART_QUESTION_TYPES, prepare_charts
from experiments.evidence.figures import write_figure
from experiments.evidence.table import evidence_table
from smolvlm.build.assemble import BaseRecipe, SmolLM2Layers, assemble_base_model
from smolvlm.cli.quickstart import GROUPS, split_by_group, write_baselines
from smolvlm.parent_process import Parent
from smolvlm.quickstart.easy_vqa import prepare_easy_vqa

RUN_FILES = Path(__file__).parent / "runs"
STAGES = ("connector_warmup", "then_lora")
SHORT_STEPS = 3
SHORT_ROWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One data set with its questions."""

    name: str
    """Also of its run files and folders."""
    groups: tuple[str, ...]
    """Question types."""
    prepare: Callable[[Path], Path]
    """Writes its rows into a folder."""
    short: Callable[[Path], Path]
    """The same with few rows, where that is quicker."""
    max_rows: int
    """Held-out rows of each question type that are answered."""


TASKS = {
    task.name: task
    for task in (
        Task(
            name="easy_vqa",
            groups=GROUPS,
            prepare=prepare_easy_vqa,
            short=prepare_easy_vqa,
            max_rows=200,
        ),
        Task(
            name="charts",
            groups=CHART_QUESTION_TYPES,
            prepare=prepare_charts,
            short=lambda folder: prepare_charts(folder, num_cycles={"train": 1, "eval": 1}),
            max_rows=100,
        ),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """One data set's part of the work: where it lies and how much of it is done."""

    task: Task
    base: Path
    """The assembled model."""
    folder: Path
    is_short: bool
    max_rows: int
    """Held-out rows of each question type."""

    def prepare(self) -> None:
        """Write the data and the baselines."""
        data = (self.task.short if self.is_short else self.task.prepare)(self.folder / "data")
        split_by_group(data, self.task.groups)
        write_baselines(
            data, self.folder / "baselines.json", max_rows=self.max_rows, groups=self.task.groups
        )

    def train(self) -> None:
        """Train both stages, and merge what they learned into an ordinary model."""
        for number in (1, 2):
            smolvlm("train", self.run_file(number), *self.overrides(number), *self._steps())
        if not (self.folder / "merged").exists():
            adapted, merged = self.folder / STAGES[1], self.folder / "merged"
            smolvlm("export", adapted, "--to", "transformers", "--merge", "--out", merged)

    def evaluate(self) -> None:
        """Answer the held-out questions after each stage; the assembled model was asked as stage
        one began."""
        for stage in STAGES:
            predictions = self.folder / f"{stage}.jsonl"
            smolvlm(
                "eval",
                self.folder / stage,
                f"eval.max_rows={self.max_rows}",
                "--predictions",
                predictions,
            )

    def run_file(self, number: int) -> Path:
        return RUN_FILES / f"{self.task.name}_{number}_{STAGES[number - 1]}.yaml"

    def overrides(self, number: int) -> list[str]:
        """Return what puts a run file's paths into this folder."""
        model = self.base if number == 1 else self.folder / STAGES[0]
        output_dir = self.folder / STAGES[number - 1]
        return [
            f"model.path={model}",
            f"data.base_dir={self.folder / 'data'}",
            f"train.output_dir={output_dir}",
        ]

    def _steps(self) -> list[str]:
        if not self.is_short:
            return []
        steps = [
            f"train.max_steps={SHORT_STEPS}",
            "train.logging_steps=1",
            f"train.eval_steps={SHORT_STEPS}",
        ]
        return [*steps, f"train.save_steps={SHORT_STEPS}", f"eval.max_rows={SHORT_ROWS}"]


def smolvlm(*arguments: object) -> None:
    """Run one command of this package in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    command = [sys.executable, "-m", "smolvlm", *map(str, arguments)]
    subprocess.run(Parent.here().command(command), check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather the evidence and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evidence.run", description=__doc__.split("\n")[0]
    )
    parser.add_argument("tasks", nargs="*", help="easy_vqa, charts; both by default")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/evidence"), help="folder for everything"
    )
    parser.add_argument(
        "--layers", type=int, default=30, help="layers taken of the language model's 30"
    )
    parser.add_argument(
        "--base", type=Path, help="a model to begin with, in place of the assembled one"
    )
    parser.add_argument("--rows", type=int, help="held-out rows of each question type: 200, 100")
    parser.add_argument(
        "--figures", type=Path, help="folder for the curves; the output folder by default"
    )
    parser.add_argument(
        "--short", action="store_true", help="three steps on a few rows: checks the way alone"
    )
    parser.add_argument(
        "--report", action="store_true", help="table and curves only, from what lies in the folder"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.tasks) - set(TASKS)
    if unknown:
        parser.error(f"no task {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    out: Path = options.out.absolute()
    base: Path = options.base.absolute() if options.base else out / "base"
    if not options.base and not options.report:
        assemble_base_model(
            base, recipe=BaseRecipe(language=SmolLM2Layers(num_layers=options.layers))
        )
    console = Console()
    for name in options.tasks or TASKS:
        task = TASKS[name]
        rows = SHORT_ROWS if options.short else options.rows or task.max_rows
        work = Work(task=task, base=base, folder=out / name, is_short=options.short, max_rows=rows)
        if not options.report:
            work.prepare()
            work.train()
            work.evaluate()
        console.print(evidence_table(work.folder, STAGES, task.groups, title=name))
        figures: Path = options.figures or out
        runs = [work.folder / stage for stage in STAGES]
        console.print(
            write_figure(
                figures / f"evidence_{name}.svg", runs, work.folder / "baselines.json", name=name
            )
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
