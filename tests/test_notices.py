"""A line is said once, by a logger that a program can quiet."""

import subprocess
import sys

import pytest

from smolvlm.notices import notice


def test_a_line_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for text in ("one", "two", "one"):
        notice(text)
    assert [record.message for record in caplog.records] == ["note: one", "note: two"]
    assert {record.name for record in caplog.records} == {"smolvlm"}


def test_it_stands_on_standard_error_where_nobody_says_otherwise() -> None:
    code = "from smolvlm.notices import notice; notice('a cache is gone')"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "note: a cache is gone\n")
