"""Features read back are the features written, whoever wrote, was killed, forked or spawned;
nothing else hits."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from smolvlm.checkpoints.load import Checkpoint, load_checkpoint
from smolvlm.model import feature_file
from smolvlm.model.vision_cache import (
    FeatureLayout,
    Stage,
    VisionCache,
    fingerprint,
    open_vision_cache,
)

LAYOUT = FeatureLayout(stage="tower", shape=(5, 8), dtype=torch.float32)


@pytest.fixture
def cache(tmp_path: Path) -> VisionCache:
    return VisionCache(tmp_path / "features.lmdb", LAYOUT)


def features_of(key: int) -> Tensor:
    """What the tests keep under a key, told from the key alone."""
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(key))


def name_of(key: int) -> bytes:
    return key.to_bytes(16, "little")


def fill(cache: VisionCache, keys: range) -> None:
    cache.write([name_of(key) for key in keys], torch.stack([features_of(key) for key in keys]))


def assert_holds(cache: VisionCache, keys: range) -> None:
    for key, found in zip(keys, cache.read([name_of(key) for key in keys]), strict=True):
        assert found is not None
        assert torch.equal(found, features_of(key))


def test_what_is_written_is_read_to_the_bit_in_the_order_asked(cache: VisionCache) -> None:
    fill(cache, range(4))
    found = cache.read([name_of(key) for key in (2, 9, 0)])
    assert found[1] is None
    assert found[0] is not None
    assert found[2] is not None
    assert torch.equal(found[0], features_of(2))
    assert torch.equal(found[2], features_of(0))
    assert cache.count() == 4


def test_what_is_read_stays_when_the_file_closes(cache: VisionCache) -> None:
    fill(cache, range(1))
    (found,) = cache.read([name_of(0)])
    cache.close()
    assert found is not None
    found += 1
    assert_holds(cache, range(1))


def test_entries_are_kept_in_the_layouts_dtype(tmp_path: Path) -> None:
    cache = VisionCache(tmp_path / "half.lmdb", replace(LAYOUT, dtype=torch.bfloat16))
    fill(cache, range(1))
    (found,) = cache.read([name_of(0)])
    assert found is not None
    assert torch.equal(found, features_of(0).bfloat16())


@pytest.mark.parametrize("value", [b"", b"short", b"x" * (LAYOUT.num_bytes + 1)])
def test_a_value_of_another_length_is_a_miss(cache: VisionCache, value: bytes) -> None:
    environment = feature_file.environment_of(cache.path)
    assert environment is not None
    with environment.begin(write=True) as transaction:
        transaction.put(name_of(0), value)
    assert cache.read([name_of(0)]) == [None]
    fill(cache, range(1))
    assert_holds(cache, range(1))


def test_an_empty_cache_is_not_false(cache: VisionCache) -> None:
    """Callers ask `cache.read if cache else None`: a first run would never read what it wrote."""
    assert cache.count() == 0
    assert cache


def test_two_caches_of_one_process_share_a_file(cache: VisionCache) -> None:
    """As when two runs in a row, in one notebook, use one output folder."""
    fill(cache, range(2))
    other = VisionCache(cache.path, LAYOUT)
    assert_holds(other, range(2))
    fill(other, range(2, 3))
    assert_holds(cache, range(3))


def write_for_ever(cache: VisionCache) -> None:
    for start in count(step=20):
        fill(cache, range(start, start + 20))


@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # from Python 3.12 on, of any process with threads
def test_a_writer_killed_in_mid_writing_leaves_a_usable_cache(cache: VisionCache) -> None:
    writer = multiprocessing.get_context("fork").Process(target=write_for_ever, args=(cache,))
    writer.start()
    deadline = time.monotonic() + 60
    while cache.count() < 200:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    cache.close()
    left = cache.count()
    assert left >= 200
    assert left % 20 == 0, "a commit is whole or not there"
    assert_holds(cache, range(left))
    fill(cache, range(left, left + 20))
    assert_holds(cache, range(left + 20))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_loader_workers_read_what_the_main_process_wrote(cache: VisionCache, start: str) -> None:
    """The main process has the file open already, as in every epoch but the first."""
    fill(cache, range(3))
    assert_holds(cache, range(3))
    keys = [name_of(key) for key in (0, 9, 2)]
    loader = DataLoader(
        keys, batch_size=3, collate_fn=cache.read, num_workers=1, multiprocessing_context=start
    )  # type: ignore[arg-type]
    ((first, missing, last),) = list(loader)
    assert missing is None
    assert torch.equal(first, features_of(0))
    assert torch.equal(last, features_of(2))
    fill(cache, range(3, 5))
    assert_holds(cache, range(5))


def layout_of(
    checkpoint: Checkpoint, directory: Path, stage: Stage, dtype: str = "float32"
) -> VisionCache:
    return open_vision_cache(
        directory, checkpoint.model, compute_dtype=dtype, keeps_connector=stage == "connector"
    )


@pytest.mark.parametrize(("stage", "shape"), [("tower", (16, 32)), ("connector", (4, 64))])
def test_the_layout_follows_the_stage(
    checkpoint: Checkpoint, tmp_path: Path, stage: Stage, shape
) -> None:
    cache = layout_of(checkpoint, tmp_path, stage, "bfloat16")
    assert cache.layout == FeatureLayout(stage=stage, shape=shape, dtype=torch.bfloat16)
    assert cache.path == tmp_path / f"{fingerprint(checkpoint.model, cache.layout)}.lmdb"


def test_the_fingerprint_is_of_the_weights_and_not_of_the_object(
    folder: Path, checkpoint: Checkpoint
) -> None:
    assert fingerprint(checkpoint.model, LAYOUT) == fingerprint(
        load_checkpoint(str(folder)).model, LAYOUT
    )


def test_everything_that_features_depend_on_changes_the_fingerprint(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model = checkpoint.model
    names = {
        layout_of(checkpoint, tmp_path, stage, dtype).path
        for stage in ("tower", "connector")
        for dtype in ("float32", "bfloat16", "float16")
    }
    tower = FeatureLayout(stage="tower", shape=(16, 32), dtype=torch.float32)
    connector = replace(tower, stage="connector")
    scaling = model.pixel_scaling
    model.pixel_scaling = replace(scaling, std=(0.5, 0.5, 0.25))
    names.add(fingerprint(model, tower))
    model.pixel_scaling = replace(scaling, rescale_factor=1 / 256)
    names.add(fingerprint(model, tower))
    model.pixel_scaling = scaling
    with torch.no_grad():
        model.model.vision_model.encoder.layers[1].mlp.fc1.bias[3] += 1e-3
    names.add(fingerprint(model, tower))
    before = fingerprint(model, connector)
    with torch.no_grad():
        model.model.connector.modality_projection.proj.weight[0, 0] += 1e-3
    names |= {before, fingerprint(model, connector)}
    assert len(names) == 6 + 3 + 2


def test_other_weights_leave_the_fingerprint_alone(checkpoint: Checkpoint) -> None:
    before = fingerprint(checkpoint.model, LAYOUT)
    with torch.no_grad():
        checkpoint.model.lm_head.weight += 1
        checkpoint.model.model.connector.modality_projection.proj.weight += 1
    assert fingerprint(checkpoint.model, LAYOUT) == before
