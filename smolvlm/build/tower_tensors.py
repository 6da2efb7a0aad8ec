"""Tensors of foreign vision towers under the stock class's names; shared by what reads towers.

Positions are resampled to another number of patches; layers of DINOv2's layout are renamed, their
layer scale folded into the linear before it, which is exact.
"""

import math

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NO_CLASS_TOKEN = (
    "the class token is dropped, so features differ from the source's; train the tower, or test "
    "whether it serves"
)
_LAYER = {
    "attention.attention.query": "self_attn.q_proj",
    "attention.attention.key": "self_attn.k_proj",
    "attention.attention.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.out_proj",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def resize_positions(
    positions: Float[Tensor, "patch hidden"], *, patches_per_side: int
) -> Float[Tensor, "new hidden"]:
    """Resample a square of position embeddings to another side, bicubic as the sources do.

    At the side that it has, the very same numbers.
    """
    side = math.isqrt(len(positions))
    if side == patches_per_side:
        return positions
    square = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(
        square, size=(patches_per_side, patches_per_side), mode="bicubic", align_corners=False
    )
    return resized[0].flatten(1).T.contiguous()


def layer_names(index: int) -> dict[str, str]:
    """Return the stock class's modules of one layer -> what DINOv2's layout calls them."""
    old, new = f"encoder.layer.{index}", f"encoder.layers.{index}"
    return {f"{new}.{target}": f"{old}.{name}" for name, target in _LAYER.items()}


def convert_layer(source: dict[str, Tensor], index: int) -> dict[str, Tensor]:
    """Return a layer's tensors under the stock names, layer scale folded into the linear."""
    old, new = f"encoder.layer.{index}", f"encoder.layers.{index}"
    state = {
        f"{target}.{suffix}": source[f"{name}.{suffix}"]
        for target, name in layer_names(index).items()
        for suffix in ("weight", "bias")
    }
    for linear, scale in (("self_attn.out_proj", "layer_scale1"), ("mlp.fc2", "layer_scale2")):
        factor = source[f"{old}.{scale}.lambda1"]
        state[f"{new}.{linear}.weight"] = factor[:, None] * state[f"{new}.{linear}.weight"]
        state[f"{new}.{linear}.bias"] = factor * state[f"{new}.{linear}.bias"]
    return state
