"""`smolvlm train`: a whole run, its notes and figures on standard error."""

from collections.abc import Sequence
from pathlib import Path

from smolvlm.cli.ending import ending_lines
from smolvlm.cli.evaluate import show_metrics
from smolvlm.cli.interruption import kept_of_run, notes_of_run, says_what_is_kept
from smolvlm.cli.os_errors import says_what_is_safe
from smolvlm.cli.progress import measuring_bar
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.disk.system_errors import os_errors_of
from smolvlm.runs.training import train_and_report
from smolvlm.terminal import say
from smolvlm.train.train import TrainedRun


def run_training(run_file: Path, overrides: Sequence[str]) -> TrainedRun:
    """Train as a run file says, and say at the end what it left and what comes next."""
    config = load_run_config(run_file, overrides)
    run = train_aloud(config)
    if run.trainer.is_world_process_zero():
        out, num_steps = Path(config.train.output_dir), run.trainer.state.global_step
        say("\n".join(ending_lines(out, base=config.model.path, num_steps=num_steps)))
    return run


def train_aloud(config: RunConfig) -> TrainedRun:
    """Train, evaluate and report, and say so on standard error."""
    output_dir = Path(config.train.output_dir)
    with (
        says_what_is_kept(lambda: notes_of_run(config)),
        says_what_is_safe(lambda: kept_of_run(output_dir)),
        os_errors_of(output_dir),  # where nothing tells which file
    ):
        return train_and_report(
            config,
            say=to_stderr,
            show=show_metrics,
            measuring_bar=measuring_bar,
            shows_progress=True,
        )


def to_stderr(text: str) -> None:
    """Print for a person."""
    say(text)
