"""Which rows of a source there are at all: `filter: {relevance_min: {">=": 3}}`.

In: what a mixture's entry says. Out: conditions on values; `filtered.py` puts rows to them. Every
condition holds on every row kept; numbers compare with numbers and text with text, and anything
else is an error and no answer. Text that is a number counts as one where the filter names a number.
A null satisfies nothing but `==` null. Sampling chooses from what is left.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from smolvlm.config.problems import shown_value
from smolvlm.errors import ConfigError, SampleError

Kind = Literal["a number", "text", "a boolean", "null", "a list or mapping"]
_COMPARES: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda value, among: value in among,
    "not in": lambda value, among: value not in among,
}
"""Operator -> what it says of a value and its operand."""
_ORDERS = frozenset({">=", ">", "<=", "<"})
_MEANT: Mapping[str, str] = {
    "=>": ">=",
    "≥": ">=",
    "gte": ">=",
    "ge": ">=",
    "min": ">=",
    "at_least": ">=",
    "=<": "<=",
    "≤": "<=",
    "lte": "<=",
    "le": "<=",
    "max": "<=",
    "at_most": "<=",
    "gt": ">",
    "lt": "<",
    "=": "==",
    "===": "==",
    "eq": "==",
    "is": "==",
    "equals": "==",
    "<>": "!=",
    "ne": "!=",
    "!==": "!=",
    "not": "!=",
    "neq": "!=",
    "is not": "!=",
    "nin": "not in",
    "not_in": "not in",
    "notin": "not in",
    "one_of": "in",
    "among": "in",
}
"""Operators of other languages -> ours."""
_AMONG = frozenset({"in", "not in"})
_FORM = 'write `filter: {COLUMN: {">=": 3}}`; a plain value means `==`, a list means `in`'
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What one column's value has to satisfy."""

    column: str
    """Its name in the file."""
    operator: str
    operand: Any
    """A number, a text, a boolean or None; a tuple of them, of one kind, for `in` and `not in`."""

    @property
    def kind(self) -> Kind:
        """What kind of value it compares with."""
        return kind_of(self.operand[0] if self.operator in _AMONG else self.operand)

    def holds(self, value: Any, *, has_types: bool) -> bool:
        """Say whether a value satisfies it.

        Args:
            value: the row's.
            has_types: the file tells booleans from text; a CSV file does not, and its text is read
                as the kind that the condition names.

        Raises:
            SampleError: the value is of another kind.
        """
        if self.operand is None:
            return (value is None) == (self.operator == "==")
        if value is None:
            return False
        if isinstance(value, str) and (self.kind == "a number" or not has_types):
            value = _read_as(self.kind, value)
        if kind_of(value) != self.kind:
            shown = f"{kind_of(value)}, {shown_value(value)}"
            what = f"`{self.column}` is {shown}, and `filter` compares it with {self.kind}"
            fix = "compare it with a value of its own kind: quote text, leave numbers bare"
            if kind_of(value) == "a number" and self.operator in _ORDERS:
                fix = "write the filter's value as a number, without quotes"
            raise SampleError(what, fix=fix)
        return _COMPARES[self.operator](value, self.operand)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFilter:
    """All conditions of a source."""

    conditions: tuple[Condition, ...] = ()


def parse_filter(written: object) -> RowFilter:
    """Return the filter that an entry's `filter` says; None keeps every row.

    Raises:
        ConfigError: an unknown operator, or a value that nothing compares with.
    """
    if written is None:
        return RowFilter()
    if not isinstance(written, Mapping) or not written:
        raise ConfigError("must map columns to what their values satisfy", fix=_FORM)
    conditions: list[Condition] = []
    for column, tests in written.items():
        if not isinstance(column, str):
            raise ConfigError(f"the column {shown_value(column)} is no text", fix="quote its name")
        conditions += _conditions(column, tests)
    return RowFilter(conditions=tuple(conditions))


def _conditions(column: str, tests: object) -> Iterator[Condition]:
    if not isinstance(tests, Mapping):
        tests = {"in" if isinstance(tests, list) else "==": tests}
    if not tests:
        raise ConfigError(f"nothing is asked of `{column}`", fix=_FORM)
    for name, operand in tests.items():
        if name not in _COMPARES:
            known = f"the operators are {', '.join(_COMPARES)}"
            meant = _MEANT.get(str(name).strip().lower().lstrip("$"))
            fix = f"did you mean `{meant}`?" if meant else known
            raise ConfigError(f"`{column}`: unknown operator {shown_value(name)}", fix=fix)
        yield _condition(column, name, operand)


def _condition(column: str, name: str, operand: object) -> Condition:
    where = f"`{column}` {name}"
    if name in _AMONG:
        if not isinstance(operand, list) or not operand:
            raise ConfigError(f"{where}: {shown_value(operand)} is no list of values", fix=_FORM)
        kinds = {kind_of(member) for member in operand}
        if len(kinds) > 1 or not kinds <= {"a number", "text", "a boolean"}:
            what = f"{where}: {shown_value(operand)} are no values of one kind"
            raise ConfigError(what, fix="list numbers, or texts; ask for null by `==`")
        return Condition(column=column, operator=name, operand=tuple(operand))
    kind = kind_of(operand)
    if kind == "a list or mapping" or (name in _ORDERS and kind not in ("a number", "text")):
        fix = "compare with a number or a text (a date in quotes); with lists by `in`"
        raise ConfigError(f"{where}: nothing compares with {shown_value(operand)}", fix=fix)
    if name in _ORDERS and isinstance(operand, str) and _NUMBER.fullmatch(operand.strip()):
        what = f"{where}: {shown_value(operand)} is text, and texts compare letter by letter"
        raise ConfigError(what, fix="write the number without quotes")
    return Condition(column=column, operator=name, operand=operand)


def kind_of(value: object) -> Kind:
    """Return the kind of a value; values of different kinds do not compare."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float | Decimal):
        return "a number"
    return "text" if isinstance(value, str) else "a list or mapping"


def _read_as(kind: Kind, text: str) -> object:
    """Return a CSV file's text as a value of a kind, or the text where it is none."""
    if kind == "a boolean":
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    if kind == "a number" and _NUMBER.fullmatch(text.strip()):
        return Decimal(text.strip())
    return text
