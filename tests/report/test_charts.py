"""What the report draws."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from smolvlm.report.accuracy import Accuracy
from smolvlm.report.charts import (
    MAX_POINTS,
    accuracy_chart,
    learning_rate_chart,
    loss_chart,
    smooth,
)

LineOf = Callable[..., dict[str, Any]]


def texts(svg: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def accuracy(group: str, value: float, num_rows: int = 100) -> Accuracy:
    return Accuracy(
        group=group,
        num_rows=num_rows,
        value=value,
        low=value - 0.05,
        high=value + 0.05,
        balanced=None,
    )


@given(
    start=st.floats(-9, 9),
    slope=st.floats(-1, 1),
    count=st.integers(1, 60),
    radius=st.integers(0, 80),
)
def test_a_straight_line_is_smooth_already(
    start: float, slope: float, count: int, radius: int
) -> None:
    line = start + slope * np.arange(count)
    assert np.allclose(smooth(line, radius=radius), line, atol=1e-9)


@given(
    values=npst.arrays(np.float64, st.integers(1, 40), elements=st.floats(-100, 100)),
    radius=st.integers(0, 50),
)
def test_the_average_stays_within_the_values(values: np.ndarray, radius: int) -> None:
    average = smooth(values, radius=radius)
    assert (average >= values.min() - 1e-9).all()
    assert (average <= values.max() + 1e-9).all()


def test_the_average_is_the_mean_of_the_neighbours() -> None:
    assert smooth(np.array([0.0, 3.0, 0.0, 3.0, 9.0]), radius=1).tolist() == pytest.approx(
        [0, 1, 2, 4, 9]
    )


def test_the_loss_is_drawn_with_its_unit_and_the_held_out_loss(line_of: LineOf) -> None:
    chart = loss_chart(
        [line_of(step, loss=2.0 - 0.01 * step) for step in range(1, 21)],
        [{"step": 20, "eval_loss": 2}],
    )
    assert chart is not None
    assert [name for name, _ in chart.key] == ["each logged step", "moving average", "held out"]
    assert {"optimizer step", "loss, nats a learned token"} <= texts(chart.svg)


def test_a_loss_that_falls_far_has_a_logarithmic_axis(line_of: LineOf) -> None:
    chart = loss_chart([line_of(step) for step in range(1, 21)], [])
    assert chart is not None
    assert "loss, nats a learned token (log scale)" in texts(chart.svg)


def test_one_step_is_no_curve(line_of: LineOf) -> None:
    assert loss_chart([line_of(1)], []) is None
    assert learning_rate_chart([line_of(1)]) is None
    assert loss_chart([], []) is None


def test_a_long_run_is_thinned(line_of: LineOf) -> None:
    chart = loss_chart([line_of(step) for step in range(1, 5 * MAX_POINTS)], [])
    assert chart is not None
    assert len(chart.svg) < 200_000


def test_learning_rates_name_the_parts_and_what_is_frozen(line_of: LineOf) -> None:
    chart = learning_rate_chart([line_of(step) for step in (1, 2, 3)])
    assert chart is not None
    assert [name for name, _ in chart.key] == ["connector", "language model"]
    assert chart.note == "Frozen, at 0 throughout: vision tower."
    assert learning_rate_chart([{"step": 1, "learning_rate_connector": 0}] * 2) is None


def test_accuracy_bars_carry_their_numbers_and_rows() -> None:
    chart = accuracy_chart(
        [accuracy("shape", 0.1)],
        [accuracy("shape", 0.8, 1200), accuracy("colour <&>", 0.6)],
        {"question_only": {"shape": 0.35}},
    )
    assert chart is not None
    assert {"10.0 %", "80.0 %", "60.0 %", "35.0 %", "n = 1,200", "colour &lt;&amp;&gt;"} <= texts(
        chart.svg
    )
    assert [name for name, _ in chart.key] == ["after", "before", "question only"]
    assert accuracy_chart([], [], {}) is None


def test_a_dollar_sign_in_a_name_is_no_formula() -> None:
    chart = accuracy_chart([], [accuracy("in $ or $x^2$", 0.5)], {})
    assert chart is not None
    assert "in $ or $x^2$" in texts(chart.svg)
