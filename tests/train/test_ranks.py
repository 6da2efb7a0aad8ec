"""One rank or two: the same rows in every step, the same losses, the same answers, and nobody waits
for ever."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from smolvlm.cli.evaluate import run_evaluation
from smolvlm.datasets.packing.columns import PlannedPack
from smolvlm.datasets.packing.plan import deal_to_ranks
from smolvlm.train.flops import compute_cost
from smolvlm.train.train import TrainedRun

PACKS_PER_STEP = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BothRuns:
    """The same run on one rank, in this process, and on two."""

    alone: Path
    shared: Path
    trained: TrainedRun
    """The run of one rank."""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(forked_runs: Any, plain_run: Any) -> BothRuns:
    return BothRuns(alone=plain_run.folder, shared=forked_runs.shared, trained=plain_run.trained)


def dealt(runs: BothRuns) -> list[tuple[tuple[PlannedPack, ...], tuple[PlannedPack, ...]]]:
    """Return each step's packs as two ranks get them, in order."""
    plan = runs.trained.planned.plan
    cost = compute_cost(runs.trained.checkpoint.model)
    order = deal_to_ranks(
        plan, num_ranks=2, cost_per_token=cost.per_token, cost_per_tile=cost.per_tile
    )
    steps = [
        order[start : start + PACKS_PER_STEP] for start in range(0, len(order), PACKS_PER_STEP)
    ]
    return [
        (
            tuple(plan.packs[number] for number in step[0::2]),
            tuple(plan.packs[number] for number in step[1::2]),
        )
        for step in steps
    ]


def test_the_steps_hold_what_makes_ranks_disagree(runs: BothRuns) -> None:
    last_packs = [(first[-1], second[-1]) for first, second in dealt(runs)]
    assert any(bool(first.num_tiles) != bool(second.num_tiles) for first, second in last_packs), (
        "one without pictures"
    )
    assert any(not first.samples or not second.samples for first, second in last_packs), (
        "one with nothing at all"
    )


def test_every_step_learns_from_the_same_rows(runs: BothRuns) -> None:
    assert rows(runs.shared / "samples.jsonl") == rows(runs.alone / "samples.jsonl")


def test_losses_and_counts_are_equal_in_every_step(runs: BothRuns) -> None:
    ours, theirs = (
        [row for row in rows(own / "metrics.jsonl") if "loss" in row]
        for own in (runs.shared, runs.alone)
    )
    assert [row["step"] for row in ours] == list(range(1, runs.trained.planned.plan.num_steps + 1))
    for own, other in zip(ours, theirs, strict=True):
        assert own["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert own["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        for name in (
            "num_tokens",
            "num_supervised_tokens",
            "num_tiles",
            "num_samples",
            "pack_fill",
            "epoch",
        ):
            assert own[name] == other[name]


def test_the_trained_weights_are_equal_but_for_rounding(runs: BothRuns) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (runs.shared, runs.alone))
    # Softmax cancels it: its gradient is rounding alone, which Adam makes as large as any.
    noise = "k_proj.bias"
    errors = {
        name: float((ours[name] - value).norm() / value.norm())
        for name, value in theirs.items()
        if not name.endswith(noise)
    }
    assert max(errors.values()) < 1e-5


def test_gradients_are_views_of_what_is_summed(runs: BothRuns) -> None:
    assert [(runs.shared.parent / f"views-{rank}.txt").read_text() for rank in (0, 1)] == 2 * [
        "True"
    ]


def test_answers_and_held_out_loss_are_those_of_one_process(runs: BothRuns, tmp_path: Path) -> None:
    alone = run_evaluation(
        str(runs.shared), [], mixture=None, predictions=tmp_path / "alone.jsonl", as_json=False
    )
    shared, single = rows(runs.shared / "predictions.jsonl"), rows(tmp_path / "alone.jsonl")
    for one, other in zip(shared, single, strict=True):
        assert one == other | {"key": None, "loss": pytest.approx(other["loss"], rel=1e-5)}
    assert len(alone.predictions) == 10
    logged = rows(runs.shared / "metrics.jsonl")[-1]
    assert logged["step"] == runs.trained.planned.plan.num_steps
    assert {name: logged[f"eval_{name}"] for name in alone.as_log()} == pytest.approx(
        alone.as_log(), rel=1e-5
    )


def test_one_rank_says_where_they_run_and_writes_it(runs: BothRuns) -> None:
    logs = [(runs.shared.parent / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert [log.count("runs on         cpu (") for log in logs] == [1, 0]
    assert " on 2 ranks (ddp); float32 weights, no autocast; " in logs[0]
    content = json.loads((runs.shared / "run.json").read_text())
    assert (content["device"]["num_ranks"], content["step"], content["earlier"]) == (2, 0, [])


def test_packs_that_cannot_be_dealt_are_refused_on_every_rank(runs: BothRuns) -> None:
    for rank in (0, 1):
        assert (runs.shared.parent / f"refused-{rank}.txt").read_text() == (
            "train.packs_per_step: train.packs_per_step=3 cannot be dealt to 2 ranks\n  fix: set "
            "it to a multiple of 2"
        )


def test_what_each_rank_did_stands_beside_the_others(runs: BothRuns) -> None:
    lines = rows(runs.shared / "ranks.jsonl")
    steps = [row for row in rows(runs.shared / "metrics.jsonl") if "loss" in row]
    assert [line["step"] for line in lines] == [row["step"] for row in steps]
    for line, row in zip(lines, steps, strict=True):
        assert line["slowest_rank"] == row["slowest_rank"]
        assert [len(values) for name, values in line.items() if isinstance(values, list)] == [2] * 6
        for name in ("num_tokens", "num_tiles"):
            assert sum(line[name]) == row[name]
        assert all(seconds > 0 for seconds in line["data_wait_s"] + line["forward_s"])
    newest = (runs.shared / "metrics.prom").read_text()
    last = steps[-1]["step"]
    assert f'smolvlm_step{{run="{runs.shared.name}"}} {last}\n' in newest
    assert f'smolvlm_rank_num_tokens{{run="{runs.shared.name}",rank="1"}} ' in newest


def test_one_process_has_no_ranks(runs: BothRuns) -> None:
    assert not (runs.alone / "ranks.jsonl").exists()
    steps = [row for row in rows(runs.alone / "metrics.jsonl") if "loss" in row]
    assert all(0 < row["data_wait"] < 1 and "slowest_rank" not in row for row in steps)
    assert "rank=" not in (runs.alone / "metrics.prom").read_text()
