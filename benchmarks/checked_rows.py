"""What it costs that every byte of a converted file of rows is vouched for.

    python -m benchmarks.checked_rows [--folder FOLDER] [--gb 1.0] [--rounds 3]

A JSONL file of rows of 2 kB is converted; the digests' share is what sealing takes. Then, round by
round: opening, reading all of it for its digests (cached by the system, and not), and 20,000 random
rows with each batch compared before its first row, beside the same rows once all are compared.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from smolvlm.datasets.rows.readers.arrow import ArrowRows
from smolvlm.datasets.rows.readers.checked_arrow import BatchSink
from smolvlm.datasets.rows.readers.conversion import arrow_rows

ROW_BYTES = 2000
NUM_READS = 20_000


def timed(work: Callable[[], object]) -> str:
    """Return how long work took, and how much of it was this process's CPU."""
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - began:.2f} s ({time.process_time() - cpu:.2f} s CPU)"


def write_rows(path: Path, *, num_bytes: int) -> int:
    """Write rows of random letters, and return how many."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghij", k=ROW_BYTES - 60)) for _ in range(64)]
    count = num_bytes // ROW_BYTES
    with path.open("w") as file:
        for number in range(count):
            row = {"question": f"{number}?", "answer": words[number % len(words)]}
            file.write(json.dumps(row) + "\n")
    return count


def read(rows: ArrowRows, numbers: list[int]) -> None:
    for number in numbers:
        rows.value(0, number)


def forget(path: Path) -> None:
    """Ask the system to drop a file from its cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def measure(kept: Path, numbers: list[int]) -> str:
    """Return one round's figures for a converted file."""
    opened = timed(lambda: ArrowRows(kept))
    rows = ArrowRows(kept)
    checked = timed(rows.check)
    after = timed(lambda: read(rows, numbers))
    fresh = ArrowRows(kept)
    with_checks = timed(lambda: read(fresh, numbers))
    forget(kept)
    uncached = timed(ArrowRows(kept).check)
    return (
        f"open {opened}, all {checked}, all uncached {uncached}; {len(numbers):,} random rows "
        f"{with_checks} with the checks, {after} after them"
    )


def main() -> None:
    """Print the price of sealing, then a line a round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        os.environ["SMOLVLM_HOME"] = folder
        path = Path(folder) / "rows.jsonl"
        count = write_rows(path, num_bytes=int(options.gb * 1e9))
        sealed: list[str] = []
        seal = BatchSink.seal
        BatchSink.seal = lambda self, file: sealed.append(timed(lambda: seal(self, file)))
        converted = timed(lambda: arrow_rows(path, "jsonl", label="rows.jsonl"))
        print(f"{count:,} rows: converted in {converted}, of which digests {sealed[0]}", flush=True)
        (kept,) = (Path(folder) / "rows").iterdir()
        numbers = random.Random(1).sample(range(count), min(NUM_READS, count))
        for number in range(options.rounds):
            print(f"round {number + 1}: {measure(kept, numbers)}", flush=True)


if __name__ == "__main__":
    main()
