"""Measured rows are computed by one rank and held by all: real processes over gloo, machines told
apart by their cache folders."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from smolvlm.config.data import DataConfig
from smolvlm.datasets.builder import open_mixture, open_tables
from smolvlm.datasets.rows.conversations import Conversations
from smolvlm.errors import ConfigError, SampleError, SmolVLMError
from smolvlm.train.ranks import computed_once as module
from smolvlm.train.ranks.computed_once import computed_once
from tests.train.forking import free_port

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
LIMIT_S = 60
NUM_ROWS = 50


def rows_file(folder: Path, *, num_rows: int = NUM_ROWS) -> Path:
    path = folder / "rows.jsonl"
    lines = (json.dumps({"question": f"{n}?", "answer": str(n)}) for n in range(num_rows))
    path.write_text("\n".join(lines))
    return path


def measured(path: Path, columns: Sequence[int]) -> tuple[Conversations, list[np.ndarray]]:
    """Return what planning makes: rows of a table, and columns of several types."""
    mixture: list[object] = [{"path": str(path)}]
    (source,) = open_mixture(mixture, DataConfig(mixture=mixture))
    rows = np.flip(source.rows[::2]).copy()
    conversations = Conversations(
        [(source.spec, source.table)], np.zeros(len(rows), np.int16), rows
    )
    kinds = (np.int32, np.int64, np.float32)
    return conversations, [
        np.arange(size, dtype=kinds[number % 3]) for number, size in enumerate(columns)
    ]


class Rank:
    """One of several processes: what it is given, and what it says of what it got."""

    def __init__(self, homes: Sequence[Path], local_ranks: Sequence[int], port: int) -> None:
        self.homes, self.local_ranks, self.port = homes, local_ranks, port

    def __call__(self, rank: int, path: Path, work: str, said: Any) -> None:
        os.environ["SMOLVLM_HOME"] = str(self.homes[rank])
        os.environ |= {"LOCAL_RANK": str(self.local_ranks[rank]), "GLOO_SOCKET_IFNAME": "lo"}
        dist.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{self.port}",
            rank=rank,
            world_size=len(self.homes),
        )
        computed: list[int] = []

        def compute() -> Any:
            computed.append(rank)
            if work == "refuses":
                raise SampleError("no answer", where="rows.jsonl:3", fix="write one")
            if work == "fails":
                raise ZeroDivisionError
            if work == "is killed":
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGKILL)
            return measured(path, (1000, 0, 7, 100_000))

        file = path.parent / str(rank) / path.name if work == "own" else path
        mixture: list[object] = [{"path": str(file)}]
        try:
            conversations, columns = computed_once(
                compute, open_tables=lambda: open_tables(mixture, DataConfig(mixture=mixture))
            )
        except (SmolVLMError, ZeroDivisionError, RuntimeError) as error:
            said.put((rank, computed, type(error).__name__, str(error)))
            return
        texts = [conversations[index].turns[1].blocks[0] for index in (0, 1, -1)]
        said.put(
            (
                rank,
                computed,
                texts,
                [column.tolist() for column in columns],
                [column.dtype.str for column in columns],
                [is_mapped(column) for column in columns if len(column)],
            )
        )
        dist.barrier()
        dist.destroy_process_group()


def is_mapped(column: np.ndarray) -> bool:
    """Say whether a column lies in a file of the plans' folder."""
    address = column.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, _, end = line.split()[0].partition("-")
        if int(begin, 16) <= address < int(end, 16):
            return ".columns" in line
    return False


def outcome(
    path: Path, work: str, *, homes: Sequence[Path], local_ranks: Sequence[int] | None = None
) -> list[Any]:
    """Run as many ranks as there are homes; return what each said, by rank."""
    context = multiprocessing.get_context("fork")
    said: Any = context.Queue()
    ranks = Rank(homes, local_ranks or range(len(homes)), free_port())
    processes = [
        context.Process(target=ranks, args=(rank, path, work, said)) for rank in range(len(homes))
    ]
    for process in processes:
        process.start()
    end = time.monotonic() + LIMIT_S
    answers: list[Any] = []
    expected = len(homes) - (work == "is killed")
    try:
        while len(answers) < expected:
            answers.append(said.get(timeout=max(0.1, end - time.monotonic())))
        for process in processes:
            process.join(max(0.1, end - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
    return sorted(answers)


def test_without_ranks_it_is_a_call() -> None:
    assert computed_once(lambda: 7, open_tables=list) == 7


@pytest.mark.parametrize(
    ("homes", "local_ranks", "maps"),
    [
        pytest.param("aa", (0, 1), [True, True], id="one machine"),
        pytest.param("ab", (0, 0), [True, True], id="a machine each"),
        pytest.param("abb", (0, 0, 1), [True, True, True], id="one, and one of two ranks"),
        pytest.param("abc", (0, 0, 1), [True, True, False], id="a rank that sees no other's file"),
        pytest.param("rr", (0, 1), [False, False], id="a disk that cannot be written"),
    ],
)
def test_all_ranks_hold_what_one_computes(
    tmp_path: Path, homes: str, local_ranks: tuple[int, ...], maps: list[bool]
) -> None:
    (tmp_path / "r").write_text("a file where the cache folder should be")
    path = rows_file(tmp_path)
    folders = [tmp_path / name for name in homes]
    answers = outcome(path, "computes", homes=folders, local_ranks=local_ranks)
    columns = [[*range(1000)], [], [*range(7)], [*range(100_000)]]
    for rank, (number, computed, texts, values, types, mapped) in enumerate(answers):
        assert (number, computed) == (rank, [0] if rank == 0 else [])
        assert texts == ["48", "46", "0"]
        assert values == columns
        assert types == ["<i4", "<i8", "<f4", "<i4"]
        assert mapped == [maps[rank]] * 3
    assert list(tmp_path.glob("*/plans/*")) == []


def test_an_error_of_the_first_is_every_ranks(tmp_path: Path) -> None:
    answers = outcome(rows_file(tmp_path), "refuses", homes=[tmp_path / "a"] * 3)
    assert [kind for _, _, kind, _ in answers] == ["SampleError"] * 3
    assert {text for *_, text in answers} == {"rows.jsonl:3: no answer\n  fix: write one"}


def test_a_fault_of_the_first_ends_the_others(tmp_path: Path) -> None:
    first, second = outcome(rows_file(tmp_path), "fails", homes=[tmp_path / "a"] * 2)
    assert first[2] == "ZeroDivisionError"
    assert second[2:] == (
        "ConfigError",
        "rank 0: rank 0 ended while it measured and planned the rows (ZeroDivisionError)\n"
        "  fix: see its own message",
    )


def test_the_others_do_not_wait_for_one_that_was_killed(tmp_path: Path) -> None:
    ((rank, _, kind, _),) = outcome(rows_file(tmp_path), "is killed", homes=[tmp_path / "a"] * 2)
    assert (rank, kind) == (1, "RuntimeError")


def test_a_machine_with_other_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        rows_file(tmp_path / str(rank), num_rows=NUM_ROWS - 3 * rank)
    rows_file(tmp_path)
    _, second = outcome(path, "own", homes=[tmp_path / "a", tmp_path / "b"], local_ranks=(0, 0))
    assert second[2] == ConfigError.__name__
    assert "47 rows on rank 1, and 50 on rank 0" in second[3]


def test_what_a_killed_rank_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    old, new = tmp_path / "a.columns", tmp_path / "b.columns"
    for path in (old, new):
        path.write_bytes(b"")
    os.utime(old, (time.time() - 2 * module._LEFT_OVER_S,) * 2)
    module._remove_leftovers(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)
