"""Loader workers: how much they make ahead, what the step gets from them, and what is told when
they fail."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from traceback import clear_frames
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.columns import EMPTY_PACK, PlannedPack, PlannedPacks
from smolvlm.datasets.packing.pack import Pack
from smolvlm.errors import ConfigError, SampleError
from smolvlm.media import medium
from smolvlm.media.images import open_rgb
from smolvlm.model.attention.flex import plan_flex
from smolvlm.train import prefetch as prefetched_packs
from smolvlm.train.batch import as_batch
from smolvlm.train.prefetch import PrefetchedPacks, planned_bytes
from tests.packs import pack_of

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:This process:DeprecationWarning"
    ),  # of Python 3.12: workers are forked
    pytest.mark.filterwarnings(
        "ignore:This DataLoader will create 3 worker:UserWarning"
    ),  # on fewer than 3 cores
]

TrainRun = Callable[..., Any]
SIDE_PX = 16
BYTES_PER_TILE = 3 * SIDE_PX**2
QUIET_S = 0.25
"""So long without a pack begun, and every worker waits."""


class NotedPacks:
    """Stands for a data set: packs of so many tiles, each noted in a file when a worker begins
    it."""

    def __init__(self, num_tiles: Sequence[int], begun: Path, *, fails: bool = False) -> None:
        self.planned_packs = PlannedPacks.of(
            PlannedPack(samples=((number,),), num_tokens=1, num_tiles=count)
            for number, count in enumerate(num_tiles)
        )
        self.begun = begun
        self.fails = fails
        begun.touch()

    def __len__(self) -> int:
        return len(self.planned_packs)

    def planned(self, index: int) -> PlannedPack:
        return self.planned_packs[index]

    def where(self, row: int) -> str:
        return f"rows.jsonl:{row + 1}"

    def build(
        self, planned: PlannedPack, *, begin_sample: Callable[[int], None] = lambda _: None
    ) -> Pack:
        if planned == EMPTY_PACK:
            return pack(0, index=-1)
        begin_sample(0)
        (((index,),),) = (planned.samples,)
        with self.begun.open("a") as file:
            file.write(f"{index}\n")
        if self.fails:
            raise ZeroDivisionError(f"a bug in pack {index}")
        return pack(planned.num_tiles, index=index)


def pack(num_tiles: int, *, index: int) -> Pack:
    return pack_of(
        input_ids=torch.tensor([index]),
        position_ids=torch.zeros(1, dtype=torch.long),
        scope_end=torch.ones(1, dtype=torch.long),
        tiles=torch.zeros(num_tiles, 3, SIDE_PX, SIDE_PX, dtype=torch.uint8),
        budget_tokens=1,
    )


def ahead_of(packs: Any, *, max_bytes: int = 10**9, **ranks: int) -> PrefetchedPacks:
    return PrefetchedPacks(
        packs, bytes_per_tile=BYTES_PER_TILE, max_bytes=max_bytes, num_workers=3, **ranks
    )


def loader_of(
    ahead: PrefetchedPacks, numbers: Sequence[int], *, prefetch_factor: int = 8
) -> DataLoader[Pack]:
    """Return a loader of three workers that has eight packs each asked for ahead."""
    return DataLoader(
        ahead,
        batch_size=1,
        sampler=numbers,
        collate_fn=as_batch,
        num_workers=3,
        prefetch_factor=prefetch_factor,
    )


def begun_once_quiet(
    packs: NotedPacks, *, is_enough: Callable[[list[int]], bool] = lambda _: True
) -> list[int]:
    """Wait until enough is begun and nothing more comes, and return what was; ten seconds at
    most."""
    before, start = "", time.monotonic()
    since = start
    while time.monotonic() - start < 10:
        now = packs.begun.read_text()
        if now != before:
            before, since = now, time.monotonic()
        begun = [int(line) for line in before.split()]
        if time.monotonic() - since > QUIET_S and is_enough(begun):
            return begun
        time.sleep(0.01)
    return [int(line) for line in packs.begun.read_text().split()]


@pytest.mark.parametrize(("rank", "num_ranks"), [(0, 1), (1, 2)])
def test_packs_ahead_never_weigh_more_than_allowed_and_fill_what_is_allowed(
    tmp_path: Path, rank: int, num_ranks: int
) -> None:
    counts = np.random.default_rng(0).integers(0, 9, 40 * num_ranks)
    packs = NotedPacks(counts.tolist(), tmp_path / "begun")
    weights = planned_bytes(packs.planned_packs, bytes_per_tile=BYTES_PER_TILE)
    max_bytes = 24 * BYTES_PER_TILE
    ahead = ahead_of(packs, max_bytes=max_bytes, rank=rank, num_ranks=num_ranks)
    own = range(rank, len(packs), num_ranks)
    seen, most = [], 0

    def is_full(begun: list[int]) -> bool:
        following = own[len(begun) : len(begun) + 1]
        lying = [index for index in (*begun, *following) if index not in seen]
        return not following or weights[lying].sum() > max_bytes

    for batch in loader_of(ahead, own):
        if len(seen) % 6 == 0:
            begun = begun_once_quiet(packs, is_enough=is_full)
            lying = [index for index in begun if index not in seen]
            assert sorted(begun) == list(own[: len(begun)]), "in order, none left out"
            assert weights[lying].sum() <= max_bytes
            assert is_full(begun), "the next had no room"
            most = max(most, int(weights[lying].sum()))
        seen.append(int(ahead.take(batch)["pack"]["input_ids"]))
    assert seen == list(own)
    assert most > 0.8 * max_bytes
    assert max(weights) < max_bytes / 2


def test_what_a_pack_weighs_is_not_underestimated(plain_run: Any) -> None:
    dataset = plain_run.trained.trainer.train_dataset
    bound = planned_bytes(
        dataset.planned_packs, bytes_per_tile=3 * dataset.settings.pictures.tile_side_px**2
    )
    assert len(bound) == len(dataset)
    for number in range(len(dataset)):
        if dataset.planned(number).samples:
            pack = dataset[number]
            on_a_gpu = replace(pack, attention=plan_flex(pack.scope_end.numpy()))
            assert sum(tensor.nbytes for tensor in on_a_gpu.tensors()) <= bound[number]


def test_the_number_of_packs_a_worker_stays_bounded_besides(tmp_path: Path) -> None:
    packs = NotedPacks([0] * 40, tmp_path / "begun")
    ahead = ahead_of(packs)
    for _ in loader_of(ahead, range(40), prefetch_factor=2):
        assert begun_once_quiet(packs)[-1] <= 6
        break


def test_a_bound_that_no_pack_fits_into_makes_two_ahead_and_changes_no_step(
    train_run: TrainRun,
    words_alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Several packs a step: the loop collects them one by one, and none may wait for a room that
    never comes."""
    changes = words_alone | {"train.packs_per_step": 3}
    alone = train_run(tmp_path / "alone", changes)
    monkeypatch.setattr(prefetched_packs, "BYTES_PER_TOKEN", 10**9)
    workers = {
        "train.dataloader_num_workers": 3,
        "train.dataloader_prefetch_factor": 4,
        "data.prefetch_mb": 1,
    }
    helped = train_run(tmp_path / "helped", changes | workers)
    assert helped.losses == alone.losses
    samples = [(run.folder / "samples.jsonl").read_text() for run in (helped, alone)]
    assert samples[0] == samples[1]


def log_built(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note the rows of every pack that is built, in whatever process."""
    build = PackDataset.build

    def noted(self: PackDataset, planned: PlannedPack, **options: Any) -> Pack:
        with log.open("a") as file:
            file.write(json.dumps(planned.samples) + "\n")
        return build(self, planned, **options)

    monkeypatch.setattr(PackDataset, "build", noted)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_run_builds_no_pack_that_it_has_learned_from(
    train_run: TrainRun,
    words_alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
) -> None:
    saved = {
        "train.save_strategy": "steps",
        "train.save_steps": 3,
        "train.dataloader_num_workers": num_workers,
    }
    whole = train_run(tmp_path, words_alone | saved)
    before = whole.losses
    for checkpoint in whole.folder.glob("checkpoint-*"):
        if checkpoint.name != "checkpoint-3":
            shutil.rmtree(checkpoint)
    log_built(tmp_path / "built", monkeypatch)
    again = train_run(tmp_path, words_alone | saved)
    assert again.losses == before
    built = [json.loads(line) for line in (tmp_path / "built").read_text().splitlines()]
    packs = again.trained.planned.plan.packs
    left = [
        [list(sample) for sample in packs[number].samples] for number in range(2 * 3, len(packs))
    ]
    assert sorted(built) == sorted(left)


@pytest.fixture
def pictures_once(rows_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Changes: rows about pictures, each of which is decoded in its own row alone, and one with
    three."""
    sources = [
        {"json_path": str(rows_folder / "photos.jsonl")},
        {"json_path": str(rows_folder / "words.jsonl")},
    ]
    return {"data.mixture": sources, "train.packs_per_step": 1, "train.dataloader_num_workers": 3}


def fails_at(name: str, failure: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the decoder fail over the picture of that name."""

    def decode(ref: Any, **options: Any) -> Any:
        if name in str(ref.path):
            failure()
        return open_rgb(ref, **options)

    monkeypatch.setattr(medium, "open_rgb", decode)


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (signal.SIGKILL, "data.prefetch_mb"),
        (signal.SIGSEGV, "write it anew"),
        (signal.SIGBUS, "--shm-size"),
    ],
    ids=["killed", "crashed", "no shared memory"],
)
def test_a_workers_death_names_the_row_that_it_read(
    train_run: TrainRun,
    pictures_once: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    fix: str,
) -> None:
    def die() -> None:
        assert get_worker_info() is not None
        time.sleep(0.2)  # the others go on meanwhile
        os.kill(os.getpid(), number)

    fails_at("camera", die, monkeypatch)
    with pytest.raises(
        SampleError, match=r"the loader worker \d+ was killed by a signal"
    ) as caught:
        train_run(tmp_path, pictures_once)
    assert not multiprocessing.active_children(), "the other workers were sent home"
    file = pictures_once["data.mixture"][0]["json_path"]
    assert caught.value.where is not None
    assert sorted(caught.value.where.split(", ")) == [f"{file}:{row}" for row in (10, 11, 12)], (
        "one tree, one picture"
    )
    assert caught.value.what.endswith("while it read this")
    assert fix in (caught.value.fix or "")


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_bug_keeps_its_traceback_and_names_the_packs_rows(
    train_run: TrainRun,
    pictures_once: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
) -> None:
    def stumble() -> None:
        raise ZeroDivisionError("a bug of ours")

    fails_at("camera", stumble, monkeypatch)
    with pytest.raises(ZeroDivisionError, match="a bug of ours") as caught:
        train_run(tmp_path, pictures_once | {"train.dataloader_num_workers": num_workers})
    told = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])
    file = pictures_once["data.mixture"][0]["json_path"]
    assert f"{file}:10" in told.partition("while the pack of these rows was made: ")[2]
    assert num_workers == 0 or "in stumble" in told
    clear_frames(caught.tb)  # or torch waits five seconds for each worker


def test_memory_that_cannot_be_shared_is_told_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")

    ahead = ahead_of(NotedPacks([1, 2, 3], tmp_path / "begun"))
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(ConfigError) as caught, ahead.in_users_words():
        list(loader_of(ahead, range(3)))
    assert str(caught.value).startswith(
        "data.prefetch_mb: no shared memory left to hand a pack to the trainer (unable"
    )
    assert "--shm-size" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_once_the_run_has_ended_nobody_waits_and_nothing_is_made(tmp_path: Path) -> None:
    packs = NotedPacks([9] * 30, tmp_path / "begun")
    ahead = ahead_of(packs, max_bytes=1)
    loader = iter(loader_of(ahead, range(30)))
    with ahead.in_users_words():
        next(loader)
        begun = begun_once_quiet(packs, is_enough=lambda begun: len(begun) > 1)
    assert begun_once_quiet(packs) == begun
    assert sorted(begun) == [0, 1]
    start = time.monotonic()
    del loader
    assert time.monotonic() - start < 3, (
        "torch waits five seconds for a worker that does not answer"
    )
