"""`make versions END=oldest`: the tests with the oldest, or newest, packages that pyproject.toml
allows.

In: the ranges of the dependencies. Out: an environment of those versions (`runs/versions/END`) and
pytest's exit status. What is not replaced there comes from the environment that this runs in, torch
and torchvision above all: each release of theirs is gigabytes.
"""

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[1]
KEPT = frozenset({"torch", "torchvision"})
TESTS = ("tests/parity", "tests/config", "tests/checkpoints", "tests/media", "tests/train/methods")
"""What is run where no tests are named: what leans on those packages most."""
_REQUIREMENT = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?>=([0-9.]+)(?:,<([0-9.]+))?$")

End = Literal["oldest", "newest"]


def pins(requirements: list[str], end: End) -> list[str]:
    """Return what pip installs at an end of the ranges.

    `["peft>=0.21", "transformers>=5.20,<6"]` gives `["peft==0.21", "transformers==5.20"]` for the
    oldest, and `["peft", "transformers<6"]` for the newest.

    Args:
        requirements: dependencies, each with a lower end.
        end: which.

    Raises:
        ValueError: one has no lower end, or a form that is not known here.
    """
    found = []
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} is not NAME>=LOW or NAME>=LOW,<HIGH")
        name, low, high = match.groups()
        if name in KEPT:
            continue
        newest = f"{name}<{high}" if high else name
        found.append(f"{name}=={low}" if end == "oldest" else newest)
    return found


def main() -> int:
    """Install, say what was installed, and run the tests."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("end", choices=("oldest", "newest"))
    parser.add_argument("tests", nargs="*", default=list(TESTS), help="for pytest")
    asked, options = parser.parse_known_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    place = ROOT / "runs" / "versions" / asked.end
    python = place / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    (packages / "environment.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wanted = pins(project["dependencies"], asked.end)
    install = [str(python), "-m", "pip", "install", "--quiet", "--upgrade", *wanted]
    subprocess.run(install, check=True)
    installed = sorted(
        path.name.removesuffix(".dist-info") for path in packages.glob("*.dist-info")
    )
    print(f"{asked.end}:", ", ".join(installed), flush=True)
    command = [str(python), "-m", "pytest", "-q", *asked.tests, *options]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode


if __name__ == "__main__":
    sys.exit(main())
