"""The benchmark of the head's loss at tiny dimensions: every line is there, and both ways agree."""

import pytest
import torch

from benchmarks.head_loss import TINY, WAYS, Problem, errors, main


def test_it_measures_both_types(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        assert main(["--tiny", "--rounds", "1", "--targets", "5"]) == 0
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["bfloat16", "5"], ["float32", "5"]]


def test_both_ways_are_as_near_to_float64() -> None:
    found = errors(Problem(40, is_half=False, widths=TINY))
    assert set(found) == set(WAYS)
    assert all(0 < error < 1e-6 for way in found.values() for error in way)
