"""A mixture: YAML (or the same written inside a run file) in, checked sources out.

Both shapes found in the wild are read: a mapping of group name -> list of sources, and a bare list of sources. Nothing
is opened but the mixture itself; every problem of every source is reported at once.

Where files are looked for: a mixture file's relative paths start from its own folder, an inline mixture's from the
run file's. `json_path` names the file of rows and `path` the folder of its pictures; where `json_path` is missing,
`path` names the file of rows. Without a folder of pictures, the rows' own folder is it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from smolvlm.config.problems import Problem, problems_error, shown_value
from smolvlm.config.suggestions import did_you_mean
from smolvlm.config.yaml_text import read_yaml
from smolvlm.datasets.sources import BadSamplePolicy, Modality, RowFormat, Sampling, SourceSpec, parse_sampling
from smolvlm.errors import ConfigError

FORMAT_OF_ENDING: Mapping[str, RowFormat] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
READABLE = "readable now: a JSON list (.json), JSON lines (.jsonl) and Parquet (.parquet)"
COLUMN_NAMES = (
    *("conversations", "messages", "question", "answer", "answers", "texts"),
    *("image", "images", "video", "videos", "prompt", "chosen", "rejected"),
)
_KEYS = (
    *("json_path", "path", "name", "modality", "sampling_strategy"),
    *("repeat", "columns", "seed", "on_bad_sample"),
)
_IGNORED_KEYS = frozenset({"source", "category", "quality", "duration", "_comment"})
_UNAVAILABLE_KEYS = {
    "hub": f"data sets of the hub are not available in this version; {READABLE}",
    "split": f"splits belong to Hugging Face data sets, which are not available in this version; {READABLE}",
    "source_fps": "video is not available in this version; take the source out",
    "weight": "relative weights are not available in this version; use `repeat` or `sampling_strategy`",
}


def load_mixture(
    path_or_inline: str | Path | Sequence[Any] | Mapping[str, Any], *, base_dir: Path
) -> tuple[SourceSpec, ...]:
    """Return the sources of a mixture, in its order.

    Args:
        path_or_inline: a YAML file (relative to `base_dir`), or the list or mapping itself.
        base_dir: folder that an inline mixture's relative paths start from.

    Raises:
        ConfigError: the file cannot be read, or some source is wrong; lists every problem with its key.
    """
    if isinstance(path_or_inline, str | Path):
        path = base_dir / Path(path_or_inline).expanduser()
        where, content, base_dir = str(path_or_inline), read_yaml(path), path.parent
    else:
        where, content = "inline mixture", path_or_inline
    problems: list[Problem] = []
    sources: list[SourceSpec] = []
    for key, entry in _entries(content, where=where):
        source = _read_source(entry, key=key, base_dir=base_dir, problems=problems)
        if source is not None:
            sources.append(source)
    if problems:
        raise problems_error(problems, where=where)
    return _with_distinct_names(sources)


def _entries(content: Any, *, where: str) -> list[tuple[str, Any]]:
    """Return (key, entry) of each source, for both shapes of a mixture."""
    shape_fix = "write a list of sources, or a mapping of group name -> list of sources"
    if isinstance(content, Mapping):
        entries: list[tuple[str, Any]] = []
        for group, members in content.items():
            if group in _IGNORED_KEYS:
                continue
            if not isinstance(members, Sequence) or isinstance(members, str):
                given = f"`{group}` is {shown_value(members)}, not a list of sources"
                raise ConfigError(given, where=where, fix=shape_fix)
            entries += [(f"{group}[{number}]", member) for number, member in enumerate(members)]
    elif isinstance(content, Sequence) and not isinstance(content, str):
        entries = [(f"[{number}]", member) for number, member in enumerate(content)]
    else:
        raise ConfigError(f"the mixture is {shown_value(content)}", where=where, fix=shape_fix)
    if not entries:
        raise ConfigError("the mixture has no sources", where=where, fix=shape_fix)
    return entries


def _read_source(entry: Any, *, key: str, base_dir: Path, problems: list[Problem]) -> SourceSpec | None:
    """Return one entry as a source, or None after adding to `problems` what is wrong with it."""
    if not isinstance(entry, Mapping):
        problems.append(
            Problem(key=key, value=shown_value(entry), what="a source is a mapping", fix="write `json_path: FILE`")
        )
        return None
    reader = _EntryReader(entry, key=key, problems=problems)
    num_before = len(problems)
    reader.check_keys()
    rows_key = "json_path" if entry.get("json_path") is not None else "path"
    written = reader.text(rows_key)
    if entry.get("json_path") is None and entry.get("path") is None and entry.get("hub") is None:
        reader.problem("json_path", "missing: a source needs its file of rows", fix="write `json_path: FILE`")
    media = reader.text("path") if rows_key == "json_path" else None
    path = (base_dir / Path(written or "").expanduser()).absolute()
    source = SourceSpec(
        name=reader.text("name") or path.stem,
        path=path,
        label=written or "",
        format=reader.row_format(rows_key, path) if written else "json",
        media_root=(base_dir / Path(media).expanduser()).absolute() if media else path.parent,
        modality=reader.choice("modality", get_args(Modality)),
        sampling=reader.sampling(),
        repeat=reader.whole_number("repeat", default=1, minimum=1),
        columns=reader.columns(),
        seed=reader.whole_number("seed", default=0, minimum=0),
        on_bad_sample=reader.choice("on_bad_sample", get_args(BadSamplePolicy)),
    )
    if source.modality == "video":
        reader.problem("modality", "video is not available in this version", fix="take the source out")
    return source if len(problems) == num_before else None


class _EntryReader:
    """Reads one entry key by key; what is wrong goes to the list of problems and a stand-in value is returned."""

    def __init__(self, entry: Mapping[str, Any], *, key: str, problems: list[Problem]) -> None:
        self.entry = entry
        self.key = key
        self.problems = problems

    def problem(self, name: str, what: str, *, fix: str | None = None) -> None:
        value = shown_value(self.entry[name]) if name in self.entry else None
        self.problems.append(Problem(key=f"{self.key}.{name}", value=value, what=what, fix=fix))

    def check_keys(self) -> None:
        for name in self.entry:
            if name in _UNAVAILABLE_KEYS:
                self.problem(name, _UNAVAILABLE_KEYS[name])
            elif name not in _KEYS and name not in _IGNORED_KEYS:
                known = f"a source's keys are {', '.join(_KEYS)}"
                self.problem(name, "unknown key", fix=did_you_mean(str(name), _KEYS) or known)

    def text(self, name: str) -> str | None:
        value = self.entry.get(name)
        if value is not None and not isinstance(value, str):
            self.problem(name, "must be text", fix="quote it")
            return None
        return value

    def row_format(self, name: str, path: Path) -> RowFormat:
        row_format = FORMAT_OF_ENDING.get(path.suffix.lower())
        if row_format is not None and path.is_file():
            return row_format
        if path.is_dir():
            what = "a folder, not a file of rows; saved data sets and shards are not available in this version"
            self.problem(name, what, fix=READABLE)
        elif row_format is None:
            self.problem(name, f"the ending {path.suffix!r} is no known format of rows", fix=READABLE)
        else:
            self.problem(
                name, f"no such file: {path}", fix="check the path; relative ones start from the mixture's folder"
            )
        return row_format or "json"

    def choice(self, name: str, choices: Sequence[str]) -> Any:
        value = self.entry.get(name)
        if value is None or value in choices:
            return value
        self.problem(name, f"must be one of {', '.join(choices)}", fix=did_you_mean(str(value), choices))
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

    def columns(self) -> Mapping[str, str]:
        value = self.entry.get("columns")
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(column, str) for column in value.values()):
            self.problem("columns", "must map our column names to the file's", fix="write `columns: {question: query}`")
            return {}
        for ours in value:
            if ours not in COLUMN_NAMES:
                fix = did_you_mean(str(ours), COLUMN_NAMES) or f"the names are {', '.join(COLUMN_NAMES)}"
                self.problem("columns", f"`{ours}` is no column that rows are read from", fix=fix)
        return dict(value)


def _with_distinct_names(sources: Sequence[SourceSpec]) -> tuple[SourceSpec, ...]:
    """Number the sources that share a name, in order: `charts`, `charts#2`."""
    seen: Counter[str] = Counter()
    named: list[SourceSpec] = []
    for source in sources:
        seen[source.name] += 1
        named.append(source if seen[source.name] == 1 else replace(source, name=f"{source.name}#{seen[source.name]}"))
    return tuple(named)
