"""The whole table: equal rows for every system, no row without equal losses, floors, the page."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks import bench
from benchmarks.bench import EXIT_BELOW_FLOOR, EXIT_LOSSES_DIFFER, jobs_of, main
from benchmarks.bench_figure import shown_rows
from benchmarks.bench_page import BEGIN, END, keep, read_kept, replaced, table, write_page
from benchmarks.bench_rows import BenchRow, LossesDifferError, Ratio, Setting, bench_row
from benchmarks.bench_works import DPO, FROZEN_ONE_TILE, FULL_ONE, QUICK, WORKS, Work
from benchmarks.job import Job
from benchmarks.rows import read_rows
from benchmarks.turns import MeasuredStep, SystemResult
from smolvlm.media.tile_grid import TileSettings, grid_for

SETTING = Setting(
    precision="bf16",
    num_threads=2,
    layers=(4, 10),
    num_rows=8,
    cpu="a CPU",
    versions={"trl": "1"},
)
PAGE = f"# Title\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n"


def row(key: str = "full_one", **values: Any) -> BenchRow:
    ratio = Ratio(median=1.5, least=1.25, most=1.75)
    given = {
        "title": "a title",
        "setting": SETTING,
        "ratios": {"trl": ratio, "trainer": replace(ratio, median=1.25)},
        "cpu_s": {"ours": 2.0, "trl": 3.0, "trainer": 2.5},
        "above_model_bytes": {"ours": 10**9, "trainer": 3 * 10**9},
        "loss_difference": 2e-6,
        "loss_bound": 1e-4,
        "matrix_share": 0.53,
    }
    return BenchRow(key=key, **given | values)


def result(
    work: Work, system: str, cpu_s: list[float], *, losses: list[float], folder: Path
) -> Any:
    jobs = jobs_of(work, folder / system, precision="bf16", num_threads=1, is_tiny=True, rounds=2)
    job = replace(jobs[0], system=system)
    steps = tuple(
        MeasuredStep(
            phase=step.phase,
            num_rows=len(step.rows),
            seconds=1.0,
            cpu_s=seconds,
            loss=loss,
            peak_rss_bytes=int(9e9),
        )
        for step, seconds, loss in zip(job.steps, cpu_s, losses, strict=False)
    )
    return SystemResult(
        job=job,
        steps=steps,
        num_tokens=10,
        num_padded=0,
        peak_rss_bytes=0,
        peak_device_bytes=0,
        device="cpu",
        base_rss_bytes=int(1e9),
        state_bytes=int(6e9),
        step_flops=(1e9,) * 9 if system == "ours" else (),
        flops_per_cpu_s=1e9 if system == "ours" else 0.0,
        conversational=None,
    )


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.key)
def test_every_system_gets_the_same_rows_in_the_same_steps(work: Work, tmp_path: Path) -> None:
    jobs = jobs_of(work, tmp_path, precision="bf16", num_threads=1, is_tiny=True, rounds=1)
    assert [job.system for job in jobs] == list(work.systems)
    for job in jobs[1:]:
        for field in fields(Job):
            if field.name != "system":
                assert getattr(job, field.name) == getattr(jobs[0], field.name)
    rows = read_rows(jobs[0].rows_file)
    used = [number for step in jobs[0].steps for number in step.rows]
    assert set(used) == set(range(len(rows)))
    phases = [step.phase for step in jobs[0].steps]
    later = ["between", "second"] if work.span == "three_epochs" else []
    assert phases == ["start", "first", *later, "between"]


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.key)
def test_rows_are_as_many_tiles_as_the_work_says(work: Work, tmp_path: Path) -> None:
    (job, *_) = jobs_of(work, tmp_path, precision="bf16", num_threads=1, is_tiny=True, rounds=1)
    is_cut = work.shape.content in ("wide_picture", "page")
    settings = TileSettings(
        tile_side_px=512, longest_edge_px=2048 if is_cut else 512, image_splitting=is_cut
    )
    for line in read_rows(job.rows_file):
        tiles = 0
        for path in line.images:
            with Image.open(path) as image:
                tiles += grid_for(*image.size, settings).num_tiles
        assert tiles == (0 if work.shape.content == "text" else work.shape.tiles_a_row)


def test_works_have_keys_of_their_own_and_quick_ones_floors() -> None:
    keys = [work.key for work in (*WORKS, *QUICK)]
    assert len(set(keys)) == len(keys)
    assert all(work.floor is not None for work in QUICK)
    for work in WORKS:
        if work.goal is not None and work.limit is not None:
            assert work.goal.bf16 < work.limit.bf16
            assert work.goal.float32 < work.limit.float32


def test_a_ratio_is_the_median_of_paired_steps(tmp_path: Path) -> None:
    losses = [10.0, 9.0, 8.0]
    ours = result(FULL_ONE, "ours", [9, 1, 2], losses=losses, folder=tmp_path)
    trl = result(FULL_ONE, "trl", [9, 2, 8], losses=losses, folder=tmp_path)
    found = bench_row(FULL_ONE, [ours, trl], SETTING, wall_s=1)
    assert found.ratios == {"trl": Ratio(median=3.0, least=2.0, most=4.0)}
    assert found.above_model_bytes == {"ours": int(2e9), "trl": int(2e9)}
    assert found.matrix_share == 0.75  # of 1 and 1/2: the first, a warm-up, does not count
    assert (found.goal, found.limit, found.floor) == (2.0, 2.3, None)


def test_three_epochs_are_one_first_pass_and_two_later_ones(tmp_path: Path) -> None:
    losses = [10.0] * 6
    ours = result(FROZEN_ONE_TILE, "ours", [9, 2, 2, 9, 1, 1], losses=losses, folder=tmp_path)
    trl = result(FROZEN_ONE_TILE, "trl", [9, 8, 8, 9, 6, 6], losses=losses, folder=tmp_path)
    found = bench_row(FROZEN_ONE_TILE, [ours, trl], SETTING, wall_s=1)
    assert found.ratios["trl"].median == 20 / 4
    assert found.cpu_s == {"ours": 4, "trl": 20}


@pytest.mark.parametrize("last", [8.1, float("nan"), float("inf")])
def test_no_row_where_a_later_loss_differs(last: float, tmp_path: Path) -> None:
    ours = result(FULL_ONE, "ours", [1] * 3, losses=[10.0, 9.0, 8.0], folder=tmp_path)
    trl = result(FULL_ONE, "trl", [1] * 3, losses=[10.0, 9.0, last], folder=tmp_path)
    with pytest.raises(LossesDifferError, match="full_one: losses differ by"):
        bench_row(FULL_ONE, [ours, trl], SETTING, wall_s=1)


def test_dpo_may_differ_by_more_in_bf16_alone(tmp_path: Path) -> None:
    ours = result(DPO, "ours", [1] * 3, losses=[1.0] * 3, folder=tmp_path)
    trl = result(DPO, "trl", [1] * 3, losses=[1.0, 1.0, 1.005], folder=tmp_path)
    assert bench_row(DPO, [ours, trl], SETTING, wall_s=1).loss_bound == 2e-2
    with pytest.raises(LossesDifferError):
        bench_row(DPO, [ours, trl], replace(SETTING, precision="float32"), wall_s=1)


def test_rows_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    rows = [row(goal=2.0, limit=2.3), row("quick_dpo", floor=1.6, matrix_share=None)]
    keep(tmp_path / "rows.json", rows)
    assert read_kept(tmp_path / "rows.json") == rows
    assert read_kept(tmp_path / "none.json") == []


def test_a_row_takes_the_place_of_its_work_and_precision() -> None:
    in_float32 = row(setting=replace(SETTING, precision="float32"))
    rows = [row("quick_dpo"), row(), in_float32]
    new = row(loss_difference=0.0)
    assert replaced(rows, ("full_one", "bf16"), new) == [new, in_float32, rows[0]]
    assert replaced(rows, ("full_one", "bf16"), None) == [in_float32, rows[0]]


def test_the_table_stands_between_the_markers_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    write_page(page, [row(goal=2.0, limit=2.3), row("quick_dpo", floor=1.6)])
    first = page.read_text()
    assert first.startswith(PAGE[: PAGE.index("old")])
    assert first.endswith(PAGE[PAGE.index(END) :])
    assert "old" not in first
    write_page(page, [row(goal=2.0, limit=2.3), row("quick_dpo", floor=1.6)])
    assert page.read_text() == first
    assert (
        "| a title | 4 + 10 | **1.50x (1.25 to 1.75)** |  | 1.25x (1.25 to 1.75) | 2x | 2.3x | "
        "53% | 1.00 GB, 3.00 GB | 2e-06 (1e-04) |"
    ) in first
    assert "| 1.6x (**below**) |" in first
    assert "`make bench`, a CPU, 2 threads, bf16, trl 1:" in first


@pytest.mark.parametrize("text", ["none", BEGIN, f"{END}\n{BEGIN}", PAGE + BEGIN])
def test_a_page_without_both_markers_is_left_alone(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="each once"):
        write_page(page, [row()])
    assert page.read_text() == text


def test_the_lab_book_has_the_markers() -> None:
    text = bench.PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1


def test_other_settings_make_another_table() -> None:
    other = row(setting=replace(SETTING, num_threads=1))
    assert table([row(), other]).count("| work |") == 2
    assert table([]) == "Not measured yet.\n"


def test_the_picture_shows_one_precision_and_full_runs_first() -> None:
    in_float32 = [row(key, setting=replace(SETTING, precision="float32")) for key in "ab"]
    quick = row("quick_dpo")
    assert shown_rows([quick]) == [quick]
    assert shown_rows([row(), quick]) == [row()]
    assert shown_rows([row("quick_dpo"), *in_float32]) == in_float32


class Runs:
    """Stands in for measuring: what each work gives."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, rows: dict[str, Any]) -> None:
        self.kept, self.page = folder / "kept.json", folder / "page.md"
        self.page.write_text(PAGE)
        self._options = ["--quick", "--precision", "bf16", "--kept", str(self.kept)]
        self._options += ["--page", str(self.page), "--figures", str(folder)]
        monkeypatch.setattr(bench, "_measure", lambda work, *_: rows[work.key])
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # restored afterwards

    def run(self, *more: str) -> int:
        return main([*self._options, *more])


def test_a_run_fails_below_a_floor_and_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {work.key: row(work.key, floor=1.4) for work in QUICK}
    runs = Runs(tmp_path, monkeypatch, rows)
    assert runs.run() == 0
    assert (tmp_path / "bench.png").stat().st_size < 200_000
    assert (tmp_path / "bench_dark.png").exists()
    rows["quick_dpo"] = row("quick_dpo", floor=1.6)
    assert runs.run() == EXIT_BELOW_FLOOR
    assert "below the floor: quick_dpo\n" in capsys.readouterr().out


def test_a_refused_row_is_in_neither_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: dict[str, Any] = {work.key: row(work.key, title=work.key) for work in QUICK}
    runs = Runs(tmp_path, monkeypatch, rows)
    assert runs.run() == 0
    assert "quick_dpo" in runs.page.read_text()
    rows["quick_dpo"] = None
    assert runs.run("--only", "quick_dpo") == EXIT_LOSSES_DIFFER
    assert "losses differ: quick_dpo\n" in capsys.readouterr().out
    assert "quick_dpo" not in runs.page.read_text()
    assert len(json.loads(runs.kept.read_text())) == len(QUICK) - 1


def test_tiny_figures_never_reach_the_lab_book(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--tiny"])
    assert "--tiny measures nothing" in capsys.readouterr().err


def test_an_unknown_work_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--quick", "--only", "full_one"])
    assert "quick_full_one, quick_full_five" in capsys.readouterr().err
