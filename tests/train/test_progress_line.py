"""The line that the terminal shows of the steps."""

import re
from io import StringIO
from types import SimpleNamespace
from typing import Any, cast

import pytest
from transformers import TrainerControl, TrainerState

import smolvlm.train.callbacks
from smolvlm import terminal
from smolvlm.train.callbacks import ProgressBarCallback
from smolvlm.train.progress_line import progress_line
from smolvlm.train.ranks.beats import RankBeats

LINE = {
    "loss": 1.23456,
    "grad_norm": 3.0,
    "samples_per_s": 7.89,
    "tokens_per_s": 12345.6,
    "tiles_per_s": 31.58,
    "mfu": 0.4149,
    "peak_memory_gb": 3.14,
    "data_wait": 0.024,
}


def test_speed_use_of_the_device_memory_and_waiting_stand_in_it() -> None:
    assert progress_line(LINE) == (
        "loss 1.2346  7.9 samples/s  12,346 tokens/s  31.6 tiles/s  MFU 41%  3.1 GB  data wait 2%"
    )


def test_of_text_alone_no_tiles_are_spoken_of() -> None:
    assert "tiles" not in progress_line(LINE | {"tiles_per_s": 0.0})
    assert "data wait 0%" in progress_line(LINE | {"data_wait": 0.0})


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_bar_shows_all_of_it_on_a_narrow_terminal_too(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    file = StringIO()
    shown = terminal.console(file=file, force_terminal=True, width=width)
    monkeypatch.setattr(smolvlm.train.callbacks, "terminal_console", lambda: shown)
    bar = ProgressBarCallback(RankBeats(None, rank=0, num_ranks=1))
    nothing = cast(Any, SimpleNamespace(disable_tqdm=False))
    state = TrainerState(global_step=3, max_steps=7, is_world_process_zero=True)
    bar.on_train_begin(nothing, state, TrainerControl())
    assert bar._bar is not None
    try:
        bar.on_log(nothing, state, TrainerControl(), logs=dict(LINE))
        bar._bar.refresh()
        text = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", " ", file.getvalue().rpartition("training")[2])
        assert text[text.index("loss") :].split() == progress_line(LINE).split()
    finally:
        bar.on_train_end(nothing, state, TrainerControl())
