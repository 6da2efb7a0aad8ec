"""`python -m gpu_check --out DIR`: unpack the wheels, run the stages, end with a table.

Exit status 0: no stage failed. 2: wrong usage. 3: a stage failed.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gpu_check.contract import Stage
from gpu_check.runner import ROOT, Plan, run_stages, write_line
from gpu_check.stage_list import BUDGET_S, CORE, STAGES, UNPACK_LIMIT_S
from gpu_check.table import render_table
from gpu_check.unpack import unpack_wheels

EXIT_FAILED = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that are asked for and return the exit status."""
    options = _parser().parse_args(arguments)
    begun = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="gpu-check-", dir=options.work_dir, ignore_cleanup_errors=True
    ) as folder:
        work_dir = Path(folder)
        site_dir = work_dir / "site"
        unpacked = unpack_wheels(
            options.wheels, site_dir, limit_s=UNPACK_LIMIT_S * options.limit_factor
        )
        write_line(unpacked, options.out)
        plan = Plan(
            device=options.device,
            is_tiny=options.tiny,
            out_dir=options.out,
            work_dir=work_dir,
            site_dir=site_dir,
            deadline=begun + options.budget_s * options.limit_factor,
            limit_factor=options.limit_factor,
        )
        outcomes = [unpacked, *run_stages(options.stages, plan)]
    table = render_table(outcomes)
    (options.out / "table.txt").write_text(table, encoding="utf-8")
    print(table)
    return EXIT_FAILED if any(outcome.status == "failed" for outcome in outcomes) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gpu_check", description=__doc__.split("\n")[0])
    names = ", ".join(stage.name for stage in STAGES)
    parser.add_argument(
        "--stages",
        type=_chosen,
        default=STAGES,
        help=f"of {names}, joined by commas, or `core`; all by default",
    )
    parser.add_argument(
        "--out", type=Path, default=os.environ.get("OUT") or ROOT / "runs" / "gpu-check"
    )
    parser.add_argument(
        "--wheels", type=Path, default=Path(__file__).parent / "wheels", help="folder of wheels"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny dimensions: shows that the stages work, no more"
    )
    parser.add_argument(
        "--budget-s", type=_positive, default=BUDGET_S, help="seconds for all stages together"
    )
    parser.add_argument(
        "--limit-factor", type=_positive, default=1.0, help="multiplies every time limit"
    )
    parser.add_argument(
        "--work-dir", type=Path, help="where the temporary files lie (8 GB at full size)"
    )
    return parser


def _chosen(text: str) -> tuple[Stage, ...]:
    """Return the stages that a list of names asks for, in the order of `STAGES`."""
    names = {name.strip() for name in text.split(",") if name.strip()}
    if "core" in names:
        names = names - {"core"} | set(CORE)
    if unknown := sorted(names - {stage.name for stage in STAGES}):
        known = ", ".join(stage.name for stage in STAGES)
        raise argparse.ArgumentTypeError(
            f"no stage {', '.join(unknown)}; there are {known}, and core"
        )
    if not names:
        raise argparse.ArgumentTypeError("no stage is named")
    return tuple(stage for stage in STAGES if stage.name in names)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
