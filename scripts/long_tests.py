"""Which test files `make quick` leaves out: the longest, until the rest takes two minutes.

    make test ARGS="--junitxml=times.xml"
    python scripts/long_tests.py times.xml > tests/long_tests.txt

In: pytest's own times of a whole run, its fixtures with them. Out: paths, one a line. Times are of
the machine that ran it, so the list is a choice and no promise; it is kept, so that `make quick`
means the same everywhere.
"""

import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

BUDGET_S = 170.0
"""Of the tests that stay, on one core of the machine that was measured: two run at a time."""


def long_tests(seconds: Mapping[str, float], *, budget_s: float = BUDGET_S) -> list[str]:
    """Return the files to leave out, sorted.

    Args:
        seconds: file -> what its tests take.
        budget_s: what the files that stay may take together.
    """
    kept_s = 0.0
    left_out: list[str] = []
    for file, own_s in sorted(seconds.items(), key=lambda item: item[1]):
        kept_s += own_s
        if kept_s > budget_s:
            left_out.append(file)
    return sorted(left_out)


def seconds_by_file(junit: Path) -> Counter[str]:
    """Return what the tests of each file took, from a JUnit file of pytest."""
    seconds = Counter[str]()
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        file = Path(*case.attrib["classname"].split(".")).with_suffix(".py")
        seconds[file.as_posix()] += float(case.attrib["time"])
    return seconds


if __name__ == "__main__":
    print("\n".join(long_tests(seconds_by_file(Path(sys.argv[1])))))
