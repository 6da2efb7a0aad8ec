"""A mixture: YAML (or the same written inside a run file) in, checked sources out.

Both shapes found in the wild are read: a mapping of group name -> list of sources, and a bare list
of sources. Nothing is opened but the mixture itself; every problem of every source is reported at
once.

A mixture file's relative paths start from its own folder, an inline mixture's from the run file's.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from smolvlm.config.problems import Problem, problems_error, shown_value
from smolvlm.config.settings_file import refuse_rows
from smolvlm.config.yaml_text import read_yaml
from smolvlm.datasets.rows.mixture_entry import IGNORED_KEYS, read_source
from smolvlm.datasets.rows.sources import SourceSpec, UrlPolicy
from smolvlm.errors import ConfigError

_TRAINED = frozenset({"train", "training"})
_HELD_OUT = frozenset(
    {"eval", "evaluation", "val", "valid", "validation", "dev", "test", "held_out", "heldout"}
)
"""Names of groups that say what is not to be trained on."""


def load_mixture(
    path_or_inline: str | Path | Sequence[object] | Mapping[str, object],
    *,
    base_dir: Path,
    allow_outside_root: bool = False,
    urls: UrlPolicy = "none",
    keeps_mark_newlines: bool = False,
    name: str = "inline mixture",
) -> tuple[SourceSpec, ...]:
    """Return the sources of a mixture, in its order.

    Args:
        path_or_inline: a YAML file (relative to `base_dir`), or the list or mapping itself.
        base_dir: folder that an inline mixture's relative paths start from.
        allow_outside_root: whether rows may name pictures outside their source's folder of
            pictures.
        urls: by which http and https addresses rows may name pictures and clips.
        keeps_mark_newlines: whether the newline beside a mark alone on its line is said.
        name: what messages call a mixture that is no file.

    Raises:
        ConfigError: the file cannot be read, or some source is wrong; lists every problem with its
            key.
    """
    if isinstance(path_or_inline, str | Path):
        path = base_dir / os.path.expanduser(path_or_inline)
        refuse_rows(path, wanted="a mixture", base_dir=base_dir)
        where, content, base_dir = str(path_or_inline), read_yaml(path), path.parent
    else:
        where, content = name, path_or_inline
    problems: list[Problem] = []
    sources: list[SourceSpec] = []
    for key, entry in _entries(content, where=where):
        source = read_source(entry, key=key, base_dir=base_dir, problems=problems)
        if source is not None:
            if isinstance(entry, Mapping) and "memory" in entry:
                source = _of_memory(source, has_name=bool(entry.get("name")), key=key)
            is_free = allow_outside_root or source.allow_outside_root
            allowed = replace(source, allow_outside_root=is_free, urls=urls)
            sources.append(replace(allowed, keeps_mark_newlines=keeps_mark_newlines))
    if problems:
        raise problems_error(problems, where=where)
    _check_weights(sources, where=where)
    return _with_distinct_names(sources)


def _of_memory(source: SourceSpec, *, has_name: bool, key: str) -> SourceSpec:
    """Return a source of rows that a program handed over, called in messages as the program does.

    `rows:3` is the third of `rows=`; without a name it is the place in the mixture, `mixture[0]:3`.
    A program may name what its user may read.
    """
    label = source.name if has_name else f"mixture{key if key.startswith('[') else f'.{key}'}"
    return replace(source, label=label, allow_outside_root=True)


def _entries(content: object, *, where: str) -> list[tuple[str, object]]:
    """Return (key, entry) of each source, for both shapes of a mixture."""
    shape_fix = "write a list of sources, or a mapping of group name -> list of sources"
    if isinstance(content, Mapping):
        entries: list[tuple[str, object]] = []
        _check_groups(content, where=where)
        for group, members in content.items():
            if group in IGNORED_KEYS:
                continue
            if not isinstance(members, Sequence) or isinstance(members, str):
                message = f"`{group}` is {shown_value(members)}, not a list of sources"
                raise ConfigError(message, where=where, fix=shape_fix)
            entries += [(f"{group}[{number}]", member) for number, member in enumerate(members)]
    elif isinstance(content, Sequence) and not isinstance(content, str):
        entries = [(f"[{number}]", member) for number, member in enumerate(content)]
    else:
        raise ConfigError(f"the mixture is {shown_value(content)}", where=where, fix=shape_fix)
    if not entries:
        raise ConfigError("the mixture has no sources", where=where, fix=shape_fix)
    return entries


def _check_groups(content: Mapping[str, object], *, where: str) -> None:
    """Refuse groups that seem to keep rows apart: a mixture's groups are all of it.

    Raises:
        ConfigError: one group is to train on by its name, and another to evaluate on.
    """
    held_out = [str(name) for name in content if str(name).lower() in _HELD_OUT]
    if held_out and any(str(name).lower() in _TRAINED for name in content):
        raise ConfigError(
            f"the group `{held_out[0]}` would be trained on: groups are only for the eye",
            where=where,
            fix="write its sources into a mixture of their own, `data.eval_mixture`; or rename it",
        )


def _check_weights(sources: Sequence[SourceSpec], *, where: str) -> None:
    without = [source.name for source in sources if source.weight is None]
    if 0 < len(without) < len(sources):
        what = (
            f"some sources have a `weight`, and {', '.join(without[:3])} "
            f"{'has' if len(without) == 1 else 'have'} none"
        )
        raise ConfigError(what, where=where, fix="give every source a weight, or none")


def _with_distinct_names(sources: Sequence[SourceSpec]) -> tuple[SourceSpec, ...]:
    """Number the sources that share a name, in order: `charts`, `charts#2`."""
    seen: Counter[str] = Counter()
    renamed: list[SourceSpec] = []
    for source in sources:
        seen[source.name] += 1
        if seen[source.name] > 1:
            name = f"{source.name}#{seen[source.name]}"
            label = name if source.label == source.name else source.label  # rows of a program
            source = replace(source, name=name, label=label)
        renamed.append(source)
    return tuple(renamed)
