"""`metrics.prom` as Prometheus reads it: each line by the grammar of the exposition format."""

import math
import re
from pathlib import Path

from smolvlm.train.ranks.metrics_text import write_metrics_text

LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\n"])*"'
FIGURE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)\{{({LABEL}(?:,{LABEL})*)\}} (\S+)")
LINE = {
    "step": 7,
    "loss": 1.25,
    "loss_photos/a": 2.0,
    "note": "text",
    "flag": True,
    "slowest_rank": 1,
    "bad": float("nan"),
    "worst": float("-inf"),
}
RANKS = {"step": 7, "slowest_rank": 1, "data_wait_s": [0.5, 2.0], "num_tiles": [3, 4]}


def figures(text: str) -> dict[tuple[str, str], float]:
    """Parse the file; each name is announced once before its figures, which stand together."""
    found: dict[tuple[str, str], float] = {}
    announced: list[str] = []
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert kind == "gauge"
            assert name not in announced
            announced.append(name)
            continue
        match = FIGURE.fullmatch(line)
        assert match is not None, line
        assert match[1] == announced[-1]
        found[match[1], match[2]] = float(match[3])
    assert text.endswith("\n")
    return found


def test_numbers_are_gauges_with_their_run_and_rank(tmp_path: Path) -> None:
    path = tmp_path / "metrics.prom"
    write_metrics_text(path, LINE, RANKS, run="out")
    found = figures(path.read_text())
    assert 'smolvlm_bad{run="out"} NaN\n' in path.read_text()
    assert math.isnan(found.pop(("smolvlm_bad", 'run="out"')))
    assert found == {
        ("smolvlm_step", 'run="out"'): 7,
        ("smolvlm_loss", 'run="out"'): 1.25,
        ("smolvlm_loss_photos_a", 'run="out"'): 2,
        ("smolvlm_worst", 'run="out"'): float("-inf"),
        ("smolvlm_rank_data_wait_s", 'run="out",rank="0"'): 0.5,
        ("smolvlm_rank_data_wait_s", 'run="out",rank="1"'): 2,
        ("smolvlm_rank_num_tiles", 'run="out",rank="0"'): 3,
        ("smolvlm_rank_num_tiles", 'run="out",rank="1"'): 4,
        ("smolvlm_slowest_rank", 'run="out"'): 1,
    }


def test_a_later_line_takes_the_place_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.prom"
    for step in (1, 2):
        write_metrics_text(path, {"step": step}, {}, run='a "b"\\c')
    assert list(figures(path.read_text()).values()) == [2]
