"""YAML in and out, for run files, mixtures and `key=value` overrides.

Text comes in, plain Python values go out. The reading follows YAML 1.2's core rules and not
PyYAML's older ones, because settings suffer from the difference: `1e-4` is a number here, and
`save_strategy: no` is the word "no". A key that is written twice is an error, as the first would be
lost without a word. Writing quotes whatever either set of rules would take for something else than
text, so that what is written reads back equal here and in other programs.
"""

import re
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from smolvlm.errors import ConfigError

Settings = dict[str, Any]
"""A mapping as a run file writes it; its values are judged by their types later."""

_MAX_VALUES = 1_000_000
_IMPOSSIBLE_VALUE = (ValueError, KeyError, IndexError, AttributeError, OverflowError)
"""What PyYAML raises on `!!int x`, `!!bool x`, `!!int ''`, `!!timestamp x`, and on a number of very
many digits."""
_NUMBER_STARTS = list("-+.0123456789")
_CORE_RULES = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    (
        "tag:yaml.org,2002:int",
        re.compile(r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]{1,64})$"),
        _NUMBER_STARTS,
    ),
    (
        "tag:yaml.org,2002:float",
        re.compile(
            r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        _NUMBER_STARTS,
    ),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"]),
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the rules above, refusing a key written twice."""

    num_merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Write out `<<`, of which a few lines can stand for billions of keys."""
        super().flatten_mapping(node)
        self.num_merged += len(node.value)
        if self.num_merged > _MAX_VALUES:
            what = f"more than {_MAX_VALUES:,} keys by merging (`<<`)"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if (
                not isinstance(key_node, yaml.ScalarNode)
                or key_node.tag == "tag:yaml.org,2002:merge"
            ):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key_node.value}` is written twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, quoting also what only the rules above would read as a number."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - repeated values are written out, for people to read
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Write text with rare line breaks in double quotes: PyYAML 6.0 folds them away in a key in
    single quotes."""
    style = '"' if any(mark in text for mark in "\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Loader.yaml_implicit_resolvers = {}  # PyYAML's own rules are dropped here, and kept in the dumper
for _tag, _pattern, _starts in _CORE_RULES:
    _Loader.add_implicit_resolver(_tag, _pattern, _starts)
    _Dumper.add_implicit_resolver(_tag, _pattern, _starts)


def parse_yaml(text: str, *, where: str) -> Any:
    """Return the one value that `text` holds; None when it is empty.

    Args:
        text: one YAML document.
        where: what an error calls it, a file or an override.

    Raises:
        ConfigError: not YAML, or a key is written twice, by its line; nested too deeply, or blown
            up by aliases.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = error.problem or error.context or "not valid YAML"
        fix = (
            "indent with spaces, not with tabs"
            if "\\t" in problem
            else "correct the line, or quote the value"
        )
        if "written twice" in problem:
            fix = "keep one of the two"
        raise ConfigError(
            f"cannot read the YAML: {problem}", where=f"{where}{line}", fix=fix
        ) from None
    except yaml.reader.ReaderError as error:
        reason = (
            f"character #x{error.character:04x} at position {error.position} is not allowed in YAML"
        )
        raise ConfigError(reason, where=where, fix="take the character out") from None
    except _IMPOSSIBLE_VALUE as error:
        if "digits" in str(error):
            what = "cannot read the YAML: a number of too many digits"
            raise ConfigError(what, where=where, fix="write it shorter, or quote it") from None
        fix = "correct the value, or leave its `!!` tag out"
        raise ConfigError(f"cannot read the YAML: {error}", where=where, fix=fix) from None
    except RecursionError:
        raise ConfigError(
            "cannot read the YAML: nested too deeply", where=where, fix="nest it less"
        ) from None
    if _num_values(value, {}) > _MAX_VALUES:
        what = f"more than {_MAX_VALUES:,} values, or a value within itself, by aliases (`*name`)"
        raise ConfigError(what, where=where, fix="write the values out")
    return value


def _num_values(value: object, known: dict[int, int]) -> int:
    """Return how many values there are with aliases written out; a cycle counts as too many."""
    if not isinstance(value, dict | list | tuple):
        return 1
    if id(value) not in known:
        known[id(value)] = _MAX_VALUES
        members = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_num_values(member, known) for member in members)
    return known[id(value)]


def read_yaml(path: Path) -> Any:
    """Return the value a YAML file holds; None when it is empty.

    Raises:
        ConfigError: no such file, not readable, not UTF-8, not YAML, or a key is written twice.
    """
    return parse_yaml(read_text(path), where=str(path))


def read_text(path: Path) -> str:
    """Return the text of a settings file.

    Raises:
        ConfigError: no such file, not readable, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("no such file", where=str(path), fix="check the path") from None
    except IsADirectoryError:
        raise ConfigError(
            "this is a folder, not a file", where=str(path), fix="name the file in it"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), fix="check its permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"is not UTF-8 text (byte {error.start})", where=str(path), fix="save it as UTF-8"
        ) from None
    except ValueError as error:  # a null byte in the name
        raise ConfigError(
            f"cannot be read: {error}", where=str(path), fix="check the path"
        ) from None


def dump_yaml(value: object) -> str:
    """Return mappings, lists and plain values as YAML, keys in their order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def dump_flow(value: object) -> str:
    """Return a value as YAML on one line, `{image: photo, images: [left, right]}`, quoted where
    need be."""
    text = yaml.dump(
        value,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=sys.maxsize,
        default_flow_style=True,
    )
    return text.removesuffix("\n").removesuffix("\n...")
