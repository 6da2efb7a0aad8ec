"""Versions of what a run was computed with, and the commit of this program's own source.

Out: plain text for `run.json`; no path, user or host name is part of it. Asking git takes a few
hundredths of a second; a git that does not answer within a second is given up on.
"""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import smolvlm

PACKAGES = ("transformers", "accelerate", "peft", "bitsandbytes")
"""Named where they are installed, beside Python, torch and smolvlm."""
GIT_TIMEOUT_S = 1.0
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """The commit that a source folder was checked out at."""

    name: str
    """Its full hash."""
    is_modified: bool
    """Whether files of the folder differ from it, or were added."""


def versions(*, device_type: str) -> dict[str, str]:
    """Return name -> version of what a run on this device depends on.

    Args:
        device_type: `cpu`, `mps` or `cuda`; CUDA (or HIP), driver and Triton are named on `cuda`.
    """
    versions = {
        "python": platform.python_version(),
        "smolvlm": smolvlm.__version__,
        "torch": str(torch.__version__),
    }
    versions |= {name: number for name in PACKAGES if (number := _installed(name))}
    if device_type == "cuda":
        gpu = {
            "cuda": torch.version.cuda,
            "hip": torch.version.hip,
            "nvidia_driver": _nvidia_driver(),
            "triton": _installed("triton"),
        }
        versions |= {name: number for name, number in gpu.items() if number}
    return versions


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _nvidia_driver() -> str | None:
    """Return the driver's version as its kernel module gives it; None where there is none."""
    try:
        match = re.search(r"\s(\d+(?:\.\d+)+)\s", _DRIVER_FILE.read_text())
    except OSError:
        return None
    return match[1] if match else None


def source_commit(folder: Path = Path(smolvlm.__file__).parent) -> Commit | None:
    """Return the commit of a source folder, None where git does not track its `__init__.py`.

    An installed copy inside another project's checkout is not tracked there, so that project's
    commit is not taken for this program's.
    """
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    name = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    if name is None or changes is None:
        return None
    return Commit(name=name, is_modified=bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what a git command prints, None where it fails, takes too long or there is no git."""
    # Without a hook's GIT_DIR, which would point to the repository that the hook belongs to.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    try:
        outcome = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return outcome.stdout.strip()
