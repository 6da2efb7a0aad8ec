"""Tables for people: at any width of the terminal no word is cut."""

import io

import pytest

from smolvlm.cli.tables import print_table
from smolvlm.terminal import console

COLUMNS = ("source", "metric", "base", "model", "difference", "95 % interval", "rows")
ROWS = [
    ("photos", "exact_match", "0.1000", "0.4200", "+0.3200", "+0.2000 to +0.4400", "1,200"),
    ("[red]charts", "relaxed_accuracy", "0.1000", "0.4200", "+0.3200", "", "1,200"),
]


def printed(width: int) -> str:
    text = io.StringIO()
    print_table(console(file=text, width=width), COLUMNS, ROWS, num_names=2)
    return text.getvalue()


@pytest.mark.parametrize("width", [24, 40, 50, 60, 70, 80, 200])
def test_no_word_is_cut(width: int) -> None:
    text = printed(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    cells = {word for row in ROWS for cell in row for word in cell.split()}
    assert cells <= set(text.split())


def test_what_does_not_fit_side_by_side_is_stacked() -> None:
    lines = printed(40).splitlines()
    assert lines[:3] == ["photos exact_match", "  base: 0.1000", "  model: 0.4200"]
    assert "  95 % interval: +0.2000 to +0.4400" in lines
    assert "[red]charts relaxed_accuracy" in lines
    assert sum("interval" in line for line in lines) == 1, "an empty cell has no line"


def test_what_fits_is_a_line_a_row() -> None:
    assert [line.split()[:2] for line in printed(120).splitlines()] == [
        ["source", "metric"],
        *([row[0], row[1]] for row in ROWS),
    ]
