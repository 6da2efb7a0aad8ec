"""Runs side by side: what differs in their settings, and what came of it.

In: output folders. Out: a `Comparison`, which the terminal and the page show alike. Whatever makes
a comparison unfair stands in its notes: other data, another base, other held-out rows, another kind
of loss, a run that is not done.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from smolvlm.errors import ConfigError
from smolvlm.pages.token_text import without_home
from smolvlm.report.best import final_scores, settings_of
from smolvlm.report.files import Metrics, RunFiles, read_run_files
from smolvlm.report.loss_unit import LossUnit, loss_unit
from smolvlm.report.private import shown_settings
from smolvlm.report.side_costs import NOT_SET, cost_rows
from smolvlm.report.worse import Score, scores_of

_PLACES = frozenset({"train.output_dir", "data.base_dir", "train.run_name"})
"""Settings that differ between any two runs, and say nothing of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the runs."""

    name: str
    run: RunFiles
    settings: Mapping[str, object]
    """Of `run.yaml`: dotted key -> value."""
    shown: Mapping[str, object]
    """The same as pages may show it: of a private run without paths."""
    unit: LossUnit
    """Of its loss."""

    @property
    def base(self) -> object:
        """What it was trained from; None where its settings are not there."""
        return self.settings.get("model.path")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A line of a table: a name, and a cell for each run."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCells:
    """A metric of a source, with what each run scored."""

    source: str
    metric: str
    before: Score | None
    """Of the untrained model, where all runs began with the same."""
    scores: tuple[Score | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Runs beside each other; each tuple of cells is in their order."""

    sides: tuple[Side, ...]
    notes: tuple[str, ...]
    """What makes them hard to compare."""
    settings: tuple[Row, ...]
    """Those that differ."""
    scores: tuple[ScoreCells, ...]
    costs: tuple[Row, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(side.name for side in self.sides)


def compare_runs(run_dirs: Sequence[Path]) -> Comparison:
    """Read runs and lay them side by side.

    Args:
        run_dirs: output folders, at least two.

    Raises:
        ConfigError: a folder holds no run, or is named twice.
        SampleError: one of its files is damaged; names file and line.
    """
    places = [folder.resolve() for folder in run_dirs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise ConfigError("named twice", where=str(run_dirs[number]), fix="name it once")
    sides = tuple(
        _side(name, folder) for name, folder in zip(_names(places), run_dirs, strict=True)
    )
    return Comparison(
        sides=sides,
        notes=tuple(_notes(sides)),
        settings=_differing(sides),
        scores=_scores(sides),
        costs=tuple(
            Row(name=name, cells=cells) for name, cells in cost_rows([side.run for side in sides])
        ),
    )


def _side(name: str, folder: Path) -> Side:
    run = read_run_files(folder)
    return Side(
        name=name,
        run=run,
        settings=_flat(settings_of(run.settings)),
        shown=_flat(settings_of(shown_settings(run.settings))),
        unit=loss_unit(run.train, run.settings),
    )


def _names(places: Sequence[Path]) -> list[str]:
    """Return the shortest ends of paths that tell them apart."""
    for length in range(1, max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-length:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [without_home(str(place)) for place in places]


def _flat(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if prefix else {}
    flat: dict[str, object] = {}
    for name, inner in value.items():
        flat |= _flat(inner, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _differing(sides: Sequence[Side]) -> tuple[Row, ...]:
    keys = dict.fromkeys(key for side in sides for key in side.settings)
    rows: list[Row] = []
    for key in keys:
        if key in _PLACES:
            continue
        values = {_shown(side.settings[key]) if key in side.settings else NOT_SET for side in sides}
        if len(values) > 1:
            cells = tuple(_cell(side, key) for side in sides)
            rows.append(Row(name=key, cells=cells))
    return tuple(rows)


def _cell(side: Side, key: str) -> str:
    return _shown(side.shown[key]) if key in side.shown else NOT_SET


def _shown(value: object) -> str:
    if isinstance(value, str):
        return without_home(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return without_home(text.removesuffix("\n...\n").strip())


def _notes(sides: Sequence[Side]) -> list[str]:
    notes: list[str] = []
    if len({str(side.base) for side in sides}) > 1:
        bases = "; ".join(f"{side.name}: {_cell(side, 'model.path')}" for side in sides)
        notes.append(f"They were trained from different models: {bases}.")
    if len({_data(side) for side in sides}) > 1:
        notes.append(f"They learned from different data: {_each(sides, _data_words)}.")
    if len({_asked(side) for side in sides}) > 1:
        notes.append(
            "They were evaluated on different rows, so their scores are not of the same questions: "
            f"{_each(sides, _asked_words)}."
        )
    if len({side.unit for side in sides}) > 1:
        units = _each(sides, lambda side: f"{side.unit.name}, {side.unit.unit}")
        notes.append(f"Their losses are not the same thing, and are not drawn together: {units}.")
    for side in sides:
        if side.run.progress is not None:
            notes.append(f"{side.name}: {side.run.progress.sentence()}")
    return notes


def _each(sides: Sequence[Side], words: Callable[[Side], str]) -> str:
    return "; ".join(f"{side.name}: {words(side)}" for side in sides)


def _data(side: Side) -> str:
    """Return what tells whether two runs learned from the same rows."""
    if side.run.starts and side.run.starts[-1].sources:
        return repr(side.run.starts[-1].sources)
    return repr(side.settings.get("data.mixture"))


def _data_words(side: Side) -> str:
    if not side.run.starts or not side.run.starts[-1].sources:
        return _cell(side, "data.mixture")
    return ", ".join(
        f"{source.name} {source.num_used:,} rows"
        + (f" x {source.repeat:g}" if source.repeat != 1 else "")
        for source in side.run.starts[-1].sources
    )


def _asked(side: Side) -> str:
    """Return what tells whether two runs were asked the same."""
    if side.run.after:
        rows = sorted((row.source, row.question, row.references) for row in side.run.after)
        return repr(rows)
    return repr((side.settings.get("data.eval_mixture"), side.settings.get("eval.max_rows")))


def _asked_words(side: Side) -> str:
    if not side.run.after:
        return _cell(side, "data.eval_mixture")
    sources: dict[str, int] = {}
    for row in side.run.after:
        sources[row.source] = sources.get(row.source, 0) + 1
    return ", ".join(f"{name} {count:,}" for name, count in sources.items())


def _scores(sides: Sequence[Side]) -> tuple[ScoreCells, ...]:
    found = [_by_place(final_scores(side.run)) for side in sides]
    starts = [_by_place(_start(side.run)) for side in sides]
    shared = starts[0] if all(start == starts[0] for start in starts) else {}
    places = {place for scores in found for place in scores}
    return tuple(
        ScoreCells(
            source=source or "all",
            metric=metric,
            before=shared.get((source, metric)),
            scores=tuple(scores.get((source, metric)) for scores in found),
        )
        for source, metric in sorted(places)
    )


def _start(run: RunFiles) -> Metrics:
    return run.evals[0] if run.evals and run.evals[0]["step"] == 0 else {}


def _by_place(line: Metrics) -> dict[tuple[str, str], Score]:
    return {(score.source, score.metric): score for score in scores_of(line)}
