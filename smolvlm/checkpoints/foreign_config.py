"""A configuration from elsewhere, in; transformers' object of it, out, and nothing run for it.

Before transformers sees a `config.json`, its model type and its sizes are looked at here: an
unknown type would make it offer to run code that lies beside, and sizes of 10^9 layers would be
built. What names a program to fetch (attention kernels of the hub) is dropped: attention is the
package's own.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.config.problems import shown_text
from smolvlm.errors import ConfigError, SmolVLMError

_MOST: Mapping[str, int] = {
    "num_hidden_layers": 2048,
    "num_attention_heads": 1 << 12,
    "num_key_value_heads": 1 << 12,
    "hidden_size": 1 << 17,
    "intermediate_size": 1 << 19,
    "head_dim": 1 << 14,
    "vocab_size": 1 << 24,
    "image_size": 1 << 14,
    "patch_size": 1 << 10,
    "num_channels": 64,
}
"""Size -> the most that is taken for one: far above every published model's."""
_TOWERS = ("text_config", "vision_config")


def read_foreign_config(
    path: str, file: Path, *, model_types: Collection[str] | None
) -> PreTrainedConfig:
    """Return the configuration that a `config.json` describes.

    Args:
        path: hub id or folder of a checkpoint from elsewhere.
        file: its config.json.
        model_types: those that it may be of; None is any that transformers itself has.

    Raises:
        ConfigError: it is no JSON, of another model type, of impossible sizes, or transformers
            cannot read it.
    """
    content = read_object(file)
    written = content.get("model_type")
    if model_types is not None and written not in model_types:
        what = f"model type {str(written)[:60]} is not of the SmolVLM family"
        fix = "use SmolVLM, SmolVLM2 or an Idefics3-type checkpoint"
        raise ConfigError(f"{what} ({', '.join(model_types)})", where=path, fix=fix)
    if model_types is not None:
        _check_towers(content, path)
    for name, part in _parts(content):
        _check_sizes(name, part, file)
    try:
        config: Any = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (SmolVLMError, MemoryError):
        raise
    except Exception as error:  # of transformers, of its strict data classes, of Python
        reason = shown_text(str(error).strip() or type(error).__name__)
        raise ConfigError(
            f"cannot read config.json: {reason}",
            where=path,
            fix="use the config.json that belongs to the weights",
        ) from error
    for part in (config, *(getattr(config, name, None) for name in _TOWERS)):
        if part is not None:
            part._attn_implementation = None
    return config


def _check_towers(content: Mapping[str, Any], path: str) -> None:
    for name in _TOWERS:
        if not isinstance(content.get(name), dict):
            what = f"config.json has no {name}, so nothing says what the weights are"
            raise ConfigError(what, where=path, fix="download the file again")


def _parts(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "", content
    for name in _TOWERS:
        if isinstance(part := content.get(name), dict):
            yield f"{name}.", part


def _check_sizes(name: str, part: Mapping[str, Any], file: Path) -> None:
    for key, most in _MOST.items():
        value = part.get(key)
        if value is None:
            continue
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or not 1 <= value <= most:
            what = f"{name}{key} is {str(value)[:60]}, no size between 1 and {most:,}"
            fix = "use the config.json that belongs to the weights"
            raise ConfigError(what, where=str(file), fix=fix)
