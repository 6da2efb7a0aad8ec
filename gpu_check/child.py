"""The process of one stage: `python -m gpu_check.child --module M --figures FILE ...`.

Looks for the device, runs the stage, and writes its outcome beside its figures. Whatever a stage
raises ends up as one line for the report, and as a traceback in the log.
"""

import argparse
import importlib
import sys
import traceback
from pathlib import Path

from gpu_check.contract import OUTCOME_KEY, CheckFailed, CheckSkipped, Device, Report, Settings

MAX_ERROR_CHARACTERS = 2000


def main() -> int:
    """Run the stage that the command line names."""
    parser = argparse.ArgumentParser()
    for name in ("module", "figures", "device", "work-dir", "argument"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    settings = Settings(
        device=options.device,
        is_tiny=options.tiny,
        work_dir=Path(options.work_dir),
        argument=options.argument,
    )
    with Path(options.figures).open("a", encoding="utf-8") as file:
        report = Report(file)
        status, error = _run(options.module, settings, report)
        report.add(**{OUTCOME_KEY: {"status": status, "error": error}})
    return 0


def _run(module: str, settings: Settings, report: Report) -> tuple[str, str]:
    try:
        require_device(settings.device)
        importlib.import_module(module).run(settings, report)
    except CheckSkipped as reason:
        return "skipped", str(reason)
    except CheckFailed as problem:
        return "failed", str(problem)[:MAX_ERROR_CHARACTERS]
    except BaseException as error:
        traceback.print_exc()
        return "failed", describe(error)
    return "passed", ""


def require_device(device: Device) -> None:
    """Open the device.

    Raises:
        CheckFailed: there is no CUDA device, or its driver is too old for this torch.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.cuda.init()
        torch.ones(1, device="cuda").item()
    except (AssertionError, RuntimeError) as error:
        build = torch.version.cuda or "no CUDA"
        raise CheckFailed(
            f"no usable CUDA device (torch {torch.__version__}, built for {build}): {error}"
        ) from None


def describe(error: BaseException) -> str:
    """Return an exception in a line, with the place that raised it."""
    name, text = type(error).__name__, " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if "gpu_check" in frame.filename or "smolvlm" in frame.filename
    ]
    place = f" (at {Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    if name == "OutOfMemoryError":
        name = "out of device memory"
    if isinstance(error, ModuleNotFoundError):
        name = f"package {error.name} is missing here: put its wheel into the wheels folder"
    return f"{name}: {text}{place}"[:MAX_ERROR_CHARACTERS]


if __name__ == "__main__":
    sys.exit(main())
