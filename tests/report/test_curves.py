"""The small curves of a run's page."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolvlm.report.curves import small_curves
from smolvlm.report.report import write_run_report

LineOf = Callable[..., dict[str, Any]]


def by_name(lines: list[dict[str, Any]]) -> dict[str, str]:
    return {curve.name: curve.last for curve in small_curves(lines)}


def test_each_thing_that_is_logged_has_a_curve_with_its_last_value(line_of: LineOf) -> None:
    lines = [
        line_of(step, grad_norm=step / 8, supervised_tokens_per_s=1000.0 * step, data_wait=0.125)
        for step in (1, 2, 3)
    ]
    assert by_name(lines) == {
        "gradient norm": "0.375",
        "samples a second": "50.0",
        "tokens a second": "2,000",
        "learned tokens a second": "3,000",
        "tiles a second": "6.0",
        "MFU, % of the peak FLOPs": "30.0",
        "peak memory, GB": "2.5",
        "waiting for packs, % of the time": "12.5",
    }


def test_what_was_not_logged_or_logged_once_or_is_nothing_has_none(line_of: LineOf) -> None:
    lines = [line_of(1, data_wait=0.0), line_of(2, data_wait=0.0)]
    del lines[0]["grad_norm"]
    del lines[0]["peak_memory_gb"]
    assert set(by_name(lines)) == {
        "samples a second",
        "tokens a second",
        "learned tokens a second",
        "tiles a second",
        "MFU, % of the peak FLOPs",
    }
    assert small_curves([line_of(1)]) == ()


def test_a_spike_does_not_press_the_rest_flat(line_of: LineOf) -> None:
    lines = [line_of(step, grad_norm=900.0 if step == 1 else 1.0) for step in range(1, 30)]
    (spiked,) = (curve for curve in small_curves(lines) if curve.name == "gradient norm")
    (even,) = (curve for curve in small_curves(lines) if curve.name == "samples a second")
    assert "log scale" in spiked.svg
    assert "log scale" not in even.svg


def test_they_stand_in_the_page_once_each_in_one_width(
    write_run: Callable[..., Path],
) -> None:
    page = write_run_report(write_run()).read_text(encoding="utf-8")
    drawings = re.findall(
        r'<svg class="chart (\w+)"[^>]*aria-label="([^"]*) over 20 log lines', page
    )
    assert drawings == [
        ("small", "gradient norm"),
        ("small", "samples a second"),
        ("small", "tokens a second"),
        ("small", "learned tokens a second"),
        ("small", "tiles a second"),
        ("small", "MFU, % of the peak FLOPs"),
        ("small", "peak memory, GB"),
    ]
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
