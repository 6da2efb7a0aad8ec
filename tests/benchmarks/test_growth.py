"""The growth benchmark: slopes, its rows, one point of each kind."""

import json
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.growth import FAMILIES, Point, main, measure_point, slope, table


def test_slopes_are_exponents() -> None:
    sizes = [1000, 2000, 4000]
    assert slope(sizes, [3 * size for size in sizes]) == pytest.approx(1)
    assert slope(sizes, [size**2 / 7 for size in sizes]) == pytest.approx(2)
    assert slope(sizes, [5, 5, 5]) == pytest.approx(0)
    with pytest.raises(ValueError, match="no line through"):
        slope([1], [1])
    with pytest.raises(ValueError, match="no line through"):
        slope([1, 2], [0, 1])


def test_the_table_has_the_slope_of_the_last_two_points_beside() -> None:
    points = [
        Point(family="tiles", size=size, cpu_s=seconds, added_bytes=size * 10**6)
        for size, seconds in ((4, 16.0), (1, 2.0), (2, 4.0))
    ]
    assert (
        "| tiles | 1 to 4 tiles | 2 to 16 | 1.50, 2.00 | 1 to 4 | 1.00, 1.00 |"
        in table(points).splitlines()[-1]
    )


def test_rows_have_the_tokens_that_they_are_named_for() -> None:
    assert len(growth._lines("rows", 1024)) == 8
    (line,) = growth._lines("conversation", 4096)
    words = f"{line['question']} {line['answer']}".split()
    assert 4096 - 32 <= len(words) <= 4096
    assert len(line["answer"].split()) == 512
    assert len({line["image"] for line in growth._lines("tiles", 5)}) == 5
    assert len({line["image"] for line in growth._lines("branches", 5)}) == 1


def test_planning_and_indexing_are_measured_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    for family in ("planning", "index"):
        point = measure_point(family, 1000, tmp_path)
        assert (point.family, point.size) == (family, 1000)
        assert point.cpu_s > 0 < point.added_bytes


def test_points_lie_in_a_file_and_a_picture(tmp_path: Path) -> None:
    kept = tmp_path / "points.json"
    old = [
        {"family": family, "size": size, "cpu_s": 1.0, "added_bytes": 10**6}
        for family in ("branches", "tiles")
        for size in (1, 77)
    ]
    kept.write_text(json.dumps(old))
    arguments = ["--tiny", "--family", "branches", "--most", "2", "--work-dir", str(tmp_path)]
    assert main([*arguments, "--kept", str(kept), "--figures", str(tmp_path)]) == 0
    points = json.loads(kept.read_text())
    assert [(point["family"], point["size"]) for point in points] == [
        *(("tiles", 1), ("tiles", 77)),
        *(("branches", 1), ("branches", 2)),
    ]
    for name in ("growth.png", "growth_dark.png"):
        assert 0 < (tmp_path / name).stat().st_size < 200_000


def test_every_panel_has_at_most_as_many_families_as_there_are_colours() -> None:
    panels = [family.panel for family in FAMILIES.values()]
    assert max(panels.count(panel) for panel in panels) <= 4
