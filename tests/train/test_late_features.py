"""Tiles that the cache has by the time of the step are not computed, and that changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smolvlm.model import modeling_smolvlm
from smolvlm.model.vision import run_tower
from smolvlm.train.batch import PackBatch, as_batch
from smolvlm.train.late_features import with_late_features
from tests.train.conftest import TrainRun


def read_from(known: dict[bytes, Tensor]) -> Any:
    return lambda keys: [known.get(key) for key in keys]


@pytest.fixture(scope="module")
def batch(train_run: TrainRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, PackBatch]:
    """A model with a frozen tower, and its pack with the most tiles."""
    changes = {
        "train.num_train_epochs": 1,
        "data.max_tokens_per_pack": 512,
        "data.vision_cache": False,
    }
    run = train_run(tmp_path_factory.mktemp("late"), changes)
    packs = run.trained.trainer.train_dataset
    pack = max((packs[number] for number in range(len(packs))), key=lambda one: len(one.tiles))
    assert len(pack.tiles) >= 4
    return run.trained.checkpoint.model, as_batch([pack])


def slots(model: Any, pack: Any) -> Tensor:
    """What the pack's image slots show."""
    with torch.no_grad():
        features, _ = model.image_features(
            pack["tiles"], pack["cached_features"], pack["slot_tiles"], pack["slot_sizes"]
        )
    return features


@pytest.mark.parametrize("which", ["all", "some", "the last", "with cached ones"])
def test_each_slot_shows_what_it_showed(batch: tuple[Any, PackBatch], which: str) -> None:
    model, (pack, info) = batch[0], (batch[1]["pack"], batch[1]["info"])
    with torch.no_grad():
        computed = model.tower_features(pack["tiles"])
    known = dict(zip(info.tile_keys, computed, strict=True))
    chosen = {
        "all": info.tile_keys,
        "some": info.tile_keys[1::2],
        "the last": info.tile_keys[-1:],
        "with cached ones": info.tile_keys[::2],
    }[which]
    found = read_from({key: known[key] for key in chosen})
    expected = slots(model, pack)
    changed, told = with_late_features(pack, info, found)
    if which == "with cached ones":  # those of the first turn are cached ones in the second
        also = {info.tile_keys[1]: known[info.tile_keys[1]]}
        changed, told = with_late_features(changed, told, read_from(also))
    assert told.num_computed_tiles == len(changed["tiles"]) == len(told.tile_keys)
    assert told.num_computed_tiles < info.num_computed_tiles
    assert told.num_tiles == info.num_tiles
    assert torch.allclose(slots(model, changed), expected, atol=1e-6)
    for key, tile in zip(told.tile_keys, changed["tiles"], strict=True):
        assert torch.equal(tile, pack["tiles"][info.tile_keys.index(key)])


def test_without_a_find_or_once_shared_out_a_pack_stays_as_it_is(
    batch: tuple[Any, PackBatch],
) -> None:
    pack, info = batch[1]["pack"], batch[1]["info"]
    assert with_late_features(pack, info, read_from({}))[0] is pack
    known = dict.fromkeys(info.tile_keys, torch.zeros(1, 1))
    shared = pack | {"context": object()}
    assert with_late_features(shared, info, read_from(known))[0] is shared


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_computes_no_tile_twice_however_far_its_workers_are_ahead(
    train_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    """Questions about one picture in many packs, which are all made before the first is trained
    on."""
    computed: list[int] = []

    def counted(tower: Any, pixel_values: Tensor, *others: Any) -> Tensor:
        computed.append(len(pixel_values))
        return run_tower(tower, pixel_values, *others)

    monkeypatch.setattr(modeling_smolvlm, "run_tower", counted)
    changes: dict[str, Any] = {"data.share_media": False, "train.packs_per_step": 1}
    if num_workers:
        changes |= {
            "train.dataloader_num_workers": num_workers,
            "train.dataloader_prefetch_factor": 8,
        }
    run = train_run(tmp_path, changes)
    assert run.trained.vision_cache is not None
    assert sum(computed) == run.trained.vision_cache.count() > 0
