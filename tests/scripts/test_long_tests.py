"""The list of what `make quick` leaves out: files that are there, chosen by their times."""

from pathlib import Path

from scripts.long_tests import long_tests, seconds_by_file
from tests.conftest import LONG_TESTS

ROOT = Path(__file__).parents[2]


def test_every_file_of_the_list_is_there() -> None:
    assert [file for file in sorted(LONG_TESTS) if not (ROOT / file).is_file()] == []
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py")} > LONG_TESTS


def test_the_longest_are_left_out_until_the_rest_fits() -> None:
    seconds = {"a.py": 4.0, "b.py": 1.0, "c.py": 2.0, "d.py": 9.0}
    assert long_tests(seconds, budget_s=7.5) == ["d.py"]
    assert long_tests(seconds, budget_s=3.0) == ["a.py", "d.py"]
    assert long_tests(seconds, budget_s=100.0) == []


def test_times_are_summed_by_file(tmp_path: Path) -> None:
    (tmp_path / "times.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.x.test_a" name="one" time="1.5"/>'
        '<testcase classname="tests.x.test_a" name="two" time="2"/>'
        '<testcase classname="tests.test_b" name="one" time="0.25"/></testsuite></testsuites>'
    )
    assert seconds_by_file(tmp_path / "times.xml") == {
        "tests/x/test_a.py": 3.5,
        "tests/test_b.py": 0.25,
    }
