"""The source of `TrainingArguments` as it is read equals the class as it is imported."""

import importlib.util
import subprocess
import sys
import typing
from dataclasses import MISSING, dataclass, field
from enum import Enum
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, ClassVar

import pytest

import smolvlm.config.argument_source
from smolvlm.config.argument_source import (
    UnreadableSource,
    argument_fields,
    imported_argument_fields,
    read_argument_fields,
)


def plain(hint: Any) -> Any:
    """Return a type with each enum replaced by its members and each other class by its name."""
    if typing.get_args(hint) and typing.get_origin(hint) is not typing.Literal:
        members = [plain(member) for member in typing.get_args(hint)]
        return (str(typing.get_origin(hint)).replace("typing.Union", "union"), *members)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint.__name__, [(name, member.value) for name, member in hint.__members__.items()]
    return str(hint)


def test_names_types_and_defaults_equal_those_of_the_class() -> None:
    """If a new release fails here, teach the reader: until then every run file imports the
    class."""
    read, imported = read_argument_fields(), imported_argument_fields()
    assert list(read) == list(imported)
    assert {name: plain(found.type) for name, found in read.items()} == {
        name: plain(found.type) for name, found in imported.items()
    }
    assert {name for name, found in read.items() if found.default is MISSING} == {"optim"}, (
        "computed"
    )
    assert {name: found.default for name, found in read.items() if name != "optim"} == {
        name: found.default for name, found in imported.items() if name != "optim"
    }


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from smolvlm.config.argument_source import argument_fields; argument_fields();"
        "print({'transformers', 'torch', 'numpy', 'accelerate', 'peft'} & set(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.strip() == "set()"


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> typing.Callable[..., Path]:
    """Write another release of transformers, of which nothing but the source is there."""

    def write(**modules: str) -> Path:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        spec = ModuleSpec("transformers", None, origin=str(tmp_path / "__init__.py"))
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
        smolvlm.config.argument_source._module.cache_clear()
        return tmp_path

    return write


def test_every_way_to_write_a_field_that_dataclasses_know(release: Any) -> None:
    release(
        training_args=(
            "from typing import Any, ClassVar, Literal, Optional, Union\n"
            "import typing\n"
            "from .kinds import Kind as Sort\n"
            "from .base import Base\n"
            "class TrainingArguments(Base):\n"
            "    a: int\n"
            "    b: Optional[str] = None\n"
            "    c: Union[int, 'list[str]'] = 3\n"
            "    d: dict[str, Any] | None = field(default=None)\n"
            "    e: list[str] = dataclasses.field(default_factory=list)\n"
            "    f: Literal['x', -1] = 'x'\n"
            "    g: ClassVar[int] = 3\n"
            "    h: int = field(init=False, default=2)\n"
            "    i: Sort | str = Sort.ONE\n"
            "    j: typing.Any = compute()\n"
            "    k: 'Optional[float]' = 1.5\n"
            "    not_a_field = 3\n"
            "    def method(self):\n"
            "        x: int = 3\n"
        ),
        base="class Base:\n    first: bool = True\n",
        kinds="class Kind(ExplicitEnum):\n    '''Doc.'''\n    ONE = 'one'\n    TWO = 'two'\n",
    )
    found = read_argument_fields()

    class Kind(Enum):
        ONE = "one"
        TWO = "two"

    @dataclass
    class Base:
        first: bool = True

    @dataclass
    class Same(Base):
        a: int = None  # type: ignore[assignment]
        b: str | None = None
        c: int | list[str] = 3
        d: dict[str, Any] | None = None
        e: list[str] = field(default_factory=list)
        f: typing.Literal["x", -1] = "x"
        g: ClassVar[int] = 3
        i: Kind | str = Kind.ONE
        j: Any = None
        k: float | None = 1.5

    hints = typing.get_type_hints(Same)
    del hints["g"]
    assert {name: plain(one.type) for name, one in found.items()} == {
        name: plain(hint) for name, hint in hints.items()
    }
    defaults = {name: one.default for name, one in found.items()}
    assert defaults == {
        "first": True, "a": MISSING, "b": None, "c": 3, "d": None, "e": [], "f": "x",
        "i": MISSING, "j": MISSING, "k": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        "    a: Unknown = 3\n",
        "    a: lambda: 3 = 3\n",
        "    a: int.real = 3\n",
        "    if True:\n        a: int = 3\n",
        "    a: int =\n",
    ],
)
def test_what_the_reader_does_not_know_is_refused(release: Any, body: str) -> None:
    release(training_args=f"class TrainingArguments:\n{body}")
    with pytest.raises(UnreadableSource):
        read_argument_fields()


@pytest.mark.parametrize(
    "text", [None, "x = 3\n", "class TrainingArguments(other.Base):\n    a: int = 3\n"]
)
def test_a_source_that_is_elsewhere_is_refused(release: Any, text: str | None) -> None:
    release(**({} if text is None else {"training_args": text}))
    with pytest.raises(UnreadableSource):
        read_argument_fields()


def test_enums_that_cannot_be_read_are_refused(release: Any) -> None:
    release(
        training_args=(
            "class Kind(Enum):\n    ONE = auto()\nclass TrainingArguments:\n    a: Kind = "
            "Kind.ONE\n"
        )
    )
    with pytest.raises(UnreadableSource):
        read_argument_fields()


def test_the_class_is_imported_where_its_source_cannot_be_read(
    release: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release()
    imported = {"a": None}
    monkeypatch.setattr(
        smolvlm.config.argument_source, "imported_argument_fields", lambda: imported
    )
    argument_fields.cache_clear()
    try:
        assert argument_fields() is imported
    finally:
        argument_fields.cache_clear()
