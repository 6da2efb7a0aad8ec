"""Stage 1: what is here, whether it is enough, and whether flex attention works.

The packages that `pyproject.toml` asks for are looked up in the ranges that it gives; those that
the stages do without (`NOT_NEEDED`) are only listed. Then `flex_attention`, compiled with dynamic
lengths as the product has it, is held against SDPA under the dense rule, forward and backward, at
every head layout of the family.
"""

import platform
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.runner import ROOT
from gpu_check.stages.flex_smoke import check_flex

NOT_NEEDED = frozenset({"av"})
"""Reads clip files; the stages' clips are folders of frames."""
OPTIONAL = ("trl", "bitsandbytes", "triton")
MODULES = (
    "smolvlm.cli.main",
    "smolvlm.train.train",
    "smolvlm.generate.answers",
    "smolvlm.report.report",
    "benchmarks.ours",
    "benchmarks.plain_trainer",
)
"""What the later stages import first, so that a missing package is named here."""


def run(settings: Settings, report: Report) -> None:
    """List versions, check them, import the product, and try flex attention."""
    report.add(python=platform.python_version(), executable=sys.executable)
    found, problems = check_packages(ROOT / "pyproject.toml")
    report.add(versions=found)
    report.add(device=describe_device(settings))
    for module in MODULES:
        try:
            place = import_module(module).__file__ or ""
        except ImportError as error:
            problems.append(f"{module} cannot be imported: {error}")
            continue
        if not Path(place).is_relative_to(ROOT):
            problems.append(f"{module} was imported from {place}, not from this tree")
    if problems:
        raise CheckFailed("; ".join(problems))
    check_flex(settings, report)


def check_packages(project_file: Path) -> tuple[dict[str, str], list[str]]:
    """Return the versions of all packages that the project asks for, and what is missing or out of
    range.
    """
    needed = tomllib.loads(project_file.read_text(encoding="utf-8"))["project"]["dependencies"]
    found: dict[str, str] = {}
    problems = []
    for requirement in map(Requirement, needed):
        try:
            found[requirement.name] = version(requirement.name)
        except PackageNotFoundError:
            found[requirement.name] = "missing"
            if requirement.name not in NOT_NEEDED:
                problems.append(
                    f"{requirement.name} is missing: put its wheel into the wheels folder"
                )
            continue
        if not requirement.specifier.contains(found[requirement.name], prereleases=True):
            here = f"{requirement.name} {found[requirement.name]} is here"
            problems.append(f"{here}, {requirement.specifier} is needed")
    for name in OPTIONAL:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found, problems


def describe_device(settings: Settings) -> dict[str, Any]:
    """Return the device's name, memory and driver, and what torch was built for."""
    import torch

    if settings.device == "cpu":
        return {
            "name": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
        }
    properties = torch.cuda.get_device_properties(0)
    nccl: Any = torch.cuda.nccl.version()
    return {
        "name": properties.name,
        "memory_gb": properties.total_memory / 1e9,
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "built_for_cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": ".".join(map(str, nccl)),
        "driver": _driver(),
    }


def _driver() -> str:
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"
