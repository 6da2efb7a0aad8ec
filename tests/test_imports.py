"""Nothing heavy is imported before it is needed, and the command line answers without it."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "pandas", "pyarrow", "matplotlib")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "module",
    [
        "smolvlm",
        "smolvlm.errors",
        "smolvlm.config.load",
        "smolvlm.config.schema",
        "smolvlm.cli.main",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    """`import smolvlm` takes under 0.3 s as long as this holds; seconds are not tested, machines
    differ."""
    code = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    ran = run("-W", "error", "-c", code)
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


@pytest.mark.parametrize(
    "module", ["smolvlm.datasets.builder", "smolvlm.datasets.packing.part_meter"]
)
def test_measuring_rows_needs_no_torch(module: str) -> None:
    """Processes that only measure are started by the dozen: a tenth of a second and 90 MB each,
    instead of seconds."""
    ran = run("-W", "error", "-c", f"import sys, {module}; print('torch' in sys.modules)")
    assert (ran.stdout.strip(), ran.stderr) == ("False", "")


def test_help_names_every_command() -> None:
    ran = run("-c", "from smolvlm.cli.main import main; main()", "--help")
    assert ran.returncode == 0, ran.stderr
    for command in ("train", "eval", "inspect", "quickstart", "report"):
        assert command in ran.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom smolvlm.cli.main import main\n"
        f"try:\n    main()\nfinally:\n    print([name for name in {HEAVY} if name in sys.modules], "
        "file=sys.stderr)"
    )
    ran = run("-c", code, "--help")
    assert ran.stderr.strip() == "[]"


def test_wrong_usage_has_its_own_exit_status() -> None:
    assert (
        run("-c", "from smolvlm.cli.main import main; main()", "--no-such-option").returncode == 2
    )
