"""A checkpoint, from a hub id or a folder: model and processor, checked against each other before
anything runs.

In: a path, also of an adapter folder, which is loaded onto its base. Out: a `Checkpoint`.
`idefics3` and `smolvlm` model types load alike; the type of the checkpoint is kept, so that what is
saved loads wherever the original did.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer
from transformers import AutoProcessor
from transformers.utils.hub import cached_file

from smolvlm.checkpoints.context import scale_context
from smolvlm.checkpoints.foreign_config import read_foreign_config
from smolvlm.checkpoints.new_tokens import add_rows, placement_of, with_tokenizer
from smolvlm.checkpoints.peft_layers import (
    MERGE_COMMAND,
    base_of,
    check_adapter_file,
    is_adapter_folder,
    load_adapter,
)
from smolvlm.checkpoints.processor_keys import check_ids, check_processor, pixel_scaling
from smolvlm.checkpoints.quantization import check_quantized_layers, loading_arguments
from smolvlm.checkpoints.whole_weights import check_weights, load_whole
from smolvlm.config.new_tokens import NewToken
from smolvlm.config.paths import can_be_hub_id
from smolvlm.config.problems import shown_text
from smolvlm.config.quantization import Quantization
from smolvlm.config.rope import RopeScaling
from smolvlm.errors import ConfigError, located
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.vision import check_tile_side, tokens_per_tile
from smolvlm.protocols import Processor, VisionLanguageConfig, VisionLanguageModel


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model with the processor that belongs to it."""

    model: VisionLanguageModel
    processor: Processor
    path: str
    """Hub id or folder, as it was named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFormat:
    """The types of a model's weights in memory."""

    dtype: torch.dtype = torch.float32
    quantization: Quantization | None = None
    """Which of them are quantised, and how; those of an adapter's base, where an adapter is
    loaded."""
    device: torch.device | None = None
    """Of a quantised model, which is not moved later; None is the CPU."""

    def loading_arguments(self) -> dict[str, object]:
        """Return what `from_pretrained` takes for them besides `dtype`; raises as the function of
        this name."""
        if self.quantization is None or self.quantization.bits is None:
            return {}
        device = self.device or torch.device("cpu")
        return loading_arguments(self.quantization, dtype=self.dtype, device=device)


def load_processor(
    path: str, *, new_tokens: Sequence[NewToken] = (), is_known: bool = False
) -> Processor:
    """Load the processor of a checkpoint; the weights are not read.

    Its tokenizer is the one that tokenizer.json describes. transformers 5.23 rebuilds it from
    vocabulary and merges as a GPT-2 tokenizer and so drops the splitting of digits (after two or
    more spaces, and of numerals such as a superscript two), with which the models were trained.

    Args:
        path: hub id or folder.
        new_tokens: texts that its tokenizer then has as single ids; those that it has already stay
            as they are.
        is_known: whether the checkpoint's configuration was read, so that it is there and of the
            family.

    Raises:
        ConfigError: there is no such checkpoint, it is not of the SmolVLM family, or its processor
            is incomplete; or a text cannot become a token.
    """
    if not is_known:
        read_model_config(path)
    if is_adapter_folder(path) and not (Path(path) / "tokenizer.json").is_file():
        return load_processor(base_of(path), new_tokens=new_tokens, is_known=True)
    tokenizer_file = cached_file(
        path, "tokenizer.json", _raise_exceptions_for_missing_entries=False
    )
    if tokenizer_file is None:
        raise ConfigError(
            "no tokenizer.json here", where=path, fix="save the checkpoint with its fast tokenizer"
        )
    try:
        processor = AutoProcessor.from_pretrained(path, trust_remote_code=False)
        processor.tokenizer._tokenizer = Tokenizer.from_file(tokenizer_file)
    except MemoryError:
        raise
    except Exception as error:  # of transformers, of tokenizers, of Python on damaged files
        reason = shown_text(str(error).strip() or type(error).__name__)
        raise ConfigError(
            f"cannot load the processor: {reason}",
            where=path,
            fix="copy preprocessor_config.json, processor_config.json and the tokenizer's files "
            "from the base model",
        ) from error
    check_processor(processor, where=path)
    check_ids(processor.tokenizer._tokenizer, Path(tokenizer_file))
    if not new_tokens:
        return processor
    with located(path):
        return with_tokenizer(processor, placement_of(processor, new_tokens))


def check_place(path: str) -> None:
    """Raise ConfigError for a path that is neither a checkpoint's folder nor a possible hub id.

    The hub is not asked.
    """
    is_local = Path(path).exists() or not can_be_hub_id(path)
    if is_local and not (Path(path) / "config.json").is_file():
        raise ConfigError(
            "no config.json here" if Path(path).is_dir() else "no such folder",
            where=path,
            fix="give a checkpoint's folder (config.json, model.safetensors, processor files) or a "
            "hub id, OWNER/NAME",
        )


def load_checkpoint(
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    new_tokens: Sequence[NewToken] = (),
    rope_scaling: RopeScaling | None = None,
    quantization: Quantization | None = None,
    device: torch.device | None = None,
) -> Checkpoint:
    """Load model and processor, attention by scopes switched on.

    An adapter folder gives its base with the adapter's layers in it, not merged.

    Args:
        path: hub id or folder.
        dtype: of the weights in memory.
        new_tokens: texts that become single ids; those that the checkpoint lacks begin from the
            mean of their pieces.
        rope_scaling: makes its context longer.
        quantization: which of them are quantised; those of an adapter's base, where the path is
            an adapter's.
        device: of a quantised model, which is not moved later; None is the CPU.

    Raises:
        ConfigError: there is no such checkpoint, it is not of the family, or model and processor do
            not fit.
    """
    return load_weights(
        path,
        config=read_model_config(path, rope_scaling),
        processor=load_processor(path, is_known=True),
        new_tokens=new_tokens,
        weights=WeightFormat(dtype=dtype, quantization=quantization, device=device),
    )


def load_weights(
    path: str,
    *,
    config: VisionLanguageConfig,
    processor: Processor,
    new_tokens: Sequence[NewToken] = (),
    weights: WeightFormat,
) -> Checkpoint:
    """Load a model whose configuration and processor are read already; it keeps `config`.

    Raises:
        ConfigError: the weights cannot be read, are not the configuration's model's or not all of
            them, or model and processor do not fit.
    """
    source = base_of(path) if is_adapter_folder(path) else path
    arguments = weights.loading_arguments()
    model_class = MODEL_CLASSES[config.model_type]
    model = load_whole(model_class, source, config=config, dtype=weights.dtype, **arguments)
    if weights.quantization is not None and weights.quantization.bits is not None:
        check_quantized_layers(model, weights.quantization)
    with located(path):
        if new_tokens:
            placement = placement_of(processor, new_tokens)
            add_rows(model, placement)
            processor = with_tokenizer(processor, placement)
        if source != path:
            load_adapter(model, Path(path))
        prepare_model(model, processor)
    return Checkpoint(model=model, processor=processor, path=path)


def check_checkpoint_weights(path: str, config: VisionLanguageConfig) -> None:
    """Check the weights of a model, or those of an adapter's base and the adapter's file, by their
    headers.

    Args:
        path: hub id or folder.
        config: of the model; not changed.

    Raises:
        ConfigError: a file is missing or damaged, or tensors are missing, unknown or misshaped.
    """
    if is_adapter_folder(path):
        check_adapter_file(Path(path))
        path = base_of(path)
    check_weights(path, config)


def prepare_model(model: VisionLanguageModel, processor: Processor) -> None:
    """Give a model of `MODEL_CLASSES` what a pack's forward needs from its processor.

    Raises:
        ConfigError: tile side, tokens a tile or the image token differ between the two.
    """
    images = processor.image_processor
    check_tile_side(model.config, tile_side_px=int(images.max_image_size["longest_edge"]))
    if (expected := tokens_per_tile(model.config)) != processor.image_seq_len:
        raise ConfigError(
            f"the processor writes {processor.image_seq_len} image tokens a tile, the model fills "
            f"{expected}",
            fix=f"set image_seq_len to {expected} in processor_config.json",
        )
    if (
        image_token := processor.tokenizer.convert_tokens_to_ids("<image>")
    ) != model.config.image_token_id:
        raise ConfigError(
            f"<image> is {image_token} in the tokenizer and {model.config.image_token_id} in "
            "config.json",
            fix="use the tokenizer that belongs to the checkpoint",
        )
    model.set_pixel_scaling(pixel_scaling(images))
    model.use_scope_attention()


def _config_file(path: str) -> Path:
    """Return a checkpoint's config.json, downloaded where the path is a hub id.

    Raises:
        ConfigError: it cannot be had.
    """
    if Path(path).is_dir():
        return Path(path) / "config.json"
    try:
        file = cached_file(path, "config.json")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot load the checkpoint: {str(error).splitlines()[0]}",
            where=path,
            fix="check the hub id and the network, or give a local folder",
        ) from error
    assert file is not None, "a missing file is an error"
    return Path(file)


def read_model_config(path: str, rope_scaling: RopeScaling | None = None) -> VisionLanguageConfig:
    """Return a checkpoint's configuration, of an adapter that of its base; read no weights.

    Args:
        path: hub id or folder.
        rope_scaling: makes its context longer.

    Raises:
        ConfigError: there is no such checkpoint, it is not of the family, or its context cannot be
            extended so.
    """
    if is_adapter_folder(path):
        base = base_of(path)
        if is_adapter_folder(base):
            fix = f"merge that first: {MERGE_COMMAND}"
            raise ConfigError(f"its base {base} is an adapter too", where=path, fix=fix)
        return read_model_config(base, rope_scaling)
    check_place(path)
    with located(path):
        foreign = read_foreign_config(path, _config_file(path), model_types=[*MODEL_CLASSES])
    config = cast("VisionLanguageConfig", foreign)
    if getattr(config, "quantization_config", None) is not None:
        fix = (
            "use the model that it was made from; `quantization: {bits: 4}` in a run file "
            "quantises while loading"
        )
        raise ConfigError(
            "its weights are quantised already, nothing could be merged into them",
            where=path,
            fix=fix,
        )
    if rope_scaling is not None:
        scale_context(config, rope_scaling)
    return config
