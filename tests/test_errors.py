"""An error keeps its kind, its place and its fix wherever it travels."""

import ast
import pickle
from pathlib import Path
from typing import get_args

import pytest

from smolvlm.errors import ConfigError, SampleError, SampleKind, located

PACKAGE = Path(__file__).parent.parent / "smolvlm"


def test_the_text_says_what_where_and_the_fix() -> None:
    error = SampleError("it is cut short", kind="corrupt_media", fix="replace it")
    assert str(error) == "it is cut short\n  fix: replace it"
    error.where = "rows.jsonl:3"
    assert str(error) == "rows.jsonl:3: it is cut short\n  fix: replace it"


@pytest.mark.parametrize(
    "error",
    [
        SampleError("a", kind="role", fix="b", where="c:1"),
        SampleError("a"),
        ConfigError("a", where="run.yaml: x", fix="b"),
    ],
)
def test_pickling_keeps_everything(error: SampleError | ConfigError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.__dict__, str(again)) == (type(error), error.__dict__, str(error))


def test_a_loader_worker_rebuilds_it_from_its_message_alone() -> None:
    """torch's `ExceptionWrapper.reraise` calls the class with the message and nothing else."""
    assert (
        str(SampleError("Caught SampleError in DataLoader worker"))
        == "Caught SampleError in DataLoader worker"
    )


def test_located_names_the_place_of_what_has_none() -> None:
    with pytest.raises(SampleError, match=r"^rows:2: bad$"), located("outer:1"), located("rows:2"):
        raise SampleError("bad")


def test_located_leaves_a_place_that_is_known() -> None:
    with pytest.raises(ConfigError, match=r"^run\.yaml: bad$"), located("rows:2"):
        raise ConfigError("bad", where="run.yaml")


def test_located_leaves_other_errors_alone() -> None:
    with pytest.raises(ValueError, match=r"^bad$"), located("rows:2"):
        raise ValueError("bad")


def raised_kinds() -> set[str]:
    """Return the kinds that some `SampleError(...)` of the package names."""
    calls = (
        node
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "SampleError"
    )
    keywords = (
        keyword.value for call in calls for keyword in call.keywords if keyword.arg == "kind"
    )
    return {value.value for value in keywords if isinstance(value, ast.Constant)}


def test_every_kind_is_raised_somewhere() -> None:
    assert raised_kinds() | {"bad_row"} == set(get_args(SampleKind))
