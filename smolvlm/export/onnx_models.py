"""The stock model as three ONNX graphs: pixels to features, ids to embeddings, those to logits.

In: a stock model in float32. Out: `vision_encoder.onnx` (tower and connector), `embed_tokens.onnx`
and `decoder_model_merged.onnx` (language model and head, with its cache), under the names and with
the axis names that transformers.js looks for. Tiles are always whole, so the tower's positions are
constants; the mask of pixels is an input since programs send it, and changes nothing.
"""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from smolvlm.model.flops import head_width

VISION, EMBEDDINGS, DECODER = "vision_encoder", "embed_tokens", "decoder_model_merged"
MAX_INLINE_BYTES = 1_900_000_000
"""Larger weights lie in a file beside the graph: a protobuf holds 2 GiB."""
_AUTO = torch.export.Dim.AUTO
_BATCH = "batch_size"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graph:
    """One module, and how it is traced."""

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    axes: tuple[tuple[str, dict[int, str]], ...]
    """Each input's name, and the names of its axes that vary."""
    outputs: tuple[str, ...]


def write_graphs(model: Any, folder: Path) -> list[Path]:
    """Export a stock model; return the graphs' files.

    Args:
        model: a stock class in float32, in evaluation mode.
        folder: exists.
    """
    written: list[Path] = []
    for graph in (_vision(model), _embeddings(model), _decoder(model)):
        path = folder / f"{graph.name}.onnx"
        _export(graph, path)
        _name_axes(path, graph)
        written.append(path)
    return written


class _Vision(nn.Module):
    """Tiles (batch, tile, 3, side, side) to features (batch * tile, token, hidden)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.tower, self.connector = model.model.vision_model, model.model.connector

    def forward(self, pixel_values: Tensor, pixel_attention_mask: Tensor) -> Tensor:
        """Return the connector's features; the mask is read and left without effect."""
        embeddings = self.tower.embeddings
        patches = embeddings.patch_embedding(pixel_values.flatten(0, 1))
        hidden = patches.flatten(2).transpose(1, 2) + embeddings.position_embedding.weight[None]
        hidden = hidden + 0 * pixel_attention_mask.flatten(0, 1)[:, :1, :1].to(hidden.dtype)
        for layer in self.tower.encoder.layers:
            output = layer(hidden, None)
            hidden = output[0] if isinstance(output, tuple) else output
        return self.connector(self.tower.post_layernorm(hidden))


class _Decoder(nn.Module):
    """Embeddings and the cache so far to logits and the cache, one pair of tensors a layer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.language_model, self.head = model.model.text_model, model.lm_head

    def forward(
        self, inputs_embeds: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        """Return logits (batch, seq, vocabulary), then keys and values of every layer."""
        cache: Any = DynamicCache()
        for layer in range(len(past) // 2):
            cache.update(past[2 * layer], past[2 * layer + 1], layer)
        output = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        layers = output.past_key_values.layers
        present = [each for layer in layers for each in (layer.keys, layer.values)]
        return self.head(output.last_hidden_state), *present


def cache_names(num_layers: int) -> list[str]:
    """Return the names of the cache's inputs, in order."""
    return [f"past_key_values.{layer}.{k}" for layer in range(num_layers) for k in ("key", "value")]


def _vision(model: Any) -> _Graph:
    side = model.config.vision_config.image_size
    tiles = {0: _BATCH, 1: "num_images"}
    return _Graph(
        name=VISION,
        module=_Vision(model),
        inputs=(torch.rand(2, 3, 3, side, side), torch.ones(2, 3, side, side, dtype=torch.bool)),
        axes=(("pixel_values", tiles), ("pixel_attention_mask", tiles)),
        outputs=("image_features",),
    )


def _embeddings(model: Any) -> _Graph:
    return _Graph(
        name=EMBEDDINGS,
        module=model.get_input_embeddings(),
        inputs=(torch.ones(2, 7, dtype=torch.long),),
        axes=(("input_ids", {0: _BATCH, 1: "sequence_length"}),),
        outputs=("inputs_embeds",),
    )


def _decoder(model: Any) -> _Graph:
    text = model.config.text_config
    batch, past, new = 2, 5, 7
    names = cache_names(text.num_hidden_layers)
    shape = (batch, text.num_key_value_heads, past, head_width(text))
    positions = torch.arange(past, past + new)[None].repeat(batch, 1)
    sequence = {0: _BATCH, 1: "sequence_length"}
    cache_axes = {0: _BATCH, 2: "past_sequence_length"}
    return _Graph(
        name=DECODER,
        module=_Decoder(model),
        inputs=(
            torch.rand(batch, new, text.hidden_size),
            torch.ones(batch, past + new, dtype=torch.long),
            positions,
            *(torch.rand(shape) for _ in names),
        ),
        axes=(
            ("inputs_embeds", sequence),
            ("attention_mask", {0: _BATCH, 1: "total_sequence_length"}),
            ("position_ids", sequence),
            *((name, cache_axes) for name in names),
        ),
        outputs=("logits", *(name.replace("past_key_values", "present") for name in names)),
    )


def _export(graph: _Graph, path: Path) -> None:
    varying = [dict.fromkeys(axes, _AUTO) for _, axes in graph.axes]
    is_decoder = graph.name == DECODER
    # A function's *past is one argument to torch.export.
    shapes = (*varying[:3], tuple(varying[3:])) if is_decoder else tuple(varying)
    num_bytes = sum(each.numel() * each.element_size() for each in graph.module.parameters())
    levels = [(logging.getLogger(name), logging.ERROR) for name in ("torch.onnx", "onnxscript")]
    before = [logger.level for logger, _ in levels]
    try:
        for logger, level in levels:
            logger.setLevel(level)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of torch's and onnxscript's own making
            torch.onnx.export(
                graph.module.eval(),
                graph.inputs,
                str(path),
                dynamo=True,
                verbose=False,
                input_names=[name for name, _ in graph.axes],
                output_names=list(graph.outputs),
                dynamic_shapes=shapes,
                external_data=num_bytes > MAX_INLINE_BYTES,
            )
    finally:
        for (logger, _), level in zip(levels, before, strict=True):
            logger.setLevel(level)


def _name_axes(path: Path, graph: _Graph) -> None:
    """Give the inputs' axes their names: transformers.js makes the empty cache by them."""
    content = onnx.load(str(path), load_external_data=False)
    by_name = dict(graph.axes)
    for value in content.graph.input:
        dims: Sequence[Any] = value.type.tensor_type.shape.dim
        for axis, name in by_name[value.name].items():
            dims[axis].dim_param = name
    onnx.save(content, str(path))
