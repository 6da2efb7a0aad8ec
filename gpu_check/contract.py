"""What a stage is given and how it answers.

In: settings. Out: figures as they are measured, and an exception where something is wrong.
Standard library only: the process that starts the stages reads these records too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

Device = Literal["cuda", "cpu"]
Status = Literal["passed", "failed", "skipped"]
OUTCOME_KEY = "_outcome"
"""The figure under which a stage's own word on how it ended travels to the process that started it.
"""


class CheckFailed(Exception):
    """What a stage checked does not hold, or cannot be checked though it should be; the text is the
    report's.
    """


class CheckSkipped(Exception):
    """What a stage checks does not exist on this machine; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One check, run in a process of its own."""

    name: str
    module: str
    """Has `run(settings, report)`."""
    limit_s: float
    """Its process is killed after so many seconds."""
    argument: str = ""
    """What the module is told besides; `speed` measures the model size that it names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Where and at which size a stage runs."""

    device: Device
    is_tiny: bool
    """Tiny dimensions: shows that a stage works, measures nothing."""
    work_dir: Path
    """An empty folder of the stage's own."""
    argument: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a stage ended."""

    stage: str
    status: Status
    seconds: float
    limit_s: float
    error: str
    """What failed, or why it was skipped; empty where it passed."""
    figures: Mapping[str, Any]
    """What was measured, up to its end or up to its killing."""


class Report:
    """A stage's figures; each goes to a file at once, so that a killed stage leaves what it had
    measured.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, **figures: Any) -> None:
        """Note figures by name; a later value under the same name replaces the earlier one."""
        line = json.dumps(figures, default=str)
        self._file.write(line + "\n")
        self._file.flush()
        print(line, flush=True)


def read_figures(file: Path) -> dict[str, Any]:
    """Return what `Report` wrote into a file; a line that was cut off by a kill is left out."""
    figures: dict[str, Any] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        try:
            figures |= json.loads(line)
        except json.JSONDecodeError:
            continue
    return figures
