"""A frozen tower's cache changes nothing: loss and gradients with it are those without it, and a
hit runs no tower."""

from pathlib import Path

import pytest
import torch

from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.media import medium
from smolvlm.model import modeling_smolvlm
from smolvlm.model.modeling_smolvlm import PackOutput
from smolvlm.model.vision_cache import Stage, VisionCache, open_vision_cache

BATCH_TOLERANCE = 1e-6
"""A tower is not batch-invariant: sums may be taken in another order where tiles come in other
company, by relative 1e-4 in bfloat16 at released widths. At these widths the loss was measured to
be equal to the bit; this leaves room for other processors' kernels."""
HALF_TOLERANCE = 1e-3


def cache_of(
    checkpoint: Checkpoint, directory: Path, stage: Stage, dtype: str = "float32"
) -> VisionCache:
    return open_vision_cache(
        directory, checkpoint.model, compute_dtype=dtype, keeps_connector=stage == "connector"
    )


def frozen_run(checkpoint: Checkpoint, pack, stage: Stage) -> PackOutput:
    connector_lr = 0.0 if stage == "connector" else 1.0
    freeze(checkpoint.model, LearningRates(full={"connector": connector_lr, "language_model": 1.0}))
    checkpoint.model.caches_connector = stage == "connector"
    checkpoint.model.zero_grad()
    output = checkpoint.model(
        pack=pack.model_tensors(), normalizer=float(pack.target_weights.sum())
    )
    output.loss.backward()
    return output


@pytest.mark.parametrize("stage", ["tower", "connector"])
def test_with_the_cache_loss_and_gradients_are_the_same_to_the_bit(
    checkpoint: Checkpoint,
    tmp_path: Path,
    pack_of,
    picture,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the same tiles were computed together. And a hit runs no tower and decodes no
    picture."""
    rows = [
        ([picture(0)], "What?", "Noise"),
        ([picture(1), picture(0)], "And these?", "More noise"),
    ]
    cache = cache_of(checkpoint, tmp_path, stage)
    first = pack_of(rows, read_features=cache.read)
    computed = frozen_run(checkpoint, first, stage)
    gradients = {name: value.grad for name, value in checkpoint.model.named_parameters()}
    assert len(first.tile_keys) == len(first.tiles) == 26
    cache.write(first.tile_keys, computed.computed_features)

    def fails(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a hit must not come here")

    monkeypatch.setattr(modeling_smolvlm, "run_tower", fails)
    monkeypatch.setattr(medium, "make_tiles", fails)
    monkeypatch.setattr(medium, "open_rgb", fails)
    second = pack_of(rows, read_features=cache.read)
    assert len(second.tiles) == 0
    cached = frozen_run(checkpoint, second, stage)
    assert cached.computed_features is None
    assert torch.equal(cached.loss, computed.loss)
    for name, value in checkpoint.model.named_parameters():
        other = gradients[name]
        assert (value.grad is None) == (other is None), name
        assert other is None or torch.equal(value.grad, other), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stage", ["tower", "connector"])
def test_under_autocast_what_is_kept_in_two_bytes_is_the_same_to_the_bit(
    checkpoint: Checkpoint,
    tmp_path: Path,
    pack_of,
    picture,
    stage: Stage,
    dtype: torch.dtype,
) -> None:
    """The connector's product gives that type; and it takes that type, whatever the tower's last
    norm gives, so that rounding before keeping is the rounding that comes anyway."""
    rows = [([picture(0)], "What?", "Noise"), ([picture(1), picture(0)], "These?", "More noise")]
    cache = cache_of(checkpoint, tmp_path, stage, str(dtype).removeprefix("torch."))
    assert cache.layout.dtype == dtype
    first = pack_of(rows, read_features=cache.read)
    with torch.autocast("cpu", dtype=dtype):
        computed = frozen_run(checkpoint, first, stage)
        gradients = {name: value.grad for name, value in checkpoint.model.named_parameters()}
        cache.write(first.tile_keys, computed.computed_features)
        second = pack_of(rows, read_features=cache.read)
        assert len(second.tiles) == 0
        cached = frozen_run(checkpoint, second, stage)
    assert torch.equal(cached.loss, computed.loss)
    for name, value in checkpoint.model.named_parameters():
        other = gradients[name]
        assert other is None or torch.equal(value.grad, other), name


@pytest.mark.parametrize("stage", ["tower", "connector"])
def test_half_cached_is_equal_up_to_the_towers_batch(
    checkpoint: Checkpoint, tmp_path: Path, pack_of, picture, stage: Stage
) -> None:
    rows = [
        ([picture(0)], "What?", "Noise"),
        ([picture(1), picture(0)], "And these?", "More noise"),
    ]
    cache = cache_of(checkpoint, tmp_path, stage)
    whole = frozen_run(checkpoint, pack_of(rows), stage)
    one = pack_of([([picture(1)], "Alone?", "Yes")], read_features=cache.read)
    cache.write(one.tile_keys, frozen_run(checkpoint, one, stage).computed_features)
    half = pack_of(rows, read_features=cache.read)
    assert (len(half.tiles), len(half.cached_features)) == (13, 13)
    mixed = frozen_run(checkpoint, half, stage)
    assert abs(mixed.loss.item() - whole.loss.item()) <= BATCH_TOLERANCE * whole.loss.item()


@pytest.mark.parametrize("stage", ["tower", "connector"])
def test_under_autocast_half_cached_is_equal_up_to_bfloat16(
    checkpoint: Checkpoint, tmp_path: Path, pack_of, picture, stage: Stage
) -> None:
    """The cache then keeps bfloat16, and the tower's last layer norm gives float32: one rounding
    more."""
    rows = [
        ([picture(0)], "What?", "Noise"),
        ([picture(1), picture(0)], "And these?", "More noise"),
    ]
    cache = cache_of(checkpoint, tmp_path, stage, "bfloat16")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        whole = frozen_run(checkpoint, pack_of(rows), stage)
        one = pack_of([([picture(1)], "Alone?", "Yes")], read_features=cache.read)
        cache.write(one.tile_keys, frozen_run(checkpoint, one, stage).computed_features)
        half = pack_of(rows, read_features=cache.read)
        assert half.cached_features.dtype is torch.bfloat16
        mixed = frozen_run(checkpoint, half, stage)
    assert abs(mixed.loss.item() - whole.loss.item()) <= HALF_TOLERANCE * whole.loss.item()
