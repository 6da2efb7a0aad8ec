"""The page of a run that learned from pairs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolvlm.report.charts import loss_chart
from smolvlm.report.loss_unit import PAIR_LOSSES
from smolvlm.report.preferences import order_chart, preference_sentence, rewards_chart
from smolvlm.report.report import write_run_report

LineOf = Callable[..., dict[str, Any]]


def pair_line(line_of: LineOf, step: int, **changes: float) -> dict[str, float]:
    rewards = {
        "rewards_chosen": 0.1 * step,
        "rewards_rejected": -0.2 * step,
        "rewards_margin": 0.3 * step,
        "rewards_accuracy": 0.5 + 0.02 * step,
    }
    return line_of(step, **(rewards | changes))


def texts(svg: str) -> set[str]:
    return set(re.findall(r"<text[^>]*>([^<]*)</text>", svg))


def test_rewards_below_zero_are_within_the_drawing(line_of: LineOf) -> None:
    chart = rewards_chart([pair_line(line_of, step) for step in range(1, 11)])
    assert chart is not None
    assert [name for name, _ in chart.key] == ["chosen", "rejected", "margin: chosen less rejected"]
    assert "reward, mean over pairs" in texts(chart.svg)
    assert any(re.match(r"−[12]", text) for text in texts(chart.svg)), "the rejected falls to -2"
    assert "var(--wrong)" in chart.svg
    assert "the last margin is 3" in chart.svg


def test_the_order_is_in_per_cent_of_the_pairs(line_of: LineOf) -> None:
    chart = order_chart([pair_line(line_of, step) for step in range(1, 11)])
    assert chart is not None
    assert {"pairs ordered right, %", "0", "50", "100"} <= texts(chart.svg)
    assert "at last 70.0 %" in chart.svg


def test_a_run_of_another_method_or_one_line_has_neither(line_of: LineOf) -> None:
    for lines in ([line_of(1), line_of(2)], [pair_line(line_of, 1)], []):
        assert rewards_chart(lines) is None
        assert order_chart(lines) is None
    assert preference_sentence([line_of(1)]) == ""


def test_the_held_out_loss_is_not_drawn_over_another_unit(line_of: LineOf) -> None:
    train, evals = [pair_line(line_of, step) for step in (1, 2)], [{"step": 2, "eval_loss": 2.0}]
    chart = loss_chart(train, evals, unit=PAIR_LOSSES["sigmoid"])
    assert chart is not None
    assert [name for name, _ in chart.key] == ["each logged step", "moving average"]
    assert "DPO loss, nats a pair" in " ".join(texts(chart.svg))
    assert chart.note.startswith("The held-out loss, in nats a learned token")


def test_a_loss_below_zero_is_within_the_drawing(line_of: LineOf) -> None:
    train = [pair_line(line_of, step, loss=0.5 - step) for step in (1, 2, 3)]
    chart = loss_chart(train, [], unit=PAIR_LOSSES["robust"])
    assert chart is not None
    assert any(text.startswith("−2") for text in texts(chart.svg))


def test_the_page_says_what_the_loss_is_and_draws_the_rewards(
    write_run: Callable[..., Path], line_of: LineOf
) -> None:
    run_dir = write_run(steps=1, settings="train: {method: dpo, loss_type: sigmoid}\n")
    lines = [pair_line(line_of, step) for step in range(1, 6)]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = write_run_report(run_dir).read_text(encoding="utf-8")
    assert "The loss is the DPO loss, nats a pair." in page
    assert "the chosen answer has the higher reward in 60.0 % of the pairs" in page
    assert "a mean margin of 1.5" in page
    assert "<h2>Rewards of the pairs</h2>" in page
    assert "nats a learned token" not in page
    assert "nats a pair; first and last log line" in page
