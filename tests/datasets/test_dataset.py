"""Packs as tensors: examples laid end to end, whoever builds them, and rows that turn out bad."""

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.columns import EMPTY_PACK
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.pack import Pack
from smolvlm.errors import SampleError
from smolvlm.media.images import open_rgb
from smolvlm.media.tiles import make_tiles
from smolvlm.records import Conversation, ImageRef, SkippedRow, Turn
from tests.memory_rows import MemoryRows

DatasetOf = Callable[..., PackDataset]
Asks = Callable[..., Conversation]


@pytest.fixture
def rows(asks: Asks, photos: dict[str, Path]) -> list[Conversation]:
    """Several questions about every picture, and some about none, from two sources."""
    pictures = [*photos.values()] * 3
    about_pictures = [
        asks(number, path, f"Question {number}?") for number, path in enumerate(pictures)
    ]
    about_none = [
        asks(number, f"Say {number}", answer="word " * number, source="texts")
        for number in range(1, 6)
    ]
    return [*about_pictures, *about_none]


def assert_same(first: Pack, second: Pack) -> None:
    for field in (one for one in dataclasses.fields(Pack) if one.compare):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, other), field.name
            assert one.dtype == other.dtype
        else:
            assert one == other, field.name


def test_a_pack_is_its_examples_end_to_end(
    rows: list[Conversation], dataset_of: DatasetOf, prompt: PromptSettings
) -> None:
    dataset = dataset_of(rows)
    names = (
        "input_ids",
        "position_ids",
        "scope_end",
        "predict_from",
        "target_ids",
        "target_weights",
    )
    trees = 0
    for number, planned in enumerate(dataset.plan.packs):
        if not planned.samples:
            continue
        pack = dataset[number]
        joined: dict[str, list[Any]] = {name: [] for name in names}
        sources: list[str] = []
        where: list[str] = []
        pixels = []
        offset = 0
        for members in planned.samples:
            example = dataset.example(members)
            trees += len(members) > 1
            for name in names:
                shift = offset if name in ("scope_end", "predict_from") else 0
                joined[name] += (getattr(example, name) + shift).tolist()
            sources += [example.sources[owner] for owner in example.target_conversation]
            where += example.where
            made = [make_tiles(open_rgb(image), prompt.media.pictures) for image in example.media]
            pixels += [made[ref.medium][ref.tile] for ref in example.tiles]
            offset += len(example.input_ids)
        for name in names:
            assert getattr(pack, name).tolist() == joined[name], name
            assert getattr(pack, name).dtype == (
                torch.float32 if name == "target_weights" else torch.long
            )
        assert [dataset.sources[source] for source in pack.target_sources] == sources
        assert pack.where == tuple(where)
        shown = pack.tiles[pack.slot_tiles]
        assert torch.equal(shown, torch.from_numpy(np.stack(pixels)) if pixels else shown[:0])
        assert len(set(pack.tile_keys)) == len(pack.tiles) == len(pack.slot_tiles.unique())
        assert (len(pack.input_ids), pack.budget_tokens) == (planned.num_tokens, 700)
        assert len(pack.slot_tiles) == planned.num_tiles
    assert trees


def test_targets_of_a_tree_go_to_the_source_of_their_own_branch(
    asks: Asks, dataset_of: DatasetOf, photos: dict[str, Path]
) -> None:
    rows = [
        asks(1, photos["camera"], "a?", answer="one two three", source="b"),
        asks(2, photos["camera"], "b?", answer="four", source="a"),
        asks(3, "c?", answer="five six", source="c"),
    ]
    dataset = dataset_of(rows, [(2,), (0, 1)])
    pack = dataset[0]
    for row in rows:
        own = pack.target_sources == dataset.sources.index(row.source)
        alone = dataset_of([row], [(0,)])[0]
        assert pack.target_ids[own].tolist() == alone.target_ids.tolist(), row.source


def test_scopes_end_within_the_pack(rows: list[Conversation], dataset_of: DatasetOf) -> None:
    for pack in dataset_of(rows):
        positions = torch.arange(len(pack.input_ids))
        assert (pack.scope_end > positions).all()
        assert (pack.scope_end <= len(pack.input_ids)).all()


def test_equal_pictures_under_other_names_are_one_tile(
    asks: Asks, dataset_of: DatasetOf, photos: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(photos["rocket"].read_bytes())
    in_the_row = ImageRef(data=copy.read_bytes())
    rows = [asks(1, photos["rocket"], "a?"), asks(2, copy, "b?"), asks(3, in_the_row, copy, "c?")]
    pack = dataset_of(rows, [(0,), (1,), (2,)])[0]
    assert len(pack.tiles) == 5
    assert pack.slot_tiles.tolist() == [*range(5)] * 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_workers_change_nothing(
    rows: list[Conversation], dataset_of: DatasetOf, num_workers: int
) -> None:
    dataset = dataset_of(rows)
    loaded = list(DataLoader(dataset, batch_size=None, num_workers=num_workers))
    assert len(loaded) == len(dataset) == len(dataset.plan.packs)
    for number, pack in enumerate(loaded):
        assert_same(pack, dataset[number])


def test_a_pickled_copy_gives_the_same_packs(
    rows: list[Conversation], dataset_of: DatasetOf
) -> None:
    """As workers that are not forked receive it."""
    dataset = dataset_of(rows)
    copy: PackDataset = pickle.loads(pickle.dumps(dataset))
    assert_same(copy[0], dataset[0])


def test_packs_are_handed_out_in_the_order_given(
    rows: list[Conversation], dataset_of: DatasetOf
) -> None:
    dataset = dataset_of(rows)
    backwards = dataset_of(rows, order=range(len(dataset) - 1, -1, -1))
    for number in range(len(dataset)):
        assert_same(backwards[number], dataset[len(dataset) - 1 - number])


def test_an_empty_pack_is_one_token_that_nothing_learns(
    dataset_of: DatasetOf, prompt: PromptSettings
) -> None:
    pack = dataset_of([], []).build(EMPTY_PACK)
    assert pack.input_ids.tolist() == [prompt.tokens.pad]
    assert (pack.position_ids.tolist(), pack.scope_end.tolist()) == ([0], [1])
    assert (
        len(pack.predict_from)
        == len(pack.target_ids)
        == len(pack.target_weights)
        == len(pack.slot_tiles)
        == 0
    )
    assert pack.tiles.shape == (0, 3, 32, 32)
    assert pack.target_weights.dtype == torch.float32
    assert (pack.where, pack.skipped, pack.cached_features) == ((), (), None)


@pytest.fixture
def with_corrupt(asks: Asks, photos: dict[str, Path], tmp_path: Path) -> list[Conversation]:
    """Rows of which the middle two show a picture whose header is whole and whose pixels are cut
    short."""
    cut_short = tmp_path / "cut.png"
    cut_short.write_bytes(photos["coffee"].read_bytes()[:2000])
    corrupt = [asks(number, cut_short, f"{number}?") for number in (2, 3)]
    return [asks(1, photos["rocket"], "1?"), *corrupt, asks(4, "text")]


def test_a_tree_with_a_corrupt_picture_is_left_out_whole(
    with_corrupt: list[Conversation], dataset_of: DatasetOf
) -> None:
    pack = dataset_of(with_corrupt, [(0,), (1, 2), (3,)], on_bad_sample="skip")[0]
    reason = pack.skipped[0].reason
    assert "cut.png is damaged or cut short" in reason
    assert pack.skipped == tuple(
        SkippedRow(where=f"rows.jsonl:{number}", reason=reason) for number in (2, 3)
    )
    good = dataset_of(with_corrupt, [(0,), (3,)])[0]
    assert_same(dataclasses.replace(pack, skipped=()), good)


def test_what_the_reference_thinks_stays_with_its_row_where_another_is_left_out(
    asks: Asks, dataset_of: DatasetOf, photos: dict[str, Path], with_corrupt: list[Conversation]
) -> None:
    pairs = [
        dataclasses.replace(
            row, rejected=(*row.turns[:-1], Turn(role="assistant", blocks=("no, never",)))
        )
        for row in (*with_corrupt, asks(5, photos["camera"], "5?"))
    ]
    dataset = dataset_of(pairs, [(3,), (1,), (0,), (2,), (4,)], on_bad_sample="skip")
    dataset.reference_logps = np.array(
        [(-10 * row - 1, -10 * row - 2) for row in range(5)], np.float32
    )
    pack = dataset[0]
    assert [row.where for row in pack.skipped] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert pack.where == ("rows.jsonl:4", "rows.jsonl:1", "rows.jsonl:5")
    assert pack.reference_logps is not None
    assert pack.reference_logps.tolist() == [-31, -32, -1, -2, -41, -42]
    assert pack.group_sizes.tolist() == [2, 4] * 3


def test_a_pack_of_nothing_but_corrupt_rows_is_empty(
    with_corrupt: list[Conversation], dataset_of: DatasetOf
) -> None:
    pack = dataset_of(with_corrupt, [(1,), (2,)], on_bad_sample="skip")[0]
    assert [row.where for row in pack.skipped] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert (len(pack.input_ids), len(pack.target_ids), len(pack.tiles), pack.where) == (1, 0, 0, ())


CORRUPT = (
    r"rows\.jsonl:2: picture \S*cut\.png is damaged(.|\n)*"
    r"fix: replace the file; or set `on_bad_sample: skip`"
)


def test_a_sources_own_policy_holds_for_pixels_too(
    with_corrupt: list[Conversation], dataset_of: DatasetOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = [(0,), (1, 2), (3,)]
    monkeypatch.setattr(MemoryRows, "policies", {"rows": "skip"})
    assert len(dataset_of(with_corrupt, samples)[0].skipped) == 2
    monkeypatch.setattr(MemoryRows, "policies", {"rows": "error"})
    with pytest.raises(SampleError, match=CORRUPT):
        dataset_of(with_corrupt, samples, on_bad_sample="skip")[0]


def test_corrupt_pixels_are_an_error_that_names_the_row(
    with_corrupt: list[Conversation], dataset_of: DatasetOf
) -> None:
    with pytest.raises(SampleError, match=CORRUPT):
        dataset_of(with_corrupt, [(0,), (1, 2), (3,)])[0]


def test_the_error_of_a_worker_is_the_same(
    with_corrupt: list[Conversation], dataset_of: DatasetOf
) -> None:
    dataset = dataset_of(with_corrupt, [(0,), (1, 2), (3,)])
    packs: Any = iter(DataLoader(dataset, batch_size=None, num_workers=1))
    with pytest.raises(SampleError, match=CORRUPT):
        next(packs)
    packs._shutdown_workers()  # else its collection as garbage waits five seconds for the worker


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_largest_picture_is_the_runs_in_workers_too(
    asks: Asks,
    dataset_of: DatasetOf,
    photos: dict[str, Path],
    num_workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever limit Pillow has in that process."""
    dataset = dataset_of([asks(1, photos["coffee"], "a?")], [(0,)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    packs: Any = iter(DataLoader(dataset, batch_size=None, num_workers=num_workers))
    assert len(next(packs).tiles) > 0
    dataset.settings = dataclasses.replace(dataset.settings, max_image_pixels=1000)
    packs = iter(DataLoader(dataset, batch_size=None, num_workers=num_workers))
    with pytest.raises(SampleError, match=r"limit of 1000 pixels(.|\n)*data\.max_image_pixels"):
        next(packs)
    if num_workers:
        packs._shutdown_workers()


def test_cached_features_take_the_place_of_tiles(
    asks: Asks, dataset_of: DatasetOf, photos: dict[str, Path]
) -> None:
    rows = [asks(1, photos["rocket"], "a?"), asks(2, photos["camera"], "b?")]
    plain = dataset_of(rows, [(0,), (1,)])[0]
    features = {
        key: torch.full((4, 2), float(number)) for number, key in enumerate(plain.tile_keys)
    }
    rocket_keys = plain.tile_keys[:5]

    def read(keys: list[bytes]) -> list[torch.Tensor | None]:
        return [features[key] if key in rocket_keys else None for key in keys]

    pack = dataset_of(rows, [(0,), (1,)], read_features=read)[0]
    assert pack.cached_features is not None
    assert pack.tile_keys == plain.tile_keys[5:]
    assert pack.slot_tiles.tolist() == [*range(17, 22), *range(17)]
    assert pack.cached_features[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(pack.tiles, plain.tiles[5:])


def test_a_budget_is_kept_by_what_is_built(rows: list[Conversation], dataset_of: DatasetOf) -> None:
    budget = Budget(max_tokens=260, max_tiles=40)
    for pack in dataset_of(rows, budget=budget):
        assert len(pack.input_ids) <= budget.max_tokens
        assert len(pack.slot_tiles) <= budget.max_tiles


def test_a_picture_that_changed_since_it_was_measured_is_named(
    asks: Asks, dataset_of: DatasetOf, photos: dict[str, Path], tmp_path: Path
) -> None:
    """Kept sizes outlive the pictures they were taken from, so the fix must be one that helps."""
    path = tmp_path / "picture"
    path.write_bytes(photos["coffee"].read_bytes())
    dataset = dataset_of([asks(1, path, "a?")], [(0,)])
    path.write_bytes(photos["rocket"].read_bytes())
    with pytest.raises(
        SampleError,
        match=r"rows\.jsonl:1: \d+ tokens and 5 tiles, \d+ and 13 were planned\n.*lengths",
    ):
        dataset[0]


def test_a_row_that_stands_twice_in_a_tree_counts_twice(
    asks: Asks, dataset_of: DatasetOf, photos: dict[str, Path]
) -> None:
    rows = [asks(number, photos["coffee"], f"{number}?") for number in (1, 2)]
    pack = dataset_of(rows, [(0, 1, 0)])[0]
    assert pack.where == ("rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:1")
    learned = [dataset_of(rows, [(number,)])[0] for number in (0, 1)]
    assert len(pack.target_ids) == sum(len(learned[row].target_ids) for row in (0, 1, 0))
