"""Every setting with its type, its default and its meaning, read off the schema.

In: the classes of the sections, and the text beneath each of their fields. Out: `SettingFacts`, for
`smolvlm settings` and for docs/settings.md.
"""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from smolvlm.config.method import METHODS
from smolvlm.config.quantization import EightBits, FourBits, FullPrecision
from smolvlm.config.schema import SECTIONS
from smolvlm.config.section import Section

_WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", Path: "path"}
_BOUNDS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingFacts:
    """One setting of a run file."""

    key: str
    """`section.name`, and `section.name.inner` of a mapping within."""
    type: str
    default: str | None
    """As a run file writes it; None where it has to be given."""
    meaning: str


_BITS = SettingFacts(
    key="quantization.bits",
    type="8 | 4 | null",
    default="null",
    meaning="Bits a weight; null quantises nothing.",
)
"""Its values choose between classes, each of which knows its own alone."""


def all_settings() -> Iterator[SettingFacts]:
    """Yield every setting of ours, in the order of the schema; those of TrainingArguments, which
    stand beside `train`'s, are transformers' own."""
    for section, kind in SECTIONS.items():
        classes: tuple[type[Section], ...] = (kind,)
        if section == "train":
            classes = (kind, *METHODS.values())
        if section == "quantization":
            classes = (kind, EightBits, FourBits, FullPrecision)
        for facts in _settings_of(section, classes):
            yield _BITS if facts.key == _BITS.key else facts


def _settings_of(prefix: str, classes: tuple[type[Section], ...]) -> Iterator[SettingFacts]:
    meanings = {name: text for kind in classes for name, text in _meanings(kind).items()}
    fields = {name: field for kind in classes for name, field in kind.model_fields.items()}
    for name in classes[0].settings():
        field = fields[name]
        inner = _section_in(field.annotation)
        yield SettingFacts(
            key=f"{prefix}.{name}",
            type="mapping" if inner is not None else _type_words(_annotation(field)),
            default=_default_of(field),
            meaning=meanings.get(name, ""),
        )
        if inner is not None and not (prefix == "adapters" and name != "language"):
            yield from _settings_of(f"{prefix}.{name}", (inner,))


@cache
def _meanings(kind: type[Section]) -> dict[str, str]:
    """Return the text that stands beneath each field of a class and of those it derives from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not (issubclass(base, Section) and base is not Section):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                words = " ".join(text.value.value.split())
                found[field.target.id] = re.sub(r"\bNone\b", "null", words)
    return found


def _default_of(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Section):
        value = getattr(value, "type", "none")
    return _shown(value)


def _shown(value: Any) -> str:
    """Return a value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _annotation(field: FieldInfo) -> Any:
    """Return a field's type with its bounds, which pydantic keeps apart."""
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


def _section_in(annotation: Any) -> type[Section] | None:
    """Return the section that a value may be, where it is a mapping of its own; not of a union of
    several, whose settings stand flat."""
    kinds = [
        kind
        for kind in (annotation, *get_args(annotation))
        if inspect.isclass(kind) and issubclass(kind, Section)
    ]
    return kinds[0] if len(kinds) == 1 else None


def _type_words(annotation: Any) -> str:
    """Return a type in the words of the run file."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner, *metadata = arguments
        return _type_words(inner) + _bounds(metadata)
    if origin is Literal:
        return " | ".join(_shown(value) for value in arguments)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(_type_words(one) for one in arguments if one is not types.NoneType)
        return " | ".join([*words, *["null"] * (types.NoneType in arguments)])
    if origin in (list, tuple) or annotation is list:
        inner = arguments[0] if arguments else Any
        return "list" if inner is Any else f"list of {_type_words(inner)}"
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return str(getattr(annotation.model_fields.get("type"), "default", "mapping"))
    return _WORDS.get(annotation, "mapping" if origin is dict or annotation is dict else "value")


def _bounds(metadata: list[Any]) -> str:
    words = [
        f"{text} {_shown(getattr(one, name))}"
        for one in _flat(metadata)
        for kind, name, text in _BOUNDS
        if isinstance(one, kind) and getattr(one, name) is not None
    ]
    return f" {', '.join(words)}" if words else ""


def _flat(metadata: list[Any]) -> Iterator[Any]:
    """Yield bounds, also those that a `Field` within a type gathers; a length is none."""
    for one in metadata:
        inner = one.metadata if isinstance(one, FieldInfo) else [one]
        yield from (part for part in inner if not isinstance(part, MinLen))


def settings_page() -> str:
    """Return docs/settings.md."""
    lines = [_PAGE_HEAD]
    section = ""
    for facts in all_settings():
        if facts.key.partition(".")[0] != section:
            section = facts.key.partition(".")[0]
            first = inspect.cleandoc(SECTIONS[section].__doc__ or "").splitlines()[0]
            lines += ["", f"## {section}", "", first, ""]
            lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        default = "**required**" if facts.default is None else f"`{facts.default}`"
        kind, meaning = (text.replace("|", "\\|") for text in (facts.type, facts.meaning))
        lines.append(f"| `{facts.key}` | {kind} | {default} | {meaning} |")
    return "\n".join([*lines, "", _PAGE_END])


_PAGE_HEAD = """# Every setting

Written by `python scripts/settings_page.py` from `smolvlm/config/`; `smolvlm settings [NAME]` says
the same in the terminal. Any of them may stand behind a command: `train.connector_lr=5e-5`."""
_PAGE_END = """\
Beside those of `train` stand all of `transformers.TrainingArguments`, by their own names:
`num_train_epochs`, `warmup_steps`, `lr_scheduler_type`, `save_steps`, `report_to`, `seed`, ...
Those that would contradict the run are refused with what to write instead. `train.engine` may be a
mapping (`{type: deepspeed, config: zero2.json}`), and so may `train.method` (`{type: dpo, beta:
0.1}`).
"""
