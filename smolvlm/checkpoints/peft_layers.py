"""peft's layers in a model, and its folders: the one file that knows how peft does it (tried with
0.21).

tests/checkpoints/test_adapters.py holds what is written here against what peft itself loads.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.checkpoints.weight_files import check_weight_file, read_tensors
from smolvlm.errors import ConfigError, located
from smolvlm.model.towers import is_adapter
from smolvlm.protocols import VisionLanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What stands before every name in an adapter's file."""
NAME = "default"
"""What peft calls the one adapter of a model."""
NO_LAYERS = "dummy-target-modules"
"""What peft takes as `target_modules` where an adapter holds token rows alone; an empty list it
refuses."""
MERGE_COMMAND = "smolvlm export FOLDER --to transformers --merge --out DIR"
"""Makes a whole model of an adapter."""


def is_adapter_folder(path: str | Path) -> bool:
    """Say whether a path is a local folder that holds an adapter."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def base_of(folder: str | Path) -> str:
    """Return the hub id or folder of the model that an adapter was trained on.

    Raises:
        ConfigError: the folder does not say it.
    """
    content = _adapter_settings(Path(folder))
    if not content.get("base_model_name_or_path"):
        fix = "write the base's hub id or folder there as base_model_name_or_path"
        raise ConfigError(
            "it names no base model", where=str(Path(folder) / ADAPTER_CONFIG), fix=fix
        )
    return str(content["base_model_name_or_path"])


def _adapter_settings(folder: Path) -> dict[str, Any]:
    """Return what `adapter_config.json` holds."""
    path = folder / ADAPTER_CONFIG
    return read_object(path)


def check_adapter_file(folder: Path) -> None:
    """Raise ConfigError unless an adapter's weights are there and, by their header, whole."""
    if not (folder / ADAPTER_WEIGHTS).is_file():
        fix = "copy it beside adapter_config.json"
        raise ConfigError(f"no {ADAPTER_WEIGHTS} here", where=str(folder), fix=fix)
    check_weight_file(folder / ADAPTER_WEIGHTS)


def inject(model: nn.Module, config: "LoraConfig", *, seed: int = 0) -> None:
    """Put peft's layers around those that a `LoraConfig` names, in place.

    Their first values are drawn from a seed. They are float32 whatever the base is: bfloat16 loses
    small updates.
    """
    from peft import inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=NAME)
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.float()


def adapter_tensors(
    model: nn.Module, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return an adapter's live tensors by their names in the file.

    Args:
        model: with adapters.
        state_dict: the model's, where it is gathered from several devices.
    """
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, state_dict=state_dict, save_embedding_layers=False)
    return {f"{PREFIX}{name}": value for name, value in state.items()}


def set_dropout(layer: nn.Module, share: float) -> None:
    """Set the share of its inputs that an adapted layer's adapter does not see."""
    dropouts = layer.lora_dropout
    assert isinstance(dropouts, nn.ModuleDict)
    dropouts[NAME] = nn.Dropout(share) if share else nn.Identity()


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Let a model compute as its base does; which parameters train is afterwards as it was."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper)
    ]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(enabled=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(enabled=True)
            layer.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)


def added_weight(layer: "LoraLayer", *, matrix_a: Tensor, matrix_b: Tensor) -> Tensor:
    """Return what two matrices would add to an adapted layer's weight."""
    # In this order: the bits of peft's initialisation.
    return layer.scaling[NAME] * matrix_b @ matrix_a


def fill(live: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Copy a file's tensors into live ones of the same names.

    Raises:
        ConfigError: names or shapes differ.
    """
    differing = sorted(live.keys() ^ tensors.keys()) or [
        name for name, value in live.items() if value.shape != tensors[name].shape
    ]
    if differing:
        raise ConfigError(
            f"{len(differing)} tensors of the adapter do not fit the model, the first "
            f"{differing[0]}",
            fix="use the base that the adapter was trained on",
        )
    with torch.no_grad():
        for name, value in live.items():
            value.copy_(tensors[name])


def load_adapter(model: VisionLanguageModel, folder: Path) -> None:
    """Put a saved adapter, and whole towers saved with it, into its base, in place.

    Raises:
        ConfigError: it is no LoRA adapter, or does not fit the model.
    """
    from peft import LoraConfig

    where = str(folder / ADAPTER_CONFIG)
    peft_type = _adapter_settings(folder).get("peft_type")
    if peft_type != "LORA":
        raise ConfigError(
            f"adapters of type {peft_type} are not known here",
            where=where,
            fix="use LoRA or one of its kin",
        )
    check_adapter_file(folder)
    config = LoraConfig.from_pretrained(str(folder))
    assert isinstance(config, LoraConfig)
    rows = config.trainable_token_indices or {}
    with located(where):
        _check_rows(model, rows if isinstance(rows, dict) else {"embed_tokens": rows})
    whole = tuple(config.modules_to_save or ())
    config.modules_to_save = None  # whole modules are read into place below, not wrapped
    try:
        inject(model, config)
    except ValueError as error:
        raise ConfigError(
            f"peft cannot place it: {error}", where=where, fix="use the base it was trained on"
        ) from error
    tensors = read_tensors(folder / ADAPTER_WEIGHTS)
    plain = {
        f"{PREFIX}{name}": value
        for name, value in model.state_dict().items()
        if f"{PREFIX}{name}" in tensors or is_saved_whole(name, whole)
    }
    with located(str(folder / ADAPTER_WEIGHTS)):
        fill(adapter_tensors(model) | plain, tensors)


def stock_with_adapter(stock: Any, folder: Path) -> Any:
    """Return a stock model with a saved adapter on it as peft itself loads one, its parts trained.

    Of a head that is tied to the embeddings and saved whole, peft makes two copies (and warns).

    Args:
        stock: of a stock class, without adapters; changed in place.
        folder: the adapter's.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        # peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
        old_name = "`is_gradient_checkpointing` is deprecated"
        warnings.filterwarnings("ignore", message=old_name, category=FutureWarning)
        tied = "Model has `tie_word_embeddings=True` and a tied layer"
        warnings.filterwarnings("ignore", message=tied, category=UserWarning)
        return PeftModel.from_pretrained(stock, str(folder), is_trainable=True)


def stock_model_of(stock: Any) -> Any:
    """Return the stock model itself, with the adapter's layers in it where peft put any."""
    from peft import PeftModel

    return stock.get_base_model() if isinstance(stock, PeftModel) else stock


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what trains in a stock model, or in peft's model around one, by its full name in ours.

    peft trains copies of modules that an adapter saves whole; each stands for the module's own.
    """
    copies = f".modules_to_save.{NAME}."
    return {
        name.removeprefix(PREFIX).replace(copies, "."): parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad
    }


def is_saved_whole(name: str, modules: Sequence[str]) -> bool:
    """Say whether a tensor is of a module that an adapter saves whole, as peft finds it: by the end
    of its name."""
    owners = name.split(".")[:-1]
    return any(
        module.split(".") == owners[start : start + module.count(".") + 1]
        for module in modules
        for start in range(len(owners))
    ) and not is_adapter(name)


def _check_rows(model: VisionLanguageModel, ids: Mapping[str, Sequence[int]]) -> None:
    num_rows = model.get_input_embeddings().weight.shape[0]
    needed = max((max(numbers) + 1 for numbers in ids.values()), default=0)
    if needed > num_rows:
        what = f"it has rows of {needed:,} ids, and its base {num_rows:,}"
        fix = "give the base the tokens: smolvlm build --base BASE --add-token TOKEN ... --out DIR"
        raise ConfigError(what, fix=fix)


def merge_adapter(model: VisionLanguageModel) -> None:
    """Add an adapter to the weights of its model, in place; the layers are the stock ones again."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import TrainableTokensWrapper

    rows = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, TrainableTokensWrapper)
    }
    for name, wrapper in rows.items():
        model.set_submodule(
            name,
            wrapper.unload_and_optionally_merge_module(True, safe_merge=True, adapter_names=None),
        )
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    for name, layer in layers.items():
        layer.merge(safe_merge=True)
        model.set_submodule(name, layer.get_base_layer())
    model.requires_grad_(True)
    del model.peft_config
