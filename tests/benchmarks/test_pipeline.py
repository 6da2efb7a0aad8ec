"""The whole pipeline is compared, and the cores it takes are counted."""

import pytest

from benchmarks import feeding, pipeline
from benchmarks.feeding import SIZES, Sample, demand

PAGE = Sample(name="page", tokens=1200, tiles=17, targets=10, cpu_s=0.03, cached_cpu_s=0.002)


def test_both_systems_make_the_same_tiles_and_every_line_is_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert pipeline.main(["--rounds", "1", "--tiny"]) == 0
    printed = capsys.readouterr().out
    for kind in pipeline.KINDS:
        assert printed.count(kind.name) >= 2 + len(SIZES)
    for name in (pipeline.WITH_FEATURES, pipeline.PEER_PYAV, pipeline.PEER_DECORD):
        assert name in printed


def test_tiles_that_differ_in_number_are_an_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "KINDS", pipeline.KINDS[1:2])
    monkeypatch.setattr(pipeline, "feeding_table", lambda _: "")
    monkeypatch.setattr(pipeline.Work, "_peer", lambda *_: 3)
    assert pipeline.main(["--rounds", "1", "--tiny"]) == pipeline.EXIT_WORK_DIFFERS


def test_a_larger_model_takes_fewer_rows_and_kept_features_let_it_take_more() -> None:
    demands = [demand(size, PAGE) for size in SIZES]
    rows = [one.rows_s for one in demands]
    assert rows == sorted(rows, reverse=True)
    assert all(one.cached_rows_s > 2 * one.rows_s for one in demands)


def test_cores_are_rows_a_second_times_the_cpu_time_of_a_row() -> None:
    table = feeding.feeding_table([PAGE])
    cores = list(table.columns[4].cells)
    assert cores == [f"{demand(size, PAGE).rows_s * 0.03:.2f}" for size in SIZES]
