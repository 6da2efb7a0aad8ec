"""The ViT-S/14 of an ONNX file, in the stock SmolVLM vision class.

In: the ONNX weights (DINOv2's layout: class token, layer scale, ImageNet pixel statistics). Out: a
state dict for the stock tower, which has none of these. Layer scale folds into the linear before
it, the pixel statistics into the patch embedding, positions are interpolated to the tile: all
exact. The class token has no place in the stock class and is dropped, which is not exact: deep
features change by much, those of the first layers by little.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smolvlm.build.configs import VisionDimensions
from smolvlm.build.optional_packages import read_with
from smolvlm.build.part import VisionPart
from smolvlm.build.tower_tensors import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NO_CLASS_TOKEN,
    convert_layer,
    resize_positions,
)

SMOLVLM_MEAN = 0.5
SMOLVLM_STD = 0.5
VIT_S14 = VisionDimensions(
    tile_side_px=518,
    patch_size_px=14,
    hidden_size=384,
    num_layers=12,
    num_heads=6,
    intermediate_size=1536,
    activation="gelu",
)
"""The ONNX file's tower, at the side that it was trained with."""
NUM_LAYERS = VIT_S14.num_layers
_PATCH_SIZE_PX = VIT_S14.patch_size_px


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxWeights:
    """The ONNX file's tensors by name; linears as (out, in) under their layer's name."""

    tensors: dict[str, Tensor]
    class_position: Float[Tensor, "1 hidden"]
    """Position embedding of the class token."""
    positions: Float[Tensor, "patch hidden"]
    """Position embeddings of the square of patches, row by row."""


def vision_dimensions(*, tile_side_px: int, num_layers: int) -> VisionDimensions:
    """Return the converted tower's shape.

    Raises:
        ValueError: the side is not a multiple of 14 pixels, or the layers are not 1 to 12.
    """
    if tile_side_px % _PATCH_SIZE_PX or tile_side_px <= 0:
        raise ValueError(f"tile_side_px={tile_side_px} is not a multiple of {_PATCH_SIZE_PX}")
    if not 1 <= num_layers <= NUM_LAYERS:
        raise ValueError(f"num_layers={num_layers} is not 1 to {NUM_LAYERS}")
    return replace(VIT_S14, tile_side_px=tile_side_px, num_layers=num_layers)


def vit_s14(path: Path) -> VisionPart:
    """Return the ONNX file's tower as a part; nothing is read yet."""

    def read(num_layers: int) -> dict[str, Tensor]:
        return convert_tower(
            read_onnx(path), tile_side_px=VIT_S14.tile_side_px, num_layers=num_layers
        )

    kind = "ViT-S/14 of DINOv2's layout, ONNX"
    return VisionPart(
        where=str(path), kind=kind, dimensions=VIT_S14, read=read, notes=(NO_CLASS_TOKEN,)
    )


def read_onnx(path: Path) -> OnnxWeights:
    """Read the tower's tensors; find the nameless linears through the nodes that use them."""
    with read_with("onnx"):
        import onnx
        from onnx import numpy_helper

    graph = onnx.load(path).graph
    stored = {item.name: item for item in graph.initializer}

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(numpy_helper.to_array(stored[name])))

    tensors = {
        name.removeprefix("backbone."): tensor(name)
        for name in stored
        if name.startswith("backbone.")
    }
    for node in graph.node:
        nameless = [name for name in node.input if name in stored]
        if node.op_type == "MatMul" and node.name.startswith("/backbone/encoder/") and nameless:
            layer = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            tensors[f"{layer}.weight"] = tensor(nameless[0]).T.contiguous()
    by_node = {node.name: node for node in graph.node}
    return OnnxWeights(
        tensors=tensors,
        class_position=tensor(by_node["/backbone/embeddings/Concat_6"].input[0])[0],
        positions=tensor(by_node["/backbone/embeddings/Reshape_1"].input[0])[0],
    )


def convert_tower(weights: OnnxWeights, *, tile_side_px: int, num_layers: int) -> dict[str, Tensor]:
    """Return a state dict for the stock vision class, for pixels normalised by mean = std = 0.5.

    Args:
        weights: of `read_onnx`.
        tile_side_px: side of a tile; a multiple of 14.
        num_layers: how many of the 12 layers to keep, from the first.
    """
    source = weights.tensors
    patch_weight, patch_bias = fold_pixel_statistics(
        source["embeddings.patch_embeddings.projection.weight"],
        source["embeddings.patch_embeddings.projection.bias"],
    )
    state = {
        "embeddings.patch_embedding.weight": patch_weight,
        "embeddings.patch_embedding.bias": patch_bias,
        "embeddings.position_embedding.weight": resize_positions(
            weights.positions, patches_per_side=tile_side_px // _PATCH_SIZE_PX
        ),
        "post_layernorm.weight": source["layernorm.weight"],
        "post_layernorm.bias": source["layernorm.bias"],
    }
    for index in range(num_layers):
        state.update(convert_layer(source, index))
    return state


def fold_pixel_statistics(
    weight: Float[Tensor, "hidden 3 side side"], bias: Float[Tensor, " hidden"]
) -> tuple[Float[Tensor, "hidden 3 side side"], Float[Tensor, " hidden"]]:
    """Fold ImageNet's mean and std into a patch embedding that then takes (x - 0.5) / 0.5."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    scale, shift = SMOLVLM_STD / std, (SMOLVLM_MEAN - mean) / std
    return weight * scale[None, :, None, None], bias + (weight.sum(dim=(2, 3)) * shift).sum(dim=1)
