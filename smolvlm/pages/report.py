"""The report of a run: one page that says what was trained, how it went, and what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from smolvlm.errors import SampleError
from smolvlm.pages.charts import Curve, line_chart, smoothed
from smolvlm.pages.run_data import GroupScores, RunData, gallery, read_run
from smolvlm.pages.templating import write_page
from smolvlm.pages.thumbnails import picture_uri
from smolvlm.records import ImageRef

GALLERY_SIZE = 12
THUMBNAIL_PX = 220
BASELINE_TITLES = {"majority": "majority answer", "question_only": "question only"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar of the accuracy chart."""

    title: str
    value: float
    css_class: str
    interval: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One answered question with its picture."""

    uri: str
    question: str
    truth: str
    answer: str
    is_right: bool


def write_run_report(run_dir: Path) -> Path:
    """Write `report.html` into a run's folder from what the run left there, and return its path.

    Raises:
        ConfigError: the folder holds no metrics.
    """
    run = read_run(run_dir)
    return write_page(
        run_dir / "report.html",
        template="report.html",
        title=run.name,
        facts=_facts(run),
        loss_chart=_loss_chart(run),
        rate_chart=_rate_chart(run),
        groups=[(group, _bars(group)) for group in run.groups],
        answers=_answers(run),
        evaluations=[_evaluation_row(line) for line in run.evaluations],
        settings=run.settings,
    )


def _facts(run: RunData) -> list[tuple[str, str]]:
    """Return the headline numbers as (name, value)."""
    if not run.train:
        return []
    first, last = run.train[0], run.train[-1]
    num_rows = sum(group.after.num_rows for group in run.groups)
    facts = [("steps", f"{last['step']:,}"), ("loss", f"{first['loss']:.3f} → {last['loss']:.3f}")]
    if num_rows:
        after = sum(group.after.correct for group in run.groups) / num_rows
        before = [group.before for group in run.groups if group.before is not None]
        known = sum(score.num_rows for score in before)
        start = f"{100 * sum(score.correct for score in before) / known:.1f} → " if known else ""
        facts.append(("held-out answers right", f"{start}{100 * after:.1f} %"))
    seconds = sum(line["num_samples"] / line["samples_per_s"] for line in run.train if line["samples_per_s"])
    total = {name: sum(line[name] for line in run.train) for name in ("num_samples", "num_tokens", "num_tiles")}
    return [
        *facts,
        ("time in steps", f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"),
        ("conversations", f"{total['num_samples']:,}"),
        ("tokens", f"{total['num_tokens']:,}"),
        ("tiles", f"{total['num_tiles']:,}"),
        ("conversations / s", f"{total['num_samples'] / seconds:,.1f}" if seconds else "-"),
        ("pack fill", f"{100 * sum(line['pack_fill'] for line in run.train) / len(run.train):.1f} %"),
        ("peak memory", f"{max(line['peak_memory_gb'] for line in run.train):.1f} GB"),
    ]


def _loss_chart(run: RunData) -> Markup | None:
    points = tuple((float(line["step"]), float(line["loss"])) for line in run.train)
    held_out = tuple((float(line["step"]), float(line["eval_loss"])) for line in run.evaluations if "eval_loss" in line)
    curves = [
        Curve(label="each step", points=points, css_class="raw"),
        Curve(label="smoothed", points=smoothed(points), css_class="line"),
        Curve(label="held out", points=held_out, css_class="held-out"),
    ]
    return line_chart(
        [curve for curve in curves if len(curve.points) > 1], x_label="step", y_label="loss, nats a token"
    )


def _rate_chart(run: RunData) -> Markup | None:
    towers = ("language_model", "connector", "vision_tower")
    curves = [
        Curve(
            label=tower,
            points=tuple((float(line["step"]), float(line[f"learning_rate_{tower}"])) for line in run.train),
            css_class=f"line rate-{tower}",
        )
        for tower in towers
        if run.train and any(line.get(f"learning_rate_{tower}") for line in run.train)
    ]
    return line_chart(curves, x_label="step", y_label="learning rate")


def _bars(group: GroupScores) -> list[Bar]:
    bars = [Bar(title="after", value=group.after.value, css_class="after", interval=group.after.interval)]
    if group.before is not None:
        bars.append(Bar(title="before", value=group.before.value, css_class="before"))
    bars += [
        Bar(title=BASELINE_TITLES.get(name, name), value=value, css_class="baseline")
        for name, value in group.baselines.items()
    ]
    return bars


def _answers(run: RunData) -> list[Shown]:
    shown: list[Shown] = []
    for row in gallery(run.predictions, size=GALLERY_SIZE):
        try:
            uri = picture_uri(ImageRef(path=Path(row["images"][0])), where=row["where"], max_side_px=THUMBNAIL_PX)
        except SampleError:  # the picture was moved since, or came in the row: the report is not about that
            continue
        shown.append(
            Shown(
                uri=uri,
                question=row["question"],
                truth=" / ".join(dict.fromkeys(row["references"])),
                answer=row["prediction"] or "(nothing)",
                is_right=row["correct"] >= 1,
            )
        )
    return shown


def _evaluation_row(line: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    values = [
        (key.removeprefix("eval_"), f"{value:.4f}")
        for key, value in sorted(line.items())
        if key.startswith("eval_") and isinstance(value, float)
    ]
    return int(line["step"]), values
