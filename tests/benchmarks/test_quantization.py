"""The quantisation benchmark at tiny dimensions: all of its rows are there, and merging is
exact."""

import pytest

from benchmarks.quantization import KINDS, main


@pytest.mark.grid
def test_it_measures_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--tiny", "--rounds", "1", "--steps", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:22].strip() for line in lines[1 : 1 + len(KINDS)]] == list(KINDS)
    assert lines[1].split("full")[1].split()[1:3] == ["0.00%", "-"]
    for line in lines[-2:]:
        assert float(line.split("merged is ")[1].split()[0]) < 1e-5
