"""The fields of `transformers.TrainingArguments` as its source declares them: names, types,
defaults.

Importing the class takes 5 to 7 seconds of CPU, because torch, accelerate and peft are imported
with it; parsing its source takes 0.03. The price is a small reader of annotations. It knows the
annotations in use, follows enums into the modules that declare them, and raises `UnreadableSource`
on anything else; the class is imported then. `tests/config/test_argument_source.py` compares what
is read with the class of the installed release, so a release that this reader misreads fails there.
"""

import ast
import importlib.util
import operator
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from dataclasses import fields as fields_of
from enum import Enum
from functools import cache, reduce
from pathlib import Path
from typing import Any

_MODULE = "transformers.training_args"
_CLASS = "TrainingArguments"
_BUILTINS: Mapping[str, Any] = {
    builtin.__name__: builtin for builtin in (bool, int, float, str, dict, list, tuple, set)
}


class UnreadableSource(Exception):
    """The source is not where it is expected, or holds something this reader does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArgumentField:
    """One field that the class takes on construction."""

    type: Any
    """As `typing.get_type_hints` returns it. Read from source, an enum is one with the same name
    and members, and any other class is an empty one with the same name."""
    default: Any
    """`dataclasses.MISSING` where there is none, or where it is computed and no literal."""


@cache
def argument_fields() -> Mapping[str, ArgumentField]:
    """Return name -> field of the installed `TrainingArguments`, imported if it cannot be read."""
    try:
        return read_argument_fields()
    except UnreadableSource:
        return imported_argument_fields()


def imported_argument_fields() -> dict[str, ArgumentField]:
    """Return the fields of the class itself; imports transformers."""
    from transformers import TrainingArguments

    hints = typing.get_type_hints(TrainingArguments)
    return {
        field.name: ArgumentField(
            type=hints[field.name],
            default=field.default if field.default_factory is MISSING else field.default_factory(),
        )
        for field in fields_of(TrainingArguments)
        if field.init
    }


def read_argument_fields() -> dict[str, ArgumentField]:
    """Return the fields as the source of the installed release declares them, in its order.

    Raises:
        UnreadableSource: there is no such file, or it holds something this reader does not know.
    """
    try:
        # A top-level package is not imported by this.
        spec = importlib.util.find_spec(_MODULE.partition(".")[0])
        if spec is None or spec.origin is None:
            raise UnreadableSource(f"no source of {_MODULE}")
        module = _module(Path(spec.origin).with_name("training_args.py"), _MODULE)
        return dict(module.fields(_CLASS))
    except (OSError, ValueError, SyntaxError, AttributeError, TypeError) as error:
        raise UnreadableSource(str(error)) from error


class _Module:
    """One parsed module of the package, and what its names stand for."""

    def __init__(self, path: Path, *, name: str) -> None:
        self._path, self._name = path, name
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._imports = {
            alias.asname or alias.name: (node, alias.name)
            for node in _imports_within(tree.body)
            for alias in node.names
        }

    def fields(self, class_name: str) -> Iterator[tuple[str, ArgumentField]]:
        """Yield the fields of a dataclass, those of its bases first."""
        if class_name not in self._classes:
            raise UnreadableSource(f"no class {class_name} in {self._path}")
        node = self._classes[class_name]
        for base in node.bases:
            if not isinstance(base, ast.Name):
                raise UnreadableSource(f"{class_name} has the base {ast.unparse(base)}")
            home, name = self._home_of(base.id)
            yield from home.fields(name)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                field = self._field(statement)
                if field is not None:
                    yield statement.target.id, field
            elif not isinstance(statement, ast.FunctionDef) and _holds_annotations(statement):
                raise UnreadableSource(f"line {statement.lineno} declares fields conditionally")

    def _field(self, statement: ast.AnnAssign) -> ArgumentField | None:
        """Return a field, or None for a `ClassVar` or a field with `init=False`."""
        if "ClassVar" in ast.unparse(statement.annotation):
            return None
        default = statement.value
        if isinstance(default, ast.Call) and ast.unparse(default.func).endswith("field"):
            options = {option.arg: option.value for option in default.keywords}
            if ast.unparse(options.get("init", ast.Constant(True))) == "False":
                return None
            default = options.get("default")
            factory = options.get("default_factory")
            if isinstance(factory, ast.Name) and factory.id in _BUILTINS:
                default = ast.parse(repr(_BUILTINS[factory.id]()), mode="eval").body
        return ArgumentField(type=self.type_of(statement.annotation), default=_literal(default))

    def type_of(self, annotation: ast.expr) -> Any:
        """Return an annotation as the type it stands for."""
        match annotation:
            case ast.Constant(value=None):
                return types.NoneType
            case ast.Constant(value=str(text)):
                return self.type_of(ast.parse(text, mode="eval").body)
            case ast.Name(id=name):
                return self._named(name)
            case ast.Attribute(value=ast.Name(id="typing"), attr=name):
                return getattr(typing, name)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return self.type_of(left) | self.type_of(right)
            case ast.Subscript(value=outer, slice=inner):
                return self._subscripted(self.type_of(outer), inner)
        raise UnreadableSource(f"unknown annotation {ast.unparse(annotation)}")

    def _subscripted(self, outer: Any, inner: ast.expr) -> Any:
        members = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if outer is typing.Literal:
            return outer[tuple(ast.literal_eval(member) for member in members)]
        if outer is typing.Optional:
            return self.type_of(inner) | None
        if outer is typing.Union:
            return reduce(operator.or_, map(self.type_of, members))
        if isinstance(outer, type):
            return outer[tuple(map(self.type_of, members))]  # pyright: ignore[reportIndexIssue] - dict, list, tuple
        raise UnreadableSource(f"unknown annotation {outer}[{ast.unparse(inner)}]")

    def _named(self, name: str) -> Any:
        """Return what a name in an annotation stands for."""
        if name in _BUILTINS:
            return _BUILTINS[name]
        if name in self._classes:
            return self._class(self._classes[name])
        node, original = self._import_of(name)
        if node.level:
            home, original = self._home_of(name)
            return home._named(original)
        if node.module == "typing":
            return getattr(typing, original)
        return type(original, (), {"__module__": node.module})

    def _class(self, node: ast.ClassDef) -> Any:
        """Return an enum with the members of the one declared; an empty class for any other."""
        if not any(ast.unparse(base).endswith("Enum") for base in node.bases):
            return type(node.name, (), {"__module__": self._name})
        members = [
            (target.id, ast.literal_eval(statement.value))
            for statement in node.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        ]
        if not members:
            raise UnreadableSource(f"{node.name} has no members that are literals")
        return Enum(node.name, members, module=self._name)

    def _home_of(self, name: str) -> "tuple[_Module, str]":
        """Return the module of the package that declares a name, and what it is called there."""
        if name in self._classes:
            return self, name
        node, original = self._import_of(name)
        if node.level != 1 or node.module is None:
            raise UnreadableSource(f"{name} of {self._name} comes from outside its folder")
        stem = self._path.parent.joinpath(*node.module.split("."))
        path = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        package = self._name.rpartition(".")[0]
        return _module(path, f"{package}.{node.module}"), original

    def _import_of(self, name: str) -> tuple[ast.ImportFrom, str]:
        if name not in self._imports:
            raise UnreadableSource(f"unknown name {name} in {self._path}")
        return self._imports[name]


@cache
def _module(path: Path, name: str) -> _Module:
    return _Module(path, name=name)


def _literal(default: ast.expr | None) -> Any:
    """Return the value of an expression, or MISSING where there is none or it is no literal."""
    try:
        return MISSING if default is None else ast.literal_eval(default)
    except ValueError:
        return MISSING


def _imports_within(body: list[ast.stmt]) -> Iterator[ast.ImportFrom]:
    """Yield a module's own `from ... import ...`, also those that stand under an `if`."""
    for statement in body:
        if isinstance(statement, ast.ImportFrom):
            yield statement
        elif isinstance(statement, ast.If):
            yield from _imports_within([*statement.body, *statement.orelse])


def _holds_annotations(statement: ast.stmt) -> bool:
    return any(isinstance(node, ast.AnnAssign) for node in ast.walk(statement))
