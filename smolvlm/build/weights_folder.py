"""Tensors of a checkpoint folder, read one by one out of its safetensors files.

In: a folder with `model.safetensors`, or shards and their index. Out: names and shapes from the
headers alone, and the tensors that are asked for, in float32: a tower is taken out of a full
vision-language checkpoint without reading the rest. Only plain floating-point weights are taken;
quantised ones are refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from smolvlm.checkpoints.foreign_config import read_foreign_config
from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.checkpoints.weight_files import indexed_files, open_tensors
from smolvlm.errors import ConfigError

_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsFolder:
    """Which file holds each tensor."""

    folder: Path
    files: Mapping[str, Path]

    def prefix_of(self, ending: str, *, what: str) -> str:
        """Return what stands before `ending` in the one tensor's name that ends so.

        Raises:
            ConfigError: no tensor, or several, end so.
        """
        matches = sorted(
            name for name in self.files if name == ending or name.endswith("." + ending)
        )
        if len(matches) == 1:
            return matches[0].removesuffix(ending)
        message = (
            f"{len(matches)} tensors end in {ending}: {', '.join(matches)}"
            if matches
            else f"no tensor ends in {ending}"
        )
        raise ConfigError(
            message,
            where=str(self.folder),
            fix=f"give a folder that holds the weights of one {what}",
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape from its file's header."""
        with open_tensors(self._file(name)) as file:
            return tuple(file.get_slice(name).get_shape())

    def read(self, names: Mapping[str, str]) -> dict[str, Tensor]:
        """Return tensors in float32.

        Args:
            names: what each is called in the result -> what it is called in the files.

        Raises:
            ConfigError: some are missing, or are not plain floating-point numbers.
        """
        self.check(names.values())
        by_file: dict[Path, list[tuple[str, str]]] = {}
        for new, old in names.items():
            by_file.setdefault(self.files[old], []).append((new, old))
        tensors: dict[str, Tensor] = {}
        for path, pairs in by_file.items():
            with open_tensors(path) as file:
                for new, old in pairs:
                    tensors[new] = self._plain(old, file.get_tensor(old))
        return {name: tensors[name] for name in names}

    def check(self, names: Iterable[str]) -> None:
        """Raise ConfigError where tensors of these names are missing."""
        missing = [name for name in names if name not in self.files]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ConfigError(
                f"tensors are missing: {', '.join(missing[:3])}{more}",
                where=str(self.folder),
                fix="download all weight files again; config.json must be the one that belongs to "
                "them",
            )

    def _file(self, name: str) -> Path:
        self.check([name])
        return self.files[name]

    def _plain(self, name: str, tensor: Tensor) -> Tensor:
        if tensor.dtype not in _FLOATS:
            raise _quantised(self.folder, f"{name} is stored as {tensor.dtype}")
        return tensor.float()


def open_weights(folder: Path) -> WeightsFolder:
    """Find the tensors of a folder; only headers are read.

    Raises:
        ConfigError: there are no safetensors files, a shard is missing, or one cannot be read.
    """
    if (folder / _INDEX).is_file():
        files = {name: folder / file for name, file in indexed_files(folder / _INDEX).items()}
        missing = sorted({path.name for path in files.values() if not path.is_file()})
        if missing:
            fix = "download these files too, or convert the checkpoint to one model.safetensors"
            raise ConfigError(
                f"weight files are missing: {', '.join(missing)}", where=str(folder), fix=fix
            )
        return WeightsFolder(folder=folder, files=files)
    whole = folder / _WHOLE
    if not whole.is_file():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        raise ConfigError(
            f"no {_WHOLE} here" + (f", only {', '.join(pickles)}" if pickles else ""),
            where=str(folder),
            fix="download the safetensors weights, or save the model with save_pretrained(folder)",
        )
    with open_tensors(whole) as file:
        return WeightsFolder(folder=folder, files=dict.fromkeys(file.keys(), whole))


def model_type_of(folder: Path) -> str:
    """Return the model type that a folder's config.json names.

    Raises:
        ConfigError: no such folder, no config.json, none named, or weights that are quantised.
    """
    path = folder / "config.json"
    if not path.is_file():
        what = "no config.json here" if folder.is_dir() else "no such folder"
        raise ConfigError(
            what,
            where=str(folder),
            fix="give a checkpoint's folder: config.json and its safetensors",
        )
    content = read_object(path)
    if "quantization_config" in content:
        raise _quantised(folder, "config.json has a quantization_config")
    if "model_type" not in content:
        fix = "give a folder of transformers' layout"
        raise ConfigError("it names no model_type", where=str(path), fix=fix)
    return str(content["model_type"])


def read_config(folder: Path) -> PreTrainedConfig:
    """Return a folder's configuration, with the library's defaults for what it leaves out.

    Raises:
        ConfigError: transformers cannot read it.
    """
    return read_foreign_config(str(folder), folder / "config.json", model_types=None)


def _quantised(folder: Path, what: str) -> ConfigError:
    fix = (
        "take the checkpoint in float32, bfloat16 or float16; a built model can be quantised when "
        "it is trained"
    )
    return ConfigError(
        f"{what}: quantised weights cannot be built upon", where=str(folder), fix=fix
    )
