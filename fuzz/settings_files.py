"""Run files and mixtures as fuzzed inputs: the shipped examples, changed as text and as values.

In: a seeded generator and an empty folder. Out: a YAML file. What is accepted has to be YAML for a
plain reader too, with no key that the settings do not show: every number and truth value that the
file holds stands in the settings under its key, or the file is refused. Written out and read again,
settings are equal.
"""

import copy
import re
import sys
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from fuzz.checked import Checker
from fuzz.damage import damaged
from fuzz.row_changes import KEYS, ODD_TEXTS, leaves
from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.config.method import METHODS
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import ConfigError, SampleError

ROOT = Path(__file__).parents[1]
_NAMED = re.compile(r"(?:json_path|[a-z_]*mixture|path): ([\w./-]+\.(?:jsonl?|yaml))")
ODD = (
    *("null", "true", "yes", "~", "''", "[]", "{}", "-1", "0", "1e400", "1e-400", "1_000", "0o17"),
    *(
        "0x1F",
        "1:30",
        ".inf",
        ".nan",
        "2020-01-01",
        "!!int x",
        "!!binary x",
        "&a [*a]",
        "*b",
        "- -",
    ),
    *("'unclosed", '"\\uD800"', '"\\0"', "@", "`", "%", "? x", "|", ">", "<<: 1", "9" * 400, "é"),
)
_ONLY_IN_1_1 = re.compile(
    r"y|n|yes|no|on|off|[-+]?0b[01_]+|[-+]?0[0-7_]+|[-+]0x[0-9a-f_]+|.*[0-9][:_].*", re.IGNORECASE
)
"""What is a number or a truth value to the plain reader, whose YAML is of version 1.1, and text by
version 1.2: `yes`, `1:30` (90), `1_000`."""
SECTION_KEYS = (
    *("model", "data", "train", "adapters", "eval", "mixture", "max_tokens_per_pack", "seed"),
    *("on_bad_sample", "packs_per_step", "learning_rate", "language_model_lr", "num_train_epochs"),
    *("language_model_lrr", "lora", "type", "r", "alpha", "weight", "repeat", "filter", "columns"),
)


@lru_cache(maxsize=1)
def examples() -> tuple[tuple[str, str], ...]:
    """Return (what it is, text) of each shipped example."""
    runs = [("run", path.read_text()) for path in sorted(ROOT.glob("scripts/runs/*.yaml"))]
    mixtures = sorted(ROOT.glob("scripts/mixtures/*.yaml"))
    return (*runs, *(("mixture", path.read_text()) for path in mixtures))


def fuzz_settings(random: Random, folder: Path, _: Checker) -> tuple[list[str], int]:
    """Make a run file or a mixture, read it, and return its faults and whether it was accepted."""
    kind, text = random.choice(examples())
    for name in _NAMED.findall(text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = "- {json_path: rows.jsonl}\n" if path.suffix == ".yaml" else '{"a": 1}\n'
        path.write_text(rows)
        (path.parent / "rows.jsonl").write_text('{"a": 1}\n')
    data = _changed(text, random)
    path = folder / f"{kind}.yaml"
    path.write_bytes(data)
    read = _read_run if kind == "run" else _read_mixture
    try:
        faults = list(read(path))
    except (ConfigError, SampleError) as error:
        str(error)
        return [], 0
    return faults, 1


def _changed(text: str, random: Random) -> bytes:
    """Return an example after changes of its values, its lines or its bytes."""
    draw = random.random()
    if draw < 0.1:
        return text.encode()
    if draw < 0.5:
        content = yaml.safe_load(text)
        for _ in range(random.choice((1, 1, 2))):
            _change_value(content, random)
        return yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode(errors="replace")
    if draw < 0.8:
        return _changed_lines(text, random).encode(errors="replace")
    return damaged(text.encode(), random)


def _change_value(content: Any, random: Random) -> None:
    holders = [holder for holder in _holders(content) if holder]
    holder = random.choice(holders)
    key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    draw = random.randrange(5)
    if draw == 0:
        del holder[key]
    elif draw == 1 and isinstance(holder, dict):
        holder[random.choice((*SECTION_KEYS, *KEYS))] = holder.pop(key)
    elif draw == 2:
        other = random.choice(holders)
        value = random.choice(list(other.values()) if isinstance(other, dict) else other)
        holder[key] = copy.deepcopy(value)
    elif draw == 3 and isinstance(holder, dict):
        holder[random.choice(SECTION_KEYS)] = random.choice(
            (True, 1, 0.5, "x", None, [1], {"a": 1})
        )
    else:
        odd = (None, True, -1, 0, 10**30, 1.5, float("nan"), [], {}, *ODD_TEXTS)
        holder[key] = random.choice(odd)


def _holders(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    own = [value] if isinstance(value, dict | list) else []
    return own + [holder for each in inner for holder in _holders(each)]


def _changed_lines(text: str, random: Random) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for _ in range(random.choice((1, 1, 2))):
        at = random.randrange(len(lines))
        line = lines[at]
        draw = random.randrange(6)
        if draw == 0:
            del lines[at]
            lines = lines or [""]
        elif draw == 1:
            lines.insert(random.randrange(len(lines) + 1), line)
        elif draw == 2:
            lines[at] = random.choice((" ", "  ", "\t", "- ")) + line
        elif draw == 3:
            lines[at] = line.lstrip()
        else:
            key, colon, _ = line.partition(":")
            lines[at] = f"{key}{colon} {random.choice(ODD)}"
    return "\n".join(lines) + "\n"


def _read_run(path: Path) -> Iterator[str]:
    config = load_run_config(path)
    written = dump_run_config(config)
    yield from _unseen(path, yaml.safe_load(written))
    again = path.with_name("again.yaml")
    again.write_text(written)
    if load_run_config(again) != config:
        yield "settings written out and read again are other settings"


def _read_mixture(path: Path) -> Iterator[str]:
    sources = load_mixture(str(path), base_dir=path.parent)
    content = _plain(path)
    if isinstance(content, str):
        yield content
        return
    entries = (
        content
        if isinstance(content, list)
        else [entry for group in content.values() for entry in (group or [])]
    )
    if len(entries) != len(sources):
        yield f"{len(sources)} sources are read of {len(entries)}"
    for source, entry in zip(sources, entries, strict=False):
        weight = entry.get("weight")
        if not (
            weight == source.weight or (isinstance(weight, Number) and weight.is_in(source.weight))
        ):
            yield f"a weight of {weight!r} is read as {source.weight!r}"


@dataclass(frozen=True, slots=True)
class Number:
    """A number or a truth value of a file, by a reader of YAML 1.1."""

    value: float | bool
    text: str
    """As the file has it."""

    def __repr__(self) -> str:
        return f"{self.value!r} ({self.text})"

    def is_in(self, other: object) -> bool:
        """Say whether a setting holds it: as a number, or as text where only YAML 1.1 has a number.

        A path is resolved when it is read, so its last part counts.
        """
        if isinstance(other, str):
            is_text = self.text in (other, Path(other).name)
            return is_text and _ONLY_IN_1_1.fullmatch(self.text) is not None
        if isinstance(other, bool) != isinstance(self.value, bool):
            return False
        if isinstance(other, float) and isinstance(self.value, int):
            return abs(self.value) <= sys.float_info.max and float(self.value) == other
        return self.value == other or (self.value != self.value and other != other)


class _Reader(yaml.SafeLoader):
    """PyYAML's own reader; it keeps how numbers are written."""

    def construct_number(self, node: yaml.ScalarNode) -> Number:
        kind = node.tag.rpartition(":")[2]
        return Number(getattr(self, f"construct_yaml_{kind}")(node), node.value)


for _kind in ("int", "float", "bool"):
    _Reader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Reader.construct_number)


def _plain(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(), Loader=_Reader)
    except (yaml.YAMLError, ValueError) as error:
        return f"a file is accepted that is no YAML: {str(error)[:100]}"


def _unseen(path: Path, settings: Any) -> Iterator[str]:
    content = _plain(path)
    if isinstance(content, str):
        yield content
    else:
        yield from unseen(content, settings)


def unseen(content: Any, settings: Any) -> Iterator[str]:
    """Yield numbers and truth values of a file that no setting of their key holds.

    Args:
        content: of the file, with `Number` in the place of each.
        settings: written out.
    """
    seen: dict[Hashable, list[Any]] = {}
    for steps, value in leaves(settings):
        seen.setdefault(_last(steps), []).append(value)
    for steps, number in leaves(content):
        if not isinstance(number, Number) or _is_other_methods_default(steps, number, settings):
            continue
        if not any(map(number.is_in, seen.get(_last(steps), []))):
            yield f"{'.'.join(map(str, steps))}: {number!r} is in no setting"


def _is_other_methods_default(steps: tuple[Any, ...], number: Number, settings: Any) -> bool:
    """Say whether a value is what another method has by default, which a run file may hold."""
    if len(steps) != 2 or steps[0] != "train":
        return False
    others = [section for kind, section in METHODS.items() if kind != settings["train"]["method"]]
    fields = [
        section.model_fields[steps[1]] for section in others if steps[1] in section.model_fields
    ]
    return any(number.is_in(field.default) for field in fields)


def _last(steps: tuple[str | int, ...]) -> Hashable:
    return next((step for step in reversed(steps) if isinstance(step, str)), None)
