"""What ranks did by themselves, side by side."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from smolvlm.train.ranks.rank_log import RankLog, slowest
from tests.train.test_log import info


def rows_of_others(table: torch.Tensor) -> torch.Tensor:
    """What a second rank adds: it waited for 5 s, computed 1 s, and holds 2 GB."""
    table = table.clone()
    table[1] = torch.tensor([5.0, 1.0, 10, 40, 3, 2.0], dtype=torch.float64)
    return table


def test_each_ranks_figures_stand_at_its_place() -> None:
    log = RankLog(rank=0, num_ranks=2, on_cuda=False)

    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.02)
            yield number

    assert list(log.waiting(slow())) == [0, 1, 2]
    pack: Any = info()
    with log.forward(pack):
        time.sleep(0.05)
    line = log.line(rows_of_others, step=12, peak_memory_bytes=3 * 10**9)
    assert (line["step"], line["slowest_rank"]) == (12, 1)
    assert line["data_wait_s"][1] == 5.0
    assert 0.06 <= line["data_wait_s"][0] < 5
    assert line["forward_s"][1] == 1.0
    assert 0.05 <= line["forward_s"][0] < 5
    assert line["num_tokens"] == [pack.num_tokens, 10]
    assert line["num_tiles"] == [pack.num_tiles, 3]
    assert line["pack_fill"] == [round(pack.num_tokens / pack.budget_tokens, 4), 0.25]
    assert line["peak_memory_gb"] == [3.0, 2.0]
    again = log.line(rows_of_others, step=13, peak_memory_bytes=0)
    assert (again["data_wait_s"][0], again["num_tokens"][0]) == (0, 0), "it begins anew"
    assert again["pack_fill"] == [None, 0.25], "nothing is no empty pack"


def test_an_error_of_the_loader_passes_through() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("a worker died")

    batches = RankLog(rank=0, num_ranks=1, on_cuda=False).waiting(broken())
    assert next(batches) == 1
    with pytest.raises(RuntimeError, match="a worker died"):
        next(batches)


def test_the_slowest_is_the_one_that_nobody_kept_waiting() -> None:
    columns = {"data_wait_s": [0.0, 2.0, 0.0], "forward_s": [3.0, 1.5, 3.5]}
    assert slowest(columns) == 1 or slowest(columns) == 2
    assert slowest({"data_wait_s": [0.0, 0.0], "forward_s": [1.0, 1.0]}) == 0
