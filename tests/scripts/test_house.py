"""Figures of a checkout: each is counted on a small one that was made for it."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.house import figures, main, measure

ROOT = Path(__file__).parents[2]
PROJECT = """
    [tool.importlinter]
    root_package = "smolvlm"
    [[tool.importlinter.contracts]]
    name = "up"
    type = "layers"
    layers = ["smolvlm.train", "smolvlm.model | smolvlm.datasets", "smolvlm.errors"]
    [[tool.importlinter.contracts]]
    name = "not of this kind"
    type = "forbidden"
    source_modules = ["smolvlm.model"]
    forbidden_modules = ["smolvlm.train"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def checkout(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in {"pyproject.toml": PROJECT, "smolvlm/__init__.py": "", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
    return folder


def test_lines_files_and_functions(folder: Path) -> None:
    long_function = "def f():\n" + "    x = 1\n" * 60
    files = {
        "smolvlm/a.py": "x = 1\n" * 301,
        "smolvlm/b/c.py": long_function,
        "tests/d.py": "y = 2\n" * 500,
    }
    house = measure(checkout(folder, files))
    assert (house.num_files, house.num_lines, house.num_functions) == (3, 362, 1)
    assert house.long_files == ("smolvlm/a.py:1 301 lines",)
    assert house.long_functions == ("smolvlm/b/c.py:1 f",)
    assert house.lines_of_folder == {"smolvlm": 301, "smolvlm/b": 61}


def test_at_the_limit_nothing_is_counted(folder: Path) -> None:
    at_limit = "def f(a, b, c, d, e, g):\n" + "    x = 1\n" * 59
    house = measure(checkout(folder, {"smolvlm/a.py": at_limit + "x = 1\n" * 240}))
    assert (house.num_lines, house.long_files, house.long_functions, house.wide_functions) == (
        300,
        (),
        (),
        (),
    )


def test_parameters_of_every_kind_count_and_self_does_not(folder: Path) -> None:
    text = """
        class A:
            def seven(self, a, b, /, c, d, *rest, e, f, g, **more): ...
            def six(self, a, b, c, *, d, e, f): ...

        async def far(where, a, *, b):
            def within(*, where): ...
    """
    house = measure(checkout(folder, {"smolvlm/a.py": text, "smolvlm/b.py": "def g(where): ...\n"}))
    assert house.wide_functions == ("smolvlm/a.py:3 seven",)
    assert [place.split()[1] for place in house.where_parameters] == ["far", "within", "g"]
    assert figures(house)["parameters named `where`"] == "3 in 2 files"


def test_any_counts_where_it_is_used(folder: Path) -> None:
    text = "from typing import Any\n\n\ndef f(a: Any, b: list[Any]) -> None:\n    c: Any = a\n"
    house = measure(checkout(folder, {"smolvlm/a.py": text}))
    assert house.num_any == 3
    assert house.any_per_1000_lines == pytest.approx(600)


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("model/a.py", "from smolvlm.train import loop\n", 1),
        ("model/a.py", "def f():\n    import smolvlm.train.loop\n", 1),
        ("model/a.py", "from smolvlm import train\n", 1),
        ("model/a.py", "from smolvlm.datasets import rows\n", 1),
        ("errors.py", "from smolvlm.model import a\n", 1),
        ("train/a.py", "from smolvlm.model import a\nimport smolvlm.errors\nimport torch\n", 0),
        ("model/a.py", "from smolvlm.model import b\nfrom smolvlm.trained import c\n", 0),
        ("elsewhere.py", "from smolvlm.train import loop\n", 0),
    ],
)
def test_imports_that_point_up(folder: Path, file: str, text: str, found: int) -> None:
    assert len(measure(checkout(folder, {f"smolvlm/{file}": text})).upward_imports) == found


def test_files_that_know_one_thing_of_a_kind(folder: Path) -> None:
    files = {"smolvlm/a.py": 'KINDS = ("simpo",)\n', "smolvlm/b.py": "margin_of_simpo = 1\n"}
    house = measure(checkout(folder, files))
    assert house.files_of_kind["a preference loss (`simpo`)"] == ("smolvlm/a.py",)


def test_this_checkout_points_nowhere_up_and_knows_every_kind() -> None:
    house = measure(ROOT)
    assert house.upward_imports == ()
    assert all(house.files_of_kind.values())


def test_a_column_a_checkout_and_a_list(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = folder / "before", folder / "after"
    checkout(before, {"smolvlm/a.py": "x = 1\n"})
    checkout(after, {"smolvlm/a.py": "def f(where): ...\n"})
    assert main(["--list", str(before), str(after)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"| | {before} | {after} |\n|---|---|---|\n")
    assert "| parameters named `where` | 0 in 0 files | 1 in 1 files |" in printed
    assert "  smolvlm/a.py:1 f\n" in printed


def test_a_folder_without_the_package_is_refused(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("")
    with pytest.raises(FileNotFoundError, match="no Python files under"):
        measure(folder)
