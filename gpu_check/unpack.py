"""Makes the wheels of a folder importable without touching the environment that is there.

In: a folder of wheels. Out: a folder for `PYTHONPATH` that holds what they hold; modules found
there come before installed ones, so a newer transformers stands in front of the environment's. No
index is asked for anything.
"""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from gpu_check.contract import Outcome, Status

NAME = "wheels"


def unpack_wheels(wheels_dir: Path, site_dir: Path, *, limit_s: float) -> Outcome:
    """Unpack all wheels of a folder into `site_dir`; without wheels the installed packages have to
    do.
    """
    started = time.perf_counter()
    there = sorted(wheels_dir.glob("*.whl"))
    wheels = [path for path in there if _fits(path)]
    status: Status = "passed"
    error = ""
    if not wheels:
        status, error = (
            "skipped",
            f"no wheel for this Python in {wheels_dir}: what is installed has to do",
        )
    elif doubled := [name for name, count in Counter(map(_project, wheels)).items() if count > 1]:
        status, error = "failed", f"two versions of {', '.join(doubled)} in {wheels_dir}: leave one"
    elif problem := _install(wheels, site_dir, limit_s=limit_s):
        status, error = "failed", problem
    return Outcome(
        stage=NAME,
        status=status,
        seconds=time.perf_counter() - started,
        limit_s=limit_s,
        error=error,
        figures={
            "unpacked": ", ".join(map(_project_and_version, wheels)),
            "not for this Python": ", ".join(
                _project_and_version(path) for path in there if path not in wheels
            ),
        },
    )


def _fits(wheel: Path) -> bool:
    """Say whether this Python can use a wheel."""
    return not parse_wheel_filename(wheel.name)[3].isdisjoint(sys_tags())


def _project_and_version(wheel: Path) -> str:
    name, version, *_ = parse_wheel_filename(wheel.name)
    return f"{name} {version}"


def _project(wheel: Path) -> str:
    return parse_wheel_filename(wheel.name)[0]


def _install(wheels: list[Path], site_dir: Path, *, limit_s: float) -> str:
    """Return what went wrong; empty where nothing did."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--no-compile",
    ]
    command += [
        "--no-cache-dir",
        "--disable-pip-version-check",
        "--target",
        str(site_dir),
        *map(str, wheels),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return f"pip did not end within {limit_s:.0f} s"
    lines = [
        line for line in done.stderr.splitlines() if line.startswith("ERROR")
    ] or done.stderr.splitlines()
    return (
        ""
        if done.returncode == 0
        else f"pip ended with status {done.returncode}: {' '.join(lines)[:600]}"
    )
