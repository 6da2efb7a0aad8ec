"""What the terminal says of the steps since the last log line, on one line.

In: a line of `metrics.jsonl`. Out: `loss 1.2346  7.9 samples/s  1,240 tokens/s  31.6 tiles/s  MFU
41%  3.1 GB  data wait 2%`. What a line lacks, and tiles where there are none, is left out.
"""

from collections.abc import Callable, Mapping

_PARTS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("loss", "loss {:.4f}".format),
    ("samples_per_s", "{:,.1f} samples/s".format),
    ("tokens_per_s", "{:,.0f} tokens/s".format),
    ("tiles_per_s", "{:,.1f} tiles/s".format),
    ("mfu", "MFU {:.0%}".format),
    ("peak_memory_gb", "{:,.1f} GB".format),
    ("data_wait", "data wait {:.0%}".format),
)
"""Key of the log line, and its words."""


def progress_line(logs: Mapping[str, float]) -> str:
    """Return what a log line says of speed, memory and waiting."""
    return "  ".join(
        words(logs[key])
        for key, words in _PARTS
        if key in logs and (logs[key] or key != "tiles_per_s")
    )
