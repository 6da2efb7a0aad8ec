"""How far a run is while it trains: `progress.json`, there only meanwhile.

In: a run's folder. Out: a `Progress`, or None: not begun, ended, or not heard of for an hour (a
process that was killed leaves the file behind).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from json import JSONDecodeError, loads
from pathlib import Path

from smolvlm.disk.atomic_files import write_json

FILE_NAME = "progress.json"
HEARD_OF_S = 3600
"""A run writes it after each evaluation and about once a minute between; an evaluation or the
filling of a cache may take long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Optimizer steps of a run that is training."""

    step: int
    """Those done."""
    num_steps: int
    """Those planned in all."""

    def sentence(self) -> str:
        """Return `Step 40 of 300, still training.`"""
        if self.step >= self.num_steps:
            return f"All {self.num_steps:,} steps are done; the end is being evaluated and saved."
        return f"Step {self.step:,} of {self.num_steps:,}, still training."


def write_progress(run_dir: Path, progress: Progress) -> None:
    """Replace the file; raises OSError."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"step": progress.step, "num_steps": progress.num_steps, "at": at}
    write_json(run_dir / FILE_NAME, content)


def end_progress(run_dir: Path) -> None:
    """Delete the file, if it is there; raises OSError."""
    (run_dir / FILE_NAME).unlink(missing_ok=True)


def read_progress(run_dir: Path) -> Progress | None:
    """Return how far the run is; None where it is not training, and of a file that makes no
    sense."""
    try:
        content = loads((run_dir / FILE_NAME).read_text(encoding="utf-8"))
        age_s = (datetime.now(UTC) - datetime.fromisoformat(content["at"])).total_seconds()
        progress = Progress(step=int(content["step"]), num_steps=int(content["num_steps"]))
    except FileNotFoundError:
        return None
    except (JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return None
    return progress if age_s < HEARD_OF_S else None
