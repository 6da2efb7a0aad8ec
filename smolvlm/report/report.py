"""The report of a run: `report.html`, from nothing but what the run left in its output folder.

It answers, in this order: is the model better than before and than answers that need no picture;
how did the loss go; what do the answers look like; what did it cost; where did it run; with which
settings. Parts whose files are missing are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from statistics import median

from smolvlm.config.best import best_evaluation
from smolvlm.disk.atomic_files import write_text
from smolvlm.pages.templating import page_text
from smolvlm.pages.token_text import percent, plural
from smolvlm.report.accuracy import OVERALL, Accuracy, accuracies, accuracy_of, weighted_overall
from smolvlm.report.answer_list import answer_list
from smolvlm.report.answer_log import answer_histories
from smolvlm.report.best import best_of_run, best_sentence, final_scores, settings_of
from smolvlm.report.charts import accuracy_chart, learning_rate_chart, loss_chart
from smolvlm.report.curves import small_curves
from smolvlm.report.data_rows import data_rows
from smolvlm.report.files import Metrics, RunFiles, read_run_files, training_seconds
from smolvlm.report.gallery import answer_views
from smolvlm.report.loss_unit import TOKEN_LOSS, LossUnit, loss_unit
from smolvlm.report.places import duration, place_rows
from smolvlm.report.planned import plan_rows
from smolvlm.report.preferences import order_chart, preference_sentence, rewards_chart
from smolvlm.report.private import is_private, shown_settings
from smolvlm.report.scores import score_rows
from smolvlm.report.worse import worse_by_source, worse_scores

NUM_ANSWERS = 9
REFRESH_S = 15
"""How often the page of a run that is training is loaded again."""
MAX_EVALUATIONS = 6
COSTS = (
    ("samples_per_s", "samples a second", 1, 1),
    ("tokens_per_s", "tokens a second", 1, 0),
    ("supervised_tokens_per_s", "learned tokens a second", 1, 0),
    ("tiles_per_s", "tiles a second", 1, 1),
    ("pack_fill", "fill of the packs, %", 100, 1),
    ("mfu", "use of the device's peak FLOPs, %", 100, 1),
    ("peak_memory_gb", "peak memory, GB", 1, 1),
)
"""Key of the log line, name, scale, decimals."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """One number at the top of the page."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AccuracyRow:
    """One line of the accuracy table; None is an empty cell."""

    after: Accuracy
    before: Accuracy | None
    baselines: tuple[float | None, ...]


def write_run_report(run_dir: Path) -> Path:
    """Write `report.html` into a run's output folder and return its path.

    Raises:
        ConfigError: the folder holds neither metrics nor predictions.
        SampleError: one of its files is damaged; names file and line.
    """
    path = run_dir / "report.html"
    write_text(path, run_report(run_dir))
    return path


def run_report(run_dir: Path) -> str:
    """Return the page of a run, which refreshes itself while the run trains; raises as
    `write_run_report`."""
    run = read_run_files(run_dir)
    rows, unit = accuracy_rows(run), loss_unit(run.train, run.settings)
    hides = is_private(settings_of(run.settings))
    shown, shown_before = ((), ()) if hides else (run.after, run.before)
    return page_text(
        "run_report.html",
        refresh_s=REFRESH_S if run.progress else None,
        title=run_dir.resolve().name,
        lede=" ".join(
            filter(None, [_lede(rows, run), best_sentence(run), *_of_pairs(run.train, unit)])
        ),
        worse=_worse(run),
        headlines=_headlines(run, rows, unit),
        accuracy_rows=rows,
        baseline_names=[name.replace("_", " ") for name in run.baselines],
        has_before=bool(run.before),
        has_balanced=any(row.after.balanced is not None for row in rows),
        scores=score_rows(run.after, run.before),
        accuracy_chart=accuracy_chart(accuracies(run.before), accuracies(run.after), run.baselines),
        loss_chart=loss_chart(run.train, run.evals, unit=unit),
        loss_note=unit.meaning,
        preference_charts=[
            chart for chart in (rewards_chart(run.train), order_chart(run.train)) if chart
        ],
        rate_chart=learning_rate_chart(run.train),
        evaluations=_evaluations(run),
        answers=answer_views(shown, before=shown_before, count=NUM_ANSWERS, run_dir=run_dir),
        histories=() if hides else answer_histories(run_dir),
        listed=answer_list(shown, shown_before, run_dir=run_dir),
        curves=small_curves(run.train),
        costs=_costs(run.train),
        planned=plan_rows(run.plan, run.train, settings=run.settings),
        places=place_rows(run.starts),
        data_rows=data_rows(run.starts[-1].sources) if run.starts else (),
        is_private=hides,
        settings=shown_settings(run.settings),
    )


def accuracy_rows(run: RunFiles) -> tuple[AccuracyRow, ...]:
    """Return a line for each group, and where there are several groups one for all rows, first."""
    before = {one.group: one for one in accuracies(run.before)}
    groups = accuracies(run.after)
    rows = [
        AccuracyRow(
            after=one,
            before=before.get(one.group),
            baselines=tuple(values.get(one.group) for values in run.baselines.values()),
        )
        for one in groups
    ]
    if len(groups) > 1:
        sizes = {one.group: one.num_rows for one in groups}
        total = AccuracyRow(
            after=accuracy_of(run.after, group=OVERALL),
            before=accuracy_of(run.before, group=OVERALL) if run.before else None,
            baselines=tuple(weighted_overall(values, sizes) for values in run.baselines.values()),
        )
        rows.insert(0, total)
    return tuple(rows)


def _lede(rows: Sequence[AccuracyRow], run: RunFiles) -> str:
    """Say in a sentence or two what came out."""
    if run.progress is not None:
        return run.progress.sentence()
    if not rows:
        return f"Trained for {_steps(run.train)}; no held-out answers were kept."
    top = rows[0]
    text = (
        f"Of {plural(top.after.num_rows, 'held-out row')} the model answers "
        f"{percent(top.after.value)} right"
    )
    text += f"; before training it was {percent(top.before.value)}." if top.before else "."
    known = [
        (value, name)
        for name, value in zip(run.baselines, top.baselines, strict=True)
        if value is not None
    ]
    if known:
        best, name = max(known)
        text += f" The best baseline, {name.replace('_', ' ')}, gets {percent(best)}."
    groups = rows[1:] if len(rows) > 1 else rows
    if weak := [row.after.group for row in groups if _is_no_better(row)]:
        text += f" Not clearly better than a baseline in: {', '.join(weak)}."
    return text


def _steps(train: Sequence[Metrics]) -> str:
    return plural(int(train[-1]["step"]) if train else 0, "step")


def _of_pairs(train: Sequence[Metrics], unit: LossUnit) -> tuple[str, ...]:
    """Return what the loss is and what the pairs say, of a run that learned from pairs."""
    if unit == TOKEN_LOSS:
        return ()
    return f"The loss is the {unit.name}, {unit.unit}.", preference_sentence(train)


def _is_no_better(row: AccuracyRow) -> bool:
    """Say whether the best baseline reaches the interval of the model's accuracy."""
    return any(value is not None and value >= row.after.low for value in row.baselines)


def _headlines(run: RunFiles, rows: Sequence[AccuracyRow], unit: LossUnit) -> list[Headline]:
    headlines: list[Headline] = []
    if rows:
        after, before = rows[0].after, rows[0].before
        start = f"{100 * before.value:.1f} → " if before else ""
        interval = f"95 % interval {100 * after.low:.1f} to {100 * after.high:.1f}"
        headlines.append(
            Headline(name="Accuracy", value=f"{start}{percent(after.value)}", detail=interval)
        )
    if run.train:
        headlines += [_loss_headline(run.train, unit), *_training_headlines(run.train)]
    return headlines


def _loss_headline(train: Sequence[Metrics], unit: LossUnit) -> Headline:
    first, last = train[0]["loss"], train[-1]["loss"]
    value = f"{last:.3f}" if len(train) == 1 else f"{first:.2f} → {last:.3f}"
    detail = "one logged step" if len(train) == 1 else "first and last log line"
    said = "" if unit == TOKEN_LOSS else f"{unit.unit}; "
    return Headline(name="Loss", value=value, detail=said + detail)


def _training_headlines(train: Sequence[Metrics]) -> list[Headline]:
    headlines: list[Headline] = []
    total = {
        key: sum(line.get(key, 0) for line in train)
        for key in ("num_samples", "num_tokens", "num_tiles")
    }
    learned = sum(line.get("num_supervised_tokens", 0) for line in train)
    if seconds := training_seconds(train):
        headlines.append(
            Headline(
                name="Time in steps",
                value=duration(seconds),
                detail=plural(int(train[-1]["step"]), "step"),
            )
        )
        speed = f"{total['num_samples'] / seconds:,.1f} / s"
        headlines.append(
            Headline(name="Samples", value=speed, detail=f"{total['num_samples']:,.0f} in all")
        )
    if total["num_tokens"]:
        detail = (
            f"{percent(learned / total['num_tokens'])} learned, {total['num_tiles']:,.0f} tiles"
        )
        headlines.append(
            Headline(name="Tokens", value=short_count(total["num_tokens"]), detail=detail)
        )
    return headlines


def short_count(count: float) -> str:
    """Return `873`, `12.4 k`, `1.25 M` or `3.1 G`."""
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if count >= least:
            scaled = count / unit
            return f"{scaled:.3g} {letter}" if scaled < 999.5 else f"{scaled:,.0f} {letter}"
    return f"{count:,.0f}"


def _worse(run: RunFiles) -> tuple[str, list[str]]:
    """Return the step of the model that the run has, and a line about each source on which the
    untrained model was better."""
    now = final_scores(run)
    if not now or run.evals[0]["step"] != 0:
        return "", []
    worse = worse_by_source(worse_scores(run.evals[0], now))
    lines = [f"{source or 'all rows'}: {words}" for source, words in worse.items()]
    return f"{now['step']:,.0f}", lines


def _evaluations(run: RunFiles) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Return the steps of a few evaluations, the best among them, and the metrics there."""
    found = best_of_run(run.settings, run.evals)
    best = best_evaluation(run.evals, "loss") if found is None else found[1]
    steps = [line["step"] for line in run.evals]
    best_place = steps.index(best.step) if best is not None and best.step in steps else None
    shown = [run.evals[place] for place in _spread(len(steps), with_place=best_place)]
    names = sorted(
        {key for line in shown for key in line if key.startswith("eval_") and "_ci95_" not in key}
    )
    rows = [
        (name.removeprefix("eval_"), [_plain(line.get(name)) for line in shown]) for name in names
    ]
    steps = ["before" if line["step"] == 0 else f"{line['step']:,.0f}" for line in shown]
    return steps, rows


def _spread(length: int, *, with_place: int | None) -> list[int]:
    """Return at most `MAX_EVALUATIONS` evenly spaced places, the first, the last and a given one
    among them; the given one stands for its nearest neighbour."""
    count = min(length, MAX_EVALUATIONS)
    places = [round(place * (length - 1) / max(count - 1, 1)) for place in range(count)]
    if with_place is not None and with_place not in places:
        nearest = min(places[1:-1], key=lambda place: abs(place - with_place))
        places[places.index(nearest)] = with_place
    return places


def _plain(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if isclose(value, round(value)) and abs(value) >= 2 else f"{value:.3f}"


def _costs(train: Sequence[Metrics]) -> list[tuple[str, str, str, str]]:
    """Return name, median, lowest and highest of what the log lines say of speed and memory."""
    rows: list[tuple[str, str, str, str]] = []
    for key, name, scale, decimals in COSTS:
        values = [scale * line[key] for line in train if key in line]
        if values:
            middle, low, high = (
                f"{value:,.{decimals}f}" for value in (median(values), min(values), max(values))
            )
            rows.append((name, middle, low, high))
    return rows
