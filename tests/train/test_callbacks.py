"""When a run logs, evaluates and saves: at the plan's epochs, not at those of the loader."""

from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState, TrainingArguments

import smolvlm.train.callbacks
from smolvlm import terminal
from smolvlm.datasets.packing.columns import EMPTY_PACK, PlannedPacks
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.plan import Plan
from smolvlm.train.callbacks import PlanFlowCallback, ProgressBarCallback, WholeGradientCallback
from smolvlm.train.ranks.beats import RankBeats

PLAN = Plan(
    packs=PlannedPacks.of([EMPTY_PACK] * 14),
    packs_per_step=2,
    epoch_ends=(3, 6, 7),
    budget=Budget(max_tokens=64, max_tiles=4),
    last_epoch_steps=3,
)


def acts(**arguments: Any) -> list[tuple[int, str]]:
    """Return (step, what was asked for) over a whole run."""
    args = TrainingArguments(
        output_dir="unused", use_cpu=True, report_to="none", max_steps=7, **arguments
    )
    callback, state, asked = PlanFlowCallback(PLAN), TrainerState(max_steps=7), []
    state.compute_steps(args, 7)
    for step in range(1, 8):
        state.global_step, state.epoch = step, step / 7
        control = TrainerControl()
        callback.on_step_end(args, state, control)
        asked += [
            (step, name)
            for name in ("log", "evaluate", "save")
            if getattr(control, f"should_{name}")
        ]
        control = TrainerControl()
        callback.on_epoch_end(args, state, control)
        assert control == TrainerControl(), "the loader's one long epoch means nothing"
    return asked


def test_epoch_strategies_act_where_planned_epochs_end() -> None:
    assert acts(logging_strategy="epoch", eval_strategy="epoch", save_strategy="epoch") == [
        (step, name) for step in (3, 6, 7) for name in ("log", "evaluate", "save")
    ]


def test_step_strategies_act_every_so_many_steps_and_so_does_the_last() -> None:
    found = acts(
        logging_steps=4, eval_strategy="steps", eval_steps=5, save_strategy="steps", save_steps=3
    )
    assert found[:4] == [(3, "save"), (4, "log"), (5, "evaluate"), (6, "save")]
    assert found[4:] == [(7, "log"), (7, "evaluate"), (7, "save")]


def test_nothing_is_asked_for_where_all_is_off() -> None:
    assert acts(logging_strategy="no", save_strategy="no") == []


def test_evaluation_waits_as_long_as_asked() -> None:
    assert acts(logging_strategy="no", save_strategy="no", eval_strategy="epoch", eval_delay=2) == [
        (6, "evaluate"),
        (7, "evaluate"),
    ]


def test_the_epoch_counter_is_the_plans() -> None:
    args = TrainingArguments(output_dir="unused", use_cpu=True, report_to="none")
    state = TrainerState(
        max_steps=7, global_step=7, epoch=1.0, logging_steps=1, save_steps=1, eval_steps=1
    )
    PlanFlowCallback(PLAN).on_step_end(args, state, TrainerControl())
    assert state.epoch == pytest.approx(2 + 1 / 3)


def test_every_parameter_that_is_stepped_gets_a_gradient_and_no_other() -> None:
    weights = {name: nn.Parameter(torch.ones(2, 2)) for name in ("given", "missing", "frozen")}
    optimizer = torch.optim.SGD([weights["given"], weights["missing"]], lr=1.0)
    weights["given"].grad = torch.ones(2, 2)
    nothing: Any = SimpleNamespace(deepspeed=None)
    WholeGradientCallback().on_pre_optimizer_step(nothing, nothing, nothing, optimizer=optimizer)
    found = {
        name: None if weight.grad is None else weight.grad.unique().tolist()
        for name, weight in weights.items()
    }
    assert found == {"given": [1.0], "missing": [0.0], "frozen": None}


def test_without_a_terminal_a_log_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    bar, nothing = (
        ProgressBarCallback(RankBeats(None, rank=0, num_ranks=1)),
        cast(Any, SimpleNamespace(disable_tqdm=False)),
    )
    state = TrainerState(global_step=3, max_steps=7, is_world_process_zero=True)
    for args in (
        {},
        {"logs": {"eval_loss": 1.0}},
        {"logs": {"loss": 1.23456, "samples_per_s": 7.89, "mfu": 0.414, "data_wait": 0.02}},
    ):
        bar.on_log(nothing, state, TrainerControl(), **args)
    state.is_world_process_zero = False
    bar.on_log(nothing, state, TrainerControl(), logs={"loss": 1.0, "samples_per_s": 1.0})
    assert capsys.readouterr().err == (
        "step 3/7  loss 1.2346  7.9 samples/s  MFU 41%  data wait 2%\n"
    )


def test_the_bar_says_while_a_run_evaluates(monkeypatch: pytest.MonkeyPatch) -> None:
    file = StringIO()
    shown = terminal.console(file=file, force_terminal=True, width=200)
    monkeypatch.setattr(smolvlm.train.callbacks, "terminal_console", lambda: shown)
    bar = ProgressBarCallback(RankBeats(None, rank=0, num_ranks=1))
    nothing = cast(Any, SimpleNamespace(disable_tqdm=False))
    state = TrainerState(global_step=3, max_steps=7, is_world_process_zero=True)
    bar.on_train_begin(nothing, state, TrainerControl())
    assert bar._bar is not None
    try:
        bar.on_step_end(nothing, state, TrainerControl(should_evaluate=True))
        bar._bar.refresh()
        assert "evaluating" in file.getvalue()
        bar.on_evaluate(nothing, state, TrainerControl())
        bar._bar.refresh()
        assert "evaluating" not in file.getvalue().splitlines()[-1]
    finally:
        bar.on_train_end(nothing, state, TrainerControl())
