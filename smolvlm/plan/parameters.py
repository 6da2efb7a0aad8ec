"""What a model's parameters are and take, part by part.

In: a model as a run trains it, with or without values. Out: a `PartSize` for each part: how many
parameters, how many of them train, and the bytes of weights, gradients and the optimizer's state.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

from torch import nn

from smolvlm.model.flops import head_width
from smolvlm.model.towers import is_adapter, tower_of
from smolvlm.plan.quantized import StandInLinear
from smolvlm.plan.trace import LARGE_BYTES
from smolvlm.protocols import VisionLanguageModel

ModelPart = Literal[
    "vision tower", "connector", "language layers", "embeddings", "output head", "adapters"
]
PARTS: tuple[ModelPart, ...] = get_args(ModelPart)

VALUES_A_PARAMETER: Mapping[str, float] = {
    "adamw": 2,
    "adam": 2,
    "sgd": 0,
    "adafactor": 0,
    "adagrad": 1,
    "rmsprop": 1,
    "lion": 1,
}
"""Values of an optimizer's state for each parameter, by what its name begins with; Adafactor keeps
a row and a column of each matrix, which is next to nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartSize:
    """One part of a model, or several together."""

    num_parameters: int = 0
    num_trained: int = 0
    weight_bytes: int = 0
    gradient_bytes: int = 0
    optimizer_bytes: int = 0

    def __add__(self, other: "PartSize") -> "PartSize":
        return PartSize(
            **{
                name: getattr(self, name) + getattr(other, name)
                for name in (field.name for field in fields(self))
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShares:
    """Bytes of a model that matter where many devices share it."""

    trained_weights: int
    whole_weights: int
    """What FSDP2 leaves whole on each rank: a frozen tower."""
    root_weights: int
    """Of the unit of embeddings, head and connector, which FSDP2 gathers once a pack."""
    largest_units: int
    """What is gathered at once: the unit of embeddings, head and connector, and two layers."""
    keys_and_values: int
    """Of a typical pack, all layers."""


def model_shares(model: VisionLanguageModel, *, tokens: int, uses_bf16: bool) -> ModelShares:
    """Return what matters where many devices share a model.

    Args:
        model: frozen as it will be trained.
        tokens: of a typical pack.
        uses_bf16: whether keys and values are of bfloat16.
    """
    text = model.config.text_config
    by_layer: dict[str, int] = defaultdict(int)
    has_frozen_tower = not any(
        parameter.requires_grad for parameter in model.model.vision_model.parameters()
    )
    trained = tower = 0
    for name, parameter in model.named_parameters():
        size = parameter.numel() * parameter.element_size()
        is_tower = tower_of(name) == "vision_tower"
        trained += size if parameter.requires_grad else 0
        tower += size if is_tower else 0
        if is_tower and has_frozen_tower:
            continue
        head, _, rest = name.partition(".layers.")
        by_layer[f"{head}.{rest.split('.')[0]}" if rest else "root"] += size
    layers = sorted((size for name, size in by_layer.items() if name != "root"), reverse=True)
    width = 2 if uses_bf16 else 4
    one_layer = 2 * text.num_key_value_heads * head_width(text) * tokens * width
    return ModelShares(
        trained_weights=trained,
        whole_weights=tower if has_frozen_tower else 0,
        root_weights=by_layer["root"],
        largest_units=by_layer["root"] + sum(layers[:2]),
        keys_and_values=one_layer * text.num_hidden_layers,
    )


def total(sizes: Iterable[PartSize]) -> PartSize:
    """Return the sum of some parts."""
    result = PartSize()
    for size in sizes:
        result += size
    return result


def state_bytes(optimizer: str, *, num_parameters: int, itemsize: int) -> int:
    """Return what an optimizer keeps for some parameters.

    Args:
        optimizer: as `train.optim` names it; one that is not known counts as AdamW.
        num_parameters: that it trains.
        itemsize: bytes of each.
    """
    name = optimizer.lower()
    values = next((count for key, count in VALUES_A_PARAMETER.items() if name.startswith(key)), 2)
    is_8bit = "8bit" in name or "bnb" in name
    return int(num_parameters * values * (1 if is_8bit else itemsize))


def part_sizes(model: VisionLanguageModel, *, optimizer: str) -> dict[ModelPart, PartSize]:
    """Return a model's parts; shared parameters count once, with the part that has them first."""
    sizes: dict[ModelPart, PartSize] = {part: PartSize() for part in PARTS}
    stand_ins = {
        f"{name}.weight": layer
        for name, layer in model.named_modules()
        if isinstance(layer, StandInLinear)
    }
    for name, parameter in model.named_parameters():
        layer = stand_ins.get(name)
        count = layer.in_features * layer.out_features if layer else parameter.numel()
        size = parameter.numel() * parameter.element_size()
        if layer is not None:
            size += sum(buffer.numel() * buffer.element_size() for buffer in layer.buffers())
        trained = parameter.numel() if parameter.requires_grad else 0
        sizes[_part_of(name)] += PartSize(
            num_parameters=count,
            num_trained=trained,
            weight_bytes=size,
            gradient_bytes=size if trained else 0,
            optimizer_bytes=state_bytes(
                optimizer, num_parameters=trained, itemsize=parameter.element_size()
            ),
        )
    return sizes


def small_state_bytes(model: nn.Module, *, optimizer: str) -> int:
    """Return what of the optimizer's state lies in blocks up to `LARGE_BYTES`."""
    state = 0
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        own = state_bytes(
            optimizer, num_parameters=parameter.numel(), itemsize=parameter.element_size()
        )
        state += own if parameter.numel() * parameter.element_size() <= LARGE_BYTES else 0
    return state


def restored_bytes(model: nn.Module) -> int:
    """Return what the quantised layers' weights take in the file that they are read from."""
    return sum(
        layer.in_features * layer.out_features * layer.stored_dtype.itemsize
        for layer in model.modules()
        if isinstance(layer, StandInLinear)
    )


def _part_of(name: str) -> ModelPart:
    if is_adapter(name):
        return "adapters"
    if name.startswith("lm_head"):
        return "output head"
    if ".embed_tokens." in name:
        return "embeddings"
    return {
        "vision_tower": "vision tower",
        "connector": "connector",
        "language_model": "language layers",
    }[tower_of(name)]  # pyright: ignore[reportReturnType] - each of the three is a part
