"""Adapters in the towers: small matrices beside frozen layers, put in, saved and read back through
peft.

In: a model and each tower's `AdapterConfig`. The layers are put into our model in place, so its
forward over packs, its towers' names and the optimizer's groups stay what they are. Out: an adapter
folder as peft knows it, which `peft.PeftModel.from_pretrained(base, folder)` loads, with the
weights of towers that train whole as `modules_to_save`.

Rows of single tokens train by themselves in embeddings and output head (peft's
`trainable_token_indices`); they are saved as they are, in place of the base's.

PiSSA begins at the largest singular directions of the base's weights, taken out of the base. What
is saved adds to the base as it was: the difference of two adapters of rank r, the trained one and
the first one, is one of rank 2 r.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smolvlm.checkpoints.adapter_targets import check_pissa, target_layers
from smolvlm.checkpoints.peft_config import first_of, peft_config, saved_config
from smolvlm.checkpoints.peft_layers import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PREFIX,
    adapter_tensors,
    added_weight,
    fill,
    inject,
    set_dropout,
)
from smolvlm.checkpoints.weight_files import read_tensors
from smolvlm.config.adapters import AdapterConfig
from smolvlm.errors import ConfigError, located
from smolvlm.model.towers import TOWERS, Tower, is_token_rows, tower_of
from smolvlm.protocols import VisionLanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapters:
    """The adapters in a model that is trained: how they are saved, and read back."""

    peft_config: "LoraConfig"
    """peft's, with full names of layers; as it is saved."""
    num_layers: Mapping[Tower, int]
    """How many layers each adapted tower has an adapter in."""
    configs: Mapping[Tower, AdapterConfig]
    whole: tuple[Tower, ...]
    """Towers that train all their weights; they are saved with the adapter."""
    token_rows: Mapping[str, Sequence[int]]
    """Ids whose rows train by themselves, by the matrix that they stand in."""
    first: Mapping[str, Tensor]
    """PiSSA: the matrices that the base's weights were taken apart into, by their names in the
    file; else empty."""

    def save(
        self, model: nn.Module, folder: Path, state_dict: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write an adapter folder; the processor's files are not this function's.

        Args:
            model: as it was trained.
            folder: made where it is missing.
            state_dict: the model's, where it is gathered from several devices.
        """
        tensors = adapter_tensors(model, state_dict) | _whole_tensors(model, self.whole, state_dict)
        saved = {
            name: self._on_the_base(name, value).detach().cpu().clone()
            for name, value in tensors.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file(saved, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        content = self.peft_config.to_dict()
        text = json.dumps(content, indent=2, sort_keys=True, default=sorted)
        (folder / ADAPTER_CONFIG).write_text(text + "\n")

    def restore(self, model: nn.Module, folder: Path) -> None:
        """Read back what `save` wrote; training resumes from it to the bit."""
        tensors = read_tensors(folder / ADAPTER_WEIGHTS)
        for name, first in self.first.items():
            tensors[name] = tensors[name].split(
                first.shape[_rank_axis(name)], dim=_rank_axis(name)
            )[0]
        with located(str(folder / ADAPTER_WEIGHTS)):
            fill(adapter_tensors(model) | _whole_tensors(model, self.whole), tensors)

    def _on_the_base(self, name: str, value: Tensor) -> Tensor:
        """Return a tensor as it adds to the untouched base.

        Where the first matrices were taken out of the base, A stands over A0 and B beside -B0.
        """
        if name not in self.first:
            return value
        first = self.first[name].to(value)
        return torch.cat([value, -first if _rank_axis(name) else first], dim=_rank_axis(name))

    def __str__(self) -> str:
        lines = [
            f"{tower:<16}{config.type} of rank {config.r} in {self.num_layers[tower]} layers"
            for tower, config in self.configs.items()
        ]
        lines += [
            f"{'token rows':<16}{len(ids)} of {matrix}" for matrix, ids in self.token_rows.items()
        ]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedBeside:
    """What trains besides the adapters."""

    whole: Collection[Tower] = ()
    """Other towers, with all their weights."""
    token_rows: Sequence[int] = ()
    """Ids whose rows train in embeddings and output head, where an adapter does not train these
    whole."""


NOTHING_BESIDE = TrainedBeside()


def attach_adapters(
    model: VisionLanguageModel,
    adapters: Mapping[Tower, AdapterConfig],
    *,
    base: str,
    seed: int,
    beside: TrainedBeside = NOTHING_BESIDE,
    resume: Path | None = None,
) -> Adapters:
    """Put adapters into a model, in place; which parameters train is not decided here.

    Args:
        model: one of `MODEL_CLASSES`, without adapters.
        adapters: by tower, all of one type; none where token rows train alone.
        base: hub id or folder of the model's weights, for the saved folder to name.
        seed: of the adapters' first values.
        beside: what else trains.
        resume: the adapter folder that training resumes from.

    Raises:
        ConfigError: a pattern names no layer of its tower, or one that cannot be adapted.
    """
    layers: dict[Tower, list[str]] = {
        tower: target_layers(model, tower, adapter.targets) for tower, adapter in adapters.items()
    }
    is_pissa = first_of(adapters).type == "pissa"
    if is_pissa:
        check_pissa(model, layers, adapters)
    names = [name for tower_layers in layers.values() for name in tower_layers]
    rows = _rows_by_matrix(model, beside.token_rows, adapted=names)
    config = peft_config(adapters, names, rows, base=base, is_resumed=resume is not None)
    saved = saved_config(config, whole=beside.whole, doubled=is_pissa)
    inject(model, config, seed=seed)
    for tower, adapter in adapters.items():
        for name in layers[tower]:
            set_dropout(model.get_submodule(name), adapter.dropout)
    first = {}
    if is_pissa:
        first = _first_matrices(model) if resume is None else _take_out(model, resume)
    return Adapters(
        peft_config=saved,
        num_layers={tower: len(tower_layers) for tower, tower_layers in layers.items()},
        configs=dict(adapters),
        whole=tuple(tower for tower in TOWERS if tower in beside.whole),
        token_rows=rows,
        first=first,
    )


def _rows_by_matrix(
    model: VisionLanguageModel, ids: Sequence[int], *, adapted: Collection[str]
) -> dict[str, Sequence[int]]:
    """Return the rows that train, by matrix; a matrix with an adapter trains through that."""
    if not ids:
        return {}
    if model.get_input_embeddings().weight is model.get_output_embeddings().weight:
        what = (
            "embeddings and output head are one matrix in this model, whose rows cannot train by "
            "themselves"
        )
        raise ConfigError(what, where="model.new_tokens", fix="train the language model in full")
    return {
        name: ids for name in ("model.text_model.embed_tokens", "lm_head") if name not in adapted
    }


def _whole_tensors(
    model: nn.Module, towers: Collection[Tower], state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return all live tensors of some towers by their names in the file."""
    state = model.state_dict() if state_dict is None else state_dict
    return {f"{PREFIX}{name}": value for name, value in state.items() if tower_of(name) in towers}


def _rank_axis(name: str) -> int:
    """Return the axis of a matrix that is as long as the rank."""
    return 1 if ".lora_B." in name else 0


def _first_matrices(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in _matrices(model).items()}


def _matrices(model: nn.Module) -> dict[str, Tensor]:
    """Return the adapters' live matrices by their names in the file, without the rows of tokens."""
    return {
        name: value for name, value in adapter_tensors(model).items() if not is_token_rows(name)
    }


def _take_out(model: nn.Module, folder: Path) -> dict[str, Tensor]:
    """Re-apply the PiSSA subtraction of the run being resumed; return the matrices.

    Nothing is decomposed again, which need not give the same bits: the folder holds the matrices.
    """
    tensors = read_tensors(folder / ADAPTER_WEIGHTS)
    first: dict[str, Tensor] = {}
    for name in _matrices(model):
        half = tensors[name].chunk(2, dim=_rank_axis(name))[1]
        first[name] = (-half if _rank_axis(name) else half).contiguous()
    for name in {name.rpartition(".lora_")[0] for name in first}:
        layer = cast("LoraLayer", model.get_submodule(name.removeprefix(PREFIX)))
        weight = layer.get_base_layer().weight
        assert isinstance(weight, Tensor)
        weight.data -= added_weight(
            layer,
            matrix_a=first[f"{name}.lora_A.weight"],
            matrix_b=first[f"{name}.lora_B.weight"],
        )
    with located(str(folder / ADAPTER_WEIGHTS)):
        fill(_matrices(model), first)  # until the trained ones are read, the model is its base
    return first
