"""`python -m benchmarks.reading`: how long a row takes to become a conversation.

In: a row of each format, made here. Out: microseconds of CPU a row, the best of five rounds. Files
are not read and pictures not opened: this is the judging of keys alone, which each access to a row
pays.
"""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.sources import SourceSpec

ROUNDS, ROWS = 5, 5000
ASKED, ANSWERED = "What are the colors of the bus in the image?", "The bus is white and red."
FORMATS: Mapping[str, dict[str, Any]] = {
    "LLaVA": {
        "id": "000000033471",
        "image": "coco/train2017/000000033471.jpg",
        "conversations": [
            {"from": "human", "value": f"<image>\n{ASKED}"},
            {"from": "gpt", "value": ANSWERED},
        ],
    },
    "messages": {
        "images": ["a.jpg", "b.jpg"],
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": ANSWERED}]},
        ],
    },
    "question": {"question": ASKED, "answer": ANSWERED, "image": "a.jpg", "source": "coco"},
    "text": {"question": ASKED, "answer": ANSWERED},
}


def microseconds_a_row(row: dict[str, Any]) -> float:
    """Return the CPU time of reading a row once, in microseconds."""
    spec = SourceSpec(
        name="rows",
        path=Path("rows.jsonl").absolute(),
        label="rows.jsonl",
        format="jsonl",
        media_root=Path().absolute(),
    )
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(ROWS):
            to_conversation(row, spec=spec, where="rows.jsonl:1")
        best = min(best, time.process_time() - start)
    return best / ROWS * 1e6


def main() -> int:
    """Print the table."""
    print("| format | CPU, microseconds a row |\n|---|---|")
    for name, row in FORMATS.items():
        print(f"| {name} | {microseconds_a_row(row):.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
