"""Files that survive being killed, and sums that are over every rank and pack."""

import json
from pathlib import Path

import pytest
import torch

from smolvlm.records import SkippedRow
from smolvlm.train import log as step_log
from smolvlm.train.batch import PackInfo
from smolvlm.train.flops import ComputeCost
from smolvlm.train.log import LineFile, MethodSums, RunLog, StepCounts, Stopwatch, peak_memory_bytes
from smolvlm.train.ranks.rank_log import RankLog

COST = ComputeCost(per_token=10.0, per_tile=1000.0, per_target=100.0)


def alone() -> RankLog:
    return RankLog(rank=0, num_ranks=1, on_cuda=False)


def info(**changes: int) -> PackInfo:
    numbers = {
        "num_tokens": 90,
        "budget_tokens": 100,
        "num_supervised_tokens": 7,
        "num_tiles": 5,
        "num_computed_tiles": 2,
    }
    skipped = (SkippedRow(where="rows.jsonl:3", reason="cut off"),)
    return PackInfo(
        tile_keys=(b"a", b"b"),
        media_states=(),
        where=("rows.jsonl:1", "rows.jsonl:2"),
        rows=("rows.jsonl:1", "rows.jsonl:2"),
        skipped=skipped,
        target_weight=1.0,
        num_groups=2,
        **numbers | changes,
    )


def test_a_line_says_what_the_packs_of_all_ranks_held() -> None:
    first, second = StepCounts(), StepCounts()
    first.add(info(), COST)
    first.add(info(num_tokens=60), COST)
    second.add(info(num_tokens=30, num_supervised_tokens=1), COST)
    line = first.metrics(first.as_vector() + second.as_vector(), seconds=2.0, peak_flops=1e4)
    assert line.pop("peak_memory_gb") > 0
    flops = 10 * (90 + 60 + 30) + 1000 * 2 * 3 + 100 * 15
    assert line == {
        "num_tokens": 180,
        "num_supervised_tokens": 15,
        "num_tiles": 15,
        "num_samples": 6,
        "num_skipped": 3,
        "pack_fill": 0.6,
        "samples_per_s": 3.0,
        "tokens_per_s": 90.0,
        "supervised_tokens_per_s": 7.5,
        "tiles_per_s": 7.5,
        "mfu": round(flops / 2.0 / 1e4, 4),
    }


def test_nothing_learned_is_no_division_by_zero() -> None:
    counts = StepCounts()
    assert counts.metrics(counts.as_vector(), seconds=1.0, peak_flops=1.0)["pack_fill"] == 0.0


def test_a_line_cut_off_by_a_kill_and_lines_of_later_steps_are_dropped(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "metrics.jsonl")
    for step in (1, 2, 2, 3):
        file.append({"step": step, "loss": step / 3})
    with file.path.open("a") as raw:
        raw.write('{"step": 4, "lo')
    file.keep_until(2)
    assert [json.loads(line) for line in file.path.read_text().splitlines()] == [
        {"step": step, "loss": step / 3} for step in (1, 2, 2)
    ]
    file.append({"step": 3})
    assert len(file.path.read_text().splitlines()) == 4
    assert file.ends_with({"step": 3})
    assert not file.ends_with({"step": 2})


@pytest.mark.parametrize("last", [b'{"step": 2, "x": "\xc3', b"\0\0\0\0", b"[1]", b"7", b"\n"])
def test_whatever_stands_behind_the_last_whole_line_is_dropped(tmp_path: Path, last: bytes) -> None:
    """Half a letter of a cut line; zeros, where the file had grown and the power went."""
    file = LineFile(tmp_path / "metrics.jsonl")
    file.append({"step": 1})
    with file.path.open("ab") as raw:
        raw.write(last)
    file.keep_until(2)
    assert file.path.read_bytes() == b'{"step": 1}\n'


def test_an_evaluation_that_is_there_already_is_not_written_twice(tmp_path: Path) -> None:
    log = RunLog(tmp_path, cost=COST, metric_names=(), logs_rows=False, ranks=alone())
    for line in ({"step": 1, "loss": 2.0}, {"step": 1, "eval_loss": 1.0}) * 2:
        log.write(line)
    log.write({"step": 1, "eval_loss": 1.0})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_fresh_start_empties_the_file_and_needs_none(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "metrics.jsonl")
    file.keep_until(0)
    assert not file.path.exists()
    file.append({"step": 1})
    file.keep_until(0)
    assert file.path.read_text() == ""


def test_the_stopwatch_starts_anew_at_each_look_and_leaves_out_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = iter([100.0, 103.0, 105.0, 111.0, 112.0])
    monkeypatch.setattr(step_log.time, "perf_counter", lambda: next(now))
    watch = Stopwatch()  # at 100
    assert watch.lap() == 3.0
    with watch.paused():  # from 105 to 111
        pass
    assert watch.lap() == pytest.approx(9.0 - 6.0)


def test_peak_memory_is_this_process_and_never_falls() -> None:
    before = peak_memory_bytes()
    block = torch.ones(8_000_000)
    assert peak_memory_bytes() >= before > 10_000_000
    assert block.sum() == pytest.approx(8e6)


def test_what_a_method_logs_is_summed_where_it_is_and_averaged_over_all_ranks() -> None:
    sums = MethodSums(("loss_a", "loss_b"))
    sums.add({"loss_b": torch.tensor(4.0), "loss_a": torch.tensor(1.0)}, share=2)
    sums.add({}, share=0)
    sums.add({"loss_a": torch.tensor(2.0), "loss_b": torch.tensor(2.0)}, share=1)
    assert sums.means(lambda own: 2 * own) == {"loss_a": 1.0, "loss_b": 2.0}, (
        "another rank had the same"
    )
    assert sums.means(lambda own: own) == {"loss_a": 0.0, "loss_b": 0.0}, "it begins anew"


def test_a_line_begins_anew_and_rows_are_written_once(tmp_path: Path) -> None:
    log = RunLog(tmp_path, cost=COST, metric_names=["reward"], logs_rows=True, ranks=alone())
    log.rates = {"learning_rate_connector": 0.1}
    log.add(info(), {"reward": torch.tensor(3.0)}, share=1.0)
    log.add_rows(1, [info()])
    first, second = (log.step_line(lambda value: value, step=1, peak_flops=1.0) for _ in range(2))
    assert (first["num_tokens"], first["reward"], first["learning_rate_connector"]) == (
        90,
        3.0,
        0.1,
    )
    assert (second["num_tokens"], second["reward"]) == (0, 0.0)
    for _ in range(2):
        log.write_rows(is_writer=True)
    assert (tmp_path / "samples.jsonl").read_text() == (
        '{"step": 1, "where": ["rows.jsonl:1", "rows.jsonl:2"]}\n'
    )


def test_rows_are_not_written_unless_asked_for(tmp_path: Path) -> None:
    log = RunLog(tmp_path, cost=COST, metric_names=[], logs_rows=False, ranks=alone())
    log.add_rows(1, [info()])
    log.write_rows(is_writer=True)
    assert not (tmp_path / "samples.jsonl").exists()
