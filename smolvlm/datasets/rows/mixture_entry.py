"""One entry of a mixture: keys in, a source out; every problem goes to a list.

`json_path` names the file of rows and `path` the folder of its pictures; where `json_path` is
missing, `path` names the file of rows. Without a folder of pictures, the rows' own folder is it. A
name may be a pattern for several files: `shards/*.tar`, `part-{000..127}.jsonl`. Both may be
addresses (`remote_rows.py`).
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from smolvlm.config.eval_metrics import metric_names, unknown_metric
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.row_files import RowFormat, row_file
from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.entry_files import EntryFiles, entry_files
from smolvlm.datasets.rows.keys import (
    COLUMN_NAMES,
    CONSTANT_COLUMNS,
    LIST_COLUMNS,
    TEXT_COLUMNS,
)
from smolvlm.datasets.rows.remote_rows import is_remote
from smolvlm.datasets.rows.row_filter import RowFilter, parse_filter
from smolvlm.datasets.rows.sources import (
    BadSamplePolicy,
    MediaMarkers,
    Modality,
    Sampling,
    SourceSpec,
    parse_sampling,
)
from smolvlm.errors import ConfigError

_KEYS = (
    *("json_path", "path", "name", "modality", "sampling_strategy"),
    *(
        "hub",
        "memory",
        "split",
        "weight",
        "repeat",
        "columns",
        "not_read",
        "constants",
        "first_option_index",
        "filter",
        "seed",
        "on_bad_sample",
        "source_fps",
        "media_markers",
        "license",
        "metric",
    ),
)
IGNORED_KEYS = frozenset({"source", "category", "quality", "duration", "_comment"})


def read_source(
    entry: object, *, key: str, base_dir: Path, problems: list[Problem]
) -> SourceSpec | None:
    """Return one entry as a source, or None after adding to `problems` what is wrong with it."""
    if not isinstance(entry, Mapping):
        problems.append(
            Problem(
                key=key,
                value=shown_value(entry),
                what="a source is a mapping",
                fix="write `json_path: FILE`",
            )
        )
        return None
    reader = _EntryReader(entry, key=key, problems=problems)
    num_before = len(problems)
    reader.check_keys()
    rows_key = next(
        (name for name in ("json_path", "hub", "memory") if entry.get(name) is not None), "path"
    )
    written = reader.text(rows_key)
    if entry.get(rows_key) is None:
        reader.problem(
            "json_path", "missing: a source needs its file of rows", fix="write `json_path: FILE`"
        )
    media = reader.text("path") if rows_key != "path" else None
    found = (
        entry_files(rows_key, written, base_dir=base_dir, problem=reader.problem)
        if written
        else EntryFiles((base_dir / "rows",), "json")
    )
    files, row_format = found.files, found.format
    is_local = not media or not is_remote(media)
    root = (base_dir / os.path.expanduser(media)).absolute() if media and is_local else None
    source = SourceSpec(
        name=reader.text("name")
        or (_stem_of(files[0]) if rows_key != "hub" else str(written).rpartition("/")[2]),
        path=files[0],
        more_files=files[1:],
        label=f"memory:{str(written)[:12]}" if rows_key == "memory" else written or "",
        format=row_format,
        split=reader.split(row_format),
        media_root=root or files[0].parent,
        media_url=(found.url if not media else None if is_local else media.rstrip("/")),
        modality=reader.choice("modality", get_args(Modality)),
        row_filter=reader.row_filter(),
        sampling=reader.sampling(),
        repeat=reader.number("repeat") or 1.0,
        weight=reader.number("weight"),
        source_fps=reader.number("source_fps") or 1.0,
        columns=reader.columns(),
        not_read=reader.not_read(),
        constants=reader.constants(),
        first_option_index=reader.choice("first_option_index", (0, 1)),
        media_markers=reader.choice("media_markers", get_args(MediaMarkers)) or "plain",
        seed=reader.whole_number("seed", default=0, minimum=0),
        on_bad_sample=reader.choice("on_bad_sample", get_args(BadSamplePolicy)),
        metrics=reader.metrics(),
    )
    reader.text("license")  # for the model card, which reads it from the settings
    places = [name for name in ("json_path", "hub", "memory") if entry.get(name) is not None]
    if len(places) > 1:
        reader.problem(
            places[1], f"with `{places[0]}` besides", fix="make each a source of its own"
        )
    if source.weight is not None and entry.get("repeat") is not None:
        reader.problem("weight", "with `repeat` besides", fix="keep one of the two")
    return source if len(problems) == num_before else None


class _EntryReader:
    """Reads one entry key by key; a problem is noted, and a stand-in value returned."""

    def __init__(self, entry: Mapping[str, object], *, key: str, problems: list[Problem]) -> None:
        self.entry = entry
        self.key = key
        self.problems = problems

    def problem(self, name: str, what: str, *, fix: str | None = None) -> None:
        value = shown_value(self.entry[name]) if name in self.entry else None
        self.problems.append(Problem(key=f"{self.key}.{name}", value=value, what=what, fix=fix))

    def check_keys(self) -> None:
        for name in self.entry:
            if name not in _KEYS and name not in IGNORED_KEYS:
                known = f"a source's keys are {', '.join(_KEYS)}"
                self.problem(name, "unknown key", fix=did_you_mean(str(name), _KEYS) or known)

    def text(self, name: str) -> str | None:
        value = self.entry.get(name)
        if value is not None and not isinstance(value, str):
            self.problem(name, "must be text", fix="quote it")
            return None
        return value

    def split(self, row_format: RowFormat) -> str | None:
        value = self.text("split")
        if value is not None and row_format not in ("hub", "saved"):
            self.problem(
                "split", "splits belong to Hugging Face data sets", fix="name the split's own file"
            )
        return value

    def number(self, name: str) -> float | None:
        """Return a number above 0, or None where it is not given."""
        value = self.entry.get(name)
        if value is None:
            return None
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and 0 < value <= sys.float_info.max
        ):
            return float(value)
        self.problem(name, "must be a number above 0")
        return None

    def choice(self, name: str, choices: Sequence[str | int]) -> Any:
        value = self.entry.get(name)
        if value is None or (value in choices and not isinstance(value, bool)):
            return value
        names = [str(choice) for choice in choices]
        self.problem(
            name, f"must be one of {', '.join(names)}", fix=did_you_mean(str(value), names)
        )
        return None

    def whole_number(self, name: str, *, default: int, minimum: int) -> int:
        value = self.entry.get(name, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= minimum:
            return value
        self.problem(name, f"must be a whole number, at least {minimum}")
        return default

    def sampling(self) -> Sampling:
        value = self.entry.get("sampling_strategy", "all")
        if isinstance(value, str):
            try:
                return parse_sampling(value)
            except ConfigError as error:
                self.problem("sampling_strategy", error.what, fix=error.fix)
        else:
            self.problem("sampling_strategy", "must be text such as `all` or `random:10%`")
        return Sampling()

    def row_filter(self) -> RowFilter:
        try:
            return parse_filter(self.entry.get("filter"))
        except ConfigError as error:
            self.problem("filter", error.what, fix=error.fix)
            return RowFilter()

    def metrics(self) -> tuple[str, ...]:
        value = self.entry.get("metric")
        if value is None:
            return ()
        names = metric_names(value)
        if names is None:
            fix = "write `metric: anls`, or `metric: [anls, exact_match]`"
            self.problem("metric", "must be a metric, or a list of them", fix=fix)
        elif (wrong := unknown_metric(names)) is not None:
            self.problem("metric", wrong[0], fix=wrong[1])
        return names or ()

    def columns(self) -> Mapping[str, str | tuple[str, ...]]:
        value = self.entry.get("columns")
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.problem(
                "columns",
                "must map our column names to the file's",
                fix="write `columns: {question: query}`",
            )
            return {}
        columns: dict[str, str | tuple[str, ...]] = {}
        for ours, names in value.items():
            if ours not in COLUMN_NAMES:
                fix = (
                    did_you_mean(str(ours), COLUMN_NAMES)
                    or f"the names are {', '.join(COLUMN_NAMES)}"
                )
                self.problem("columns", f"`{ours}` is no column that rows are read from", fix=fix)
            elif isinstance(names, str):
                columns[ours] = names
            elif isinstance(names, list) and names and all(isinstance(name, str) for name in names):
                columns[ours] = self._several_columns(ours, names)
            else:
                fix = "write `columns: {question: query}`, or `{images: [left, right]}`"
                self.problem("columns", f"`{ours}` must name a column of the file's", fix=fix)
        return columns

    def _several_columns(self, ours: str, names: Sequence[str]) -> tuple[str, ...]:
        if ours not in LIST_COLUMNS | TEXT_COLUMNS:
            listed = ", ".join(sorted(LIST_COLUMNS | TEXT_COLUMNS))
            what = f"`{ours}` is read from one column"
            self.problem("columns", what, fix=f"several may be listed for {listed}")
        return tuple(names)

    def not_read(self) -> frozenset[str]:
        value = self.entry.get("not_read", [])
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            columns = self.entry.get("columns")
            mapped = columns.values() if isinstance(columns, Mapping) else ()
            read = {
                name for names in mapped for name in (names if isinstance(names, list) else [names])
            }
            if both := sorted(read.intersection(value)):
                what = f"`{both[0]}` is read by `columns` besides"
                self.problem("not_read", what, fix="take it out of one of the two")
            return frozenset(value)
        self.problem("not_read", "must be a list of keys", fix="write `not_read: [hint, choices]`")
        return frozenset()

    def constants(self) -> Mapping[str, str]:
        """Return the texts that columns have in every row."""
        value = self.entry.get("constants")
        if value is None:
            return {}
        form = "write `constants: {question: Describe the picture.}`"
        if not isinstance(value, Mapping):
            self.problem("constants", "must map our column names to texts", fix=form)
            return {}
        columns = self.entry.get("columns")
        for ours, text in value.items():
            if ours not in CONSTANT_COLUMNS:
                fix = (
                    did_you_mean(str(ours), CONSTANT_COLUMNS)
                    or f"the names are {', '.join(CONSTANT_COLUMNS)}"
                )
                self.problem("constants", f"`{ours}` cannot be the same in every row", fix=fix)
            elif not isinstance(text, str) or not text.strip():
                self.problem("constants", f"`{ours}` must be text", fix=form)
            elif isinstance(columns, Mapping) and ours in columns:
                what = f"`{ours}` is read by `columns` besides"
                self.problem("constants", what, fix="keep one of the two")
        return {str(ours): str(text) for ours, text in value.items()}


def _stem_of(file: Path) -> str:
    named = row_file(file)
    return file.stem if named is None else named.stem
