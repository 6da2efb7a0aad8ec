"""The tower on tiles equals the stock vision class, its pixels the stock processor's, for every
released shape."""

import pytest
import torch
from torch import Tensor
from transformers import Idefics3Config, SmolVLMConfig
from transformers.models.idefics3.image_processing_idefics3 import Idefics3ImageProcessor
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from smolvlm.build.configs import published_config
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.errors import ConfigError
from smolvlm.model.vision import (
    PixelScaling,
    check_tile_side,
    misplaced_rows,
    normalize_pixels,
    run_tower,
    tile_positions,
    tokens_per_tile,
    tower_modules,
)

SIDES = [(32, 8, 4), (64, 8, 8), (100, 4, 25), (384, 14, 27), (512, 16, 32)]
"""(tile side px, patch side px, patches a side). The last two are the released towers'; 384 px are
27.4 patches."""
TOWERS = [(SmolVLMConfig, SmolVLMVisionTransformer), (Idefics3Config, Idefics3VisionTransformer)]


def stock_tower(kinds: tuple[type, type], side_px: int, patch_px: int) -> torch.nn.Module:
    config, tower = kinds
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": side_px,
        "patch_size": patch_px,
    }
    settings = config(vision_config=vision).vision_config
    settings._attn_implementation = "sdpa"
    return tower(settings).eval()


def noise(tiles: int, side_px: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(
        0, 256, (tiles, 3, side_px, side_px), dtype=torch.uint8, generator=generator
    )


@pytest.mark.parametrize("kinds", TOWERS, ids=["smolvlm", "idefics3"])
@pytest.mark.parametrize(("side_px", "patch_px", "patches"), SIDES)
def test_features_equal_the_stock_forward(
    kinds: tuple[type, type], side_px: int, patch_px: int, patches: int
) -> None:
    tower = stock_tower(kinds, side_px, patch_px)
    pixels = noise(2, side_px).float() / 127.5 - 1.0
    found = run_tower(tower, pixels)
    expected = tower(pixels).last_hidden_state
    assert found.shape == (2, patches**2, 32)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side_px", "patch_px", "patches"), SIDES)
def test_positions_equal_the_stock_forward_to_the_last_one(
    side_px: int, patch_px: int, patches: int
) -> None:
    """Read off the stock class: patches of nothing, and a table in which each position holds its
    own number."""
    embeddings = stock_tower(TOWERS[0], side_px, patch_px).embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight.copy_(torch.arange(patches**2)[:, None].expand(-1, 32))
        pixels = torch.zeros(1, 3, side_px, side_px)
        stock = embeddings(pixels, torch.ones(1, patches, patches, dtype=torch.bool))[..., 0].long()
    found = tile_positions(patches)
    assert torch.equal(found, stock)
    is_regular = torch.equal(found, torch.arange(patches**2)[None])
    assert is_regular == (patches != 25), (
        "with 25 a side the stock class puts some patches one place off"
    )


def test_gradients_equal_the_stock_forward() -> None:
    """In float64: in float32 the stock convolution alone sums its weight's gradient with errors of
    5e-5."""
    tower = stock_tower(TOWERS[0], 384, 14).double()
    pixels = noise(1, 384).double() / 127.5 - 1.0
    names = [
        name for name, _ in tower.named_parameters() if "k_proj.bias" not in name
    ]  # softmax cancels a key bias
    weights = [tower.get_parameter(name) for name in names]
    upstream = torch.linspace(-1, 1, 27**2 * 32, dtype=torch.float64).view(1, 27**2, 32)
    found = torch.autograd.grad((run_tower(tower, pixels) * upstream).sum(), weights)
    expected = torch.autograd.grad((tower(pixels).last_hidden_state * upstream).sum(), weights)
    for name, ours, theirs in zip(names, found, expected, strict=True):
        assert (ours - theirs).norm() <= 1e-10 * theirs.norm(), name


@pytest.mark.parametrize(
    ("factor", "mean", "std"),
    [
        (1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (1 / 128, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_pixels_equal_the_stock_processors(
    factor: float, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    """All 256 values in each channel. Tolerance: the processor folds the factor into mean and std
    and rounds once."""
    values = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).expand(3, 16, 16).contiguous()
    processor = Idefics3ImageProcessor(
        size={"longest_edge": 16},
        max_image_size={"longest_edge": 16},
        do_image_splitting=False,
        do_resize=False,
        rescale_factor=factor,
        image_mean=list(mean),
        image_std=list(std),
    )
    expected = processor([values], return_tensors="pt")["pixel_values"][0]
    scaling = PixelScaling(rescale_factor=factor, mean=mean, std=std)
    found = normalize_pixels(values[None], scaling, dtype=torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_pixels_are_computed_in_float32_and_cast_last() -> None:
    scaling = PixelScaling(rescale_factor=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3)
    tiles = noise(1, 16)
    exact = normalize_pixels(tiles, scaling, dtype=torch.float32)
    assert torch.equal(normalize_pixels(tiles, scaling, dtype=torch.bfloat16), exact.bfloat16())


@pytest.mark.parametrize(("size", "tokens"), [("256M", 64), ("500M", 64), ("2.2B", 81)])
def test_tokens_per_tile_of_the_released_models(size: str, tokens: int) -> None:
    assert tokens_per_tile(published_config(size)) == tokens


def test_tiles_of_another_side_are_refused() -> None:
    config = published_config("2.2B")
    check_tile_side(config, tile_side_px=384)
    with pytest.raises(ConfigError) as caught:
        check_tile_side(config, tile_side_px=512)
    assert str(caught.value) == (
        "the processor cuts tiles of 512 px, the vision tower takes 384 px\n"
        "  fix: use the processor that belongs to the checkpoint (max_image_size.longest_edge = "
        "image_size)"
    )


def test_tower_and_connector_are_found(checkpoint: Checkpoint) -> None:
    tower, connector = tower_modules(checkpoint.model)
    assert tower is checkpoint.model.model.vision_model
    assert connector is checkpoint.model.model.connector


def test_misplaced_rows_are_those_that_the_stock_class_gives_a_neighbours_position() -> None:
    """Of sides up to 64; the published towers' 27, 28, 32, 37 and 64 are right."""
    wrong = [side for side in range(1, 65) if misplaced_rows(side)]
    assert wrong == [19, 25, 29, 31, 38, 40, 41, 43, 47, 49, 50, 54, 55, 58, 59, 61, 62]
    assert misplaced_rows(19) == (12,)
    embeddings = stock_tower(TOWERS[0], 76, 4).embeddings
    with torch.no_grad():
        embeddings.patch_embedding.weight.zero_()
        embeddings.patch_embedding.bias.zero_()
        embeddings.position_embedding.weight.copy_(torch.arange(19**2)[:, None].expand(-1, 32))
        stock = embeddings(torch.zeros(1, 3, 76, 76), torch.ones(1, 19, 19, dtype=torch.bool))[
            0, :19, 0
        ].tolist()
    assert [column for column, position in enumerate(stock) if column != position] == [12]
