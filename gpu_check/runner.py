"""Runs stages one after another, each in a process group of its own.

In: stages, and where to run them. Each one's line is written as it ends. Out: outcomes,
`gpu_check.jsonl` (a line a stage) and `gpu_check.log` in the output folder. A stage is killed with
all that it started once its time is up, and the next one begins.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_check.contract import OUTCOME_KEY, Device, Outcome, Stage, read_figures
from smolvlm.parent_process import Parent

ROOT = Path(__file__).parents[1]
LINES_FILE, LOG_FILE = "gpu_check.jsonl", "gpu_check.log"
MAX_LOG_BYTES = 1 << 20
"""Of one stage; the end is kept."""
LEAST_S = 5.0
"""With less time left a stage is not begun."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What all stages of a run share."""

    device: Device
    is_tiny: bool
    out_dir: Path
    work_dir: Path
    site_dir: Path
    """Unpacked wheels; may be empty."""
    deadline: float
    """On the clock of `time.perf_counter`: when the run has to be over."""
    limit_factor: float = 1.0
    """All limits are multiplied by it, for slow machines."""


def run_stages(stages: Sequence[Stage], plan: Plan) -> list[Outcome]:
    """Run the stages and return how each ended; lines are written as they end."""
    outcomes = []
    for stage in stages:
        left_s = plan.deadline - time.perf_counter()
        limit_s = min(stage.limit_s * plan.limit_factor, left_s)
        outcome = _run(stage, plan, limit_s) if left_s >= LEAST_S else _unbegun(stage)
        write_line(outcome, plan.out_dir)
        outcomes.append(outcome)
    return outcomes


def write_line(outcome: Outcome, out_dir: Path) -> None:
    """Append an outcome to the file of lines and print it, figures left out."""
    line = {"stage": outcome.stage, "ok": outcome.status != "failed", **asdict(outcome)}
    line |= {"seconds": round(outcome.seconds, 2), "limit_s": round(outcome.limit_s, 1)}
    with (out_dir / LINES_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, default=str) + "\n")
    told = f"{outcome.stage}: {outcome.status} in {outcome.seconds:.1f} s"
    print(f"{told}: {outcome.error}" if outcome.error else told, flush=True)


def _unbegun(stage: Stage) -> Outcome:
    error = f"not begun: the run's time was up; run it alone with --stages {stage.name}"
    return Outcome(
        stage=stage.name, status="failed", seconds=0.0, limit_s=0.0, error=error, figures={}
    )


def _run(stage: Stage, plan: Plan, limit_s: float) -> Outcome:
    folder = plan.work_dir / stage.name
    (folder / "work").mkdir(parents=True)
    figures_file, log = folder / "figures.jsonl", folder / "log"
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            Parent.here().command(_command(stage, plan, figures_file, folder / "work")),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=_environment(plan, folder),
            start_new_session=True,
        )
        is_timed_out = False
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            is_timed_out = True
        finally:
            _kill_group(process)
    seconds = time.perf_counter() - started
    _keep_log(stage.name, log, plan.out_dir)
    code = None if is_timed_out else process.returncode
    outcome = _judged(stage, figures_file, log, seconds=seconds, limit_s=limit_s, code=code)
    shutil.rmtree(folder, ignore_errors=True)  # models and checkpoints are gigabytes
    return outcome


def _command(stage: Stage, plan: Plan, figures_file: Path, work_dir: Path) -> list[str]:
    told = {
        "module": stage.module,
        "figures": str(figures_file),
        "device": plan.device,
        "work-dir": str(work_dir),
        "argument": stage.argument,
    }
    options = [part for name, value in told.items() for part in (f"--{name}", value)]
    tiny = ["--tiny"] if plan.is_tiny else []
    return [sys.executable, "-m", "gpu_check.child", *options, *tiny]


def _judged(
    stage: Stage, figures_file: Path, log: Path, *, seconds: float, limit_s: float, code: int | None
) -> Outcome:
    """Return the outcome of an ended process; `code` is None where it was killed at its limit."""
    figures = read_figures(figures_file)
    word: dict[str, Any] = figures.pop(OUTCOME_KEY, {})
    if code is None:
        status, error = (
            "failed",
            f"killed after {limit_s:.0f} s, its limit; last lines: {_tail(log)}",
        )
    elif not word:
        how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        status, error = "failed", f"crashed ({how}); last lines: {_tail(log)}"
    else:
        status, error = word["status"], word["error"]
    return Outcome(
        stage=stage.name,
        status=status,
        seconds=seconds,
        limit_s=limit_s,
        error=error,
        figures=figures,
    )


def _environment(plan: Plan, folder: Path) -> dict[str, str]:
    """Return a stage's environment: nothing is fetched, compiled kernels are the stage's own,
    caches are thrown away.
    """
    given = os.environ.get("PYTHONPATH")
    paths = [str(plan.site_dir), str(ROOT), *([given] if given else [])]
    own = {
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "SMOLVLM_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(folder / "hub"),
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "TMPDIR": str(folder),
    }
    if plan.device == "cpu":  # tiny sizes gain nothing from threads
        own |= {
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        }
    return os.environ | own


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it started and that is still there."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _keep_log(name: str, log: Path, out_dir: Path) -> None:
    with log.open("rb") as source, (out_dir / LOG_FILE).open("ab") as kept:
        size = log.stat().st_size
        source.seek(max(0, size - MAX_LOG_BYTES))
        kept.write(f"\n===== {name} ({size} bytes)\n".encode() + source.read())


def _tail(log: Path, num_lines: int = 5) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-num_lines:])[-1000:]
