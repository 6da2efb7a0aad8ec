"""The runner of mutants over a tree of two functions, and the list that it goes through by
default."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.run_mutants import LIST, ROOT, Mutant, fate_of, problems, read_mutants

SUMS = """\
def add(left, right):
    return left + right


def slowly(times):
    while times > 0:
        times -= 1
    return times
"""
TEST = """\
from smolvlm.sums import add, slowly


def test_add():
    assert add(2, 1) == 3


def test_slowly():
    assert slowly(3) == 0
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {
        "smolvlm/__init__.py": "",
        "smolvlm/sums.py": SUMS,
        "tests/__init__.py": "",
        "tests/test_sums.py": TEST,
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = "
        '"--import-mode=importlib"\npythonpath = ["."]\n',
    }.items():
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "toy"


def mutant(old: str, new: str, *tests: str, file: str = "smolvlm/sums.py") -> Mutant:
    return Mutant(file=file, old=old, new=new, tests=tests or ("tests/test_sums.py",))


MUTANTS = """\
smolvlm/sums.py:
- {old: left + right, new: left - right}
- {old: left + right, new: right + left}
- {old: left + right, new: left * right, tests: "tests/test_sums.py::test_slowly"}
- {old: times -= 1, new: times -= 0}
"""


def run(tree: Path, mutants: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, which has imported nothing of this project."""
    (tree.parent / "list.yaml").write_text(mutants)
    options = [
        "--root",
        str(tree),
        "--list",
        str(tree.parent / "list.yaml"),
        "--limit-s",
        "10",
        "--cold",
    ]
    command = [sys.executable, str(ROOT / "tests" / "run_mutants.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_mutant_meets_its_fate_and_the_tree_stays_as_it_was(tree: Path) -> None:
    ended = run(tree, MUTANTS)
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("the tests pass without a mutant, "), ended.stdout + ended.stderr
    assert [line.split()[3] for line in lines[1:5]] == ["killed", "survived", "survived", "hung"]
    assert lines[5] == "survived: smolvlm/sums.py: left + right -> right + left"
    assert lines[6] == "  by tests/test_sums.py"
    assert lines[-1].startswith("2 of 4 died, 50.0% in ")
    assert ended.returncode == 3
    assert (tree / "smolvlm" / "sums.py").read_text() == SUMS
    assert run(tree, MUTANTS.splitlines(keepends=True)[0] + MUTANTS.splitlines()[1]).returncode == 0


def test_tests_that_fail_without_a_mutant_end_it(tree: Path) -> None:
    (tree / "smolvlm" / "sums.py").write_text(SUMS.replace("left + right", "left"))
    ended = run(tree, "smolvlm/sums.py: [{old: times -= 1, new: times -= 2}]")
    assert ended.returncode == 2
    assert "assert 2 == 3" in ended.stdout
    assert ended.stdout.endswith("the tests fail without any mutant\n")


def test_a_test_that_is_gone_kills_nothing() -> None:
    assert [fate_of(status) for status in (0, 1, 2, 4, 5, None)] == [
        *("survived", "killed", "killed", "untested", "untested", "hung")
    ]


def test_a_list_that_no_longer_fits_the_code_names_what_is_gone(tree: Path) -> None:
    wrong = [
        mutant("left ** right", "left"),
        mutant("times", "time"),
        mutant("left + right", "left + right"),
        mutant("x", "y", file="smolvlm/gone.py"),
        mutant("left + right", "left", "tests/test_gone.py"),
    ]
    assert problems(wrong, tree) == [
        "smolvlm/sums.py: 'left ** right' stands 0 times in it, not once",
        "smolvlm/sums.py: 'times' stands 4 times in it, not once",
        "smolvlm/sums.py: 'left + right' becomes itself",
        "smolvlm/gone.py: no such file",
        "smolvlm/sums.py: tests/test_gone.py is not there",
    ]


def test_tests_are_those_that_mirror_the_file_unless_named(tmp_path: Path) -> None:
    path = tmp_path / "list.yaml"
    path.write_text(
        "smolvlm/model/loss.py:\n"
        "- {old: a, new: b}\n"
        "- {old: a, new: c, tests: tests/x.py}\n"
        "- {old: a, new: d, tests: [tests/x.py, tests/y.py]}\n"
        "smolvlm/records.py: [{old: a, new: b}]\n"
    )
    assert [own.tests for own in read_mutants(path)] == [
        ("tests/model/test_loss.py",),
        ("tests/x.py",),
        ("tests/x.py", "tests/y.py"),
        ("tests/test_records.py",),
    ]


def test_a_file_that_stands_twice_is_named(tmp_path: Path) -> None:
    """YAML would keep the last without a word."""
    path = tmp_path / "list.yaml"
    path.write_text("a.py:\n- {old: a, new: b}\nb.py: []\na.py:\n- {old: c, new: d}\n")
    with pytest.raises(ValueError, match=r"list\.yaml: a\.py stands there twice"):
        read_mutants(path)


def test_every_text_of_the_list_stands_once_in_its_file() -> None:
    assert problems(read_mutants(LIST), ROOT) == []
