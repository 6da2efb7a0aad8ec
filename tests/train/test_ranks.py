"""One rank or two: the same rows in every step, the same losses, the same answers, and nobody waits for ever."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from smolvlm.commands.train import train_and_report
from smolvlm.config.load import load_run_config
from smolvlm.datasets.plan import PlannedPack, deal_to_ranks
from smolvlm.train.flops import compute_cost

PACKS_PER_STEP = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BothRuns:
    """The same run file on one rank, in this process, and on two."""

    alone: Path
    shared: Path
    trained: Any
    """The run of one rank."""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def runs(write_run: Any, rows_folder: Path, start_child: Any, tmp_path_factory: pytest.TempPathFactory) -> BothRuns:
    root = tmp_path_factory.mktemp("ranks")
    held_out = [{"json_path": str(rows_folder / f"{name}.jsonl"), "name": name} for name in ("photos", "words")]
    changes = {
        "train.vision_tower_lr": 2e-4,
        "train.packs_per_step": PACKS_PER_STEP,
        "data.eval_mixture": held_out,
        "eval.max_rows": 5,
        "eval.max_new_tokens": 3,
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    two_ranks = write_run(root / "two", changes | {"train.ddp_backend": "gloo"})
    child = start_child(*torchrun, Path(__file__).parent / "ranks_run.py", two_ranks)
    trained = train_and_report(load_run_config(write_run(root / "one", changes)))
    status, errors = child.finish()
    assert status == 0, errors
    return BothRuns(alone=root / "one" / "out", shared=root / "two" / "out", trained=trained)


def dealt(runs: BothRuns) -> list[tuple[tuple[PlannedPack, ...], tuple[PlannedPack, ...]]]:
    """Return each step's packs as two ranks get them, in order."""
    plan, model = runs.trained.planned.plan, runs.trained.checkpoint.model
    cost = compute_cost(model.config, {"vision_tower": 2e-4, "connector": 5e-4, "language_model": 1e-3})
    order = deal_to_ranks(plan, num_ranks=2, cost_per_token=cost.per_token, cost_per_tile=cost.per_tile)
    steps = [order[start : start + PACKS_PER_STEP] for start in range(0, len(order), PACKS_PER_STEP)]
    return [
        (tuple(plan.packs[number] for number in step[0::2]), tuple(plan.packs[number] for number in step[1::2]))
        for step in steps
    ]


def test_the_steps_hold_what_makes_ranks_disagree(runs: BothRuns) -> None:
    last_packs = [(first[-1], second[-1]) for first, second in dealt(runs)]
    assert any(bool(first.num_tiles) != bool(second.num_tiles) for first, second in last_packs), "one without pictures"
    assert any(not first.samples or not second.samples for first, second in last_packs), "one with nothing at all"


def test_every_step_learns_from_the_same_rows(runs: BothRuns) -> None:
    assert rows(runs.shared / "samples.jsonl") == rows(runs.alone / "samples.jsonl")


def test_losses_and_counts_are_equal_in_every_step(runs: BothRuns) -> None:
    ours, theirs = rows(runs.shared / "metrics.jsonl"), rows(runs.alone / "metrics.jsonl")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [1, 2, 3, 4, 5, 6, 6]
    for own, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert own["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert own["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
        for name in ("num_tokens", "num_supervised_tokens", "num_tiles", "num_samples", "pack_fill", "epoch"):
            assert own[name] == other[name]


def test_the_trained_weights_are_equal_but_for_rounding(runs: BothRuns) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (runs.shared, runs.alone))
    noise = "k_proj.bias"  # softmax cancels it: its gradient is rounding alone, which Adam makes as large as any
    errors = {
        name: float((ours[name] - value).norm() / value.norm())
        for name, value in theirs.items()
        if not name.endswith(noise)
    }
    assert max(errors.values()) < 1e-5


def test_both_give_the_same_answers_and_held_out_loss(runs: BothRuns) -> None:
    ours, theirs = (rows(folder / "predictions.jsonl") for folder in (runs.shared, runs.alone))
    assert len(ours) == 10
    assert [row["where"] for row in ours] == [row["where"] for row in theirs]
    agreeing = sum(own["prediction"] == other["prediction"] for own, other in zip(ours, theirs, strict=True))
    assert agreeing >= 9, "rounding may turn one answer of a model that knows nothing"
    ours, theirs = (rows(folder / "metrics.jsonl")[-1] for folder in (runs.shared, runs.alone))
    for name in ("eval_loss", "eval_loss_photos", "eval_loss_words"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-4)


def test_packs_that_cannot_be_dealt_are_refused_on_every_rank(runs: BothRuns) -> None:
    for rank in (0, 1):
        assert (runs.shared.parent / f"refused-{rank}.txt").read_text() == (
            "train.packs_per_step: train.packs_per_step=3 cannot be dealt to 2 ranks\n  fix: set it to a multiple of 2"
        )
