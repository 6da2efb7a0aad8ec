"""`python -m benchmarks.preparing --rows N`: how long `smolvlm prepare` takes for rows about real
pictures.

Rows are questions about crops of the scikit-image package's photographs, two hundred a picture, as
JSON lines. What is measured is the command as a user types it, in a fresh process with an empty
cache folder, imports included; then once more, when the kept sizes are read.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import write_rows
from smolvlm.parent_process import Parent

ROWS_A_PICTURE = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the seconds of both runs."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preparing", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as folder:
        root = Path(folder)
        num_pictures = max(1, options.rows // ROWS_A_PICTURE)
        write_rows(root, num_pictures=num_pictures, questions_per_picture=ROWS_A_PICTURE, seed=0)
        (root / "mixture.yaml").write_text(json.dumps([{"path": "rows.jsonl"}]))
        command = [sys.executable, "-m", "smolvlm", "prepare", str(root / "mixture.yaml"), "--json"]
        command = Parent.here().command(command)
        for name in ("measured", "read again"):
            began = time.perf_counter()
            environment = os.environ | {"SMOLVLM_HOME": str(root / "home")}
            run = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            (source,) = (json.loads(line) for line in run.stdout.splitlines())
            seconds = time.perf_counter() - began
            print(
                f"{name}: {source['used']:,} rows about {num_pictures:,} pictures in {seconds:.1f} "
                "s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
