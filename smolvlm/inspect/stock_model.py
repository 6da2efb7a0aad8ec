"""What a run trains, as the stock class: for the comparison packed = alone.

In: a run's settings. Out: a model of the stock class in float64, its new tokens, its scaled context
and its quantised weights with it, adapters by peft itself. Quantised layers become ordinary ones
that hold what the run's layers compute with: the same bits are read, so only the packing differs.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from smolvlm.checkpoints.load import WeightFormat, load_processor, read_model_config
from smolvlm.checkpoints.new_tokens import add_rows, placement_of
from smolvlm.checkpoints.peft_layers import base_of, is_adapter_folder, stock_with_adapter
from smolvlm.checkpoints.whole_weights import load_whole
from smolvlm.config.schema import RunConfig
from smolvlm.errors import located


def stock_at_start(config: RunConfig) -> Any:
    """Return the stock model that a run begins at, without the run's adapters."""
    settings = config.model
    path, dtype = settings.path, getattr(torch, settings.dtype)
    weights = WeightFormat(dtype=dtype, quantization=config.quantization)
    stock = load_whole(
        AutoModelForImageTextToText,
        path,
        config=read_model_config(path, settings.rope_scaling),
        dtype=dtype,
        **weights.loading_arguments(),
    )
    if config.quantization.bits is not None:
        from smolvlm.checkpoints.quantized_layers import restore_linear_layers, use_exact_matmul

        use_exact_matmul(stock)
        restore_linear_layers(stock, torch.float64)
    if settings.new_tokens:
        with located(path):
            add_rows(stock, placement_of(load_processor(path), settings.new_tokens))
    return stock.double().eval()


def stock_checkpoint(path: str, dtype: torch.dtype) -> Any:
    """Return a saved checkpoint as its stock class; an adapter folder through peft.

    Args:
        path: hub id or folder.
        dtype: of the weights as they are loaded; they are float64 afterwards.
    """
    source = base_of(path) if is_adapter_folder(path) else path
    config = read_model_config(source)
    stock = load_whole(AutoModelForImageTextToText, source, config=config, dtype=dtype)
    stock = stock.double().eval()
    return stock if source == path else stock_with_adapter(stock, Path(path)).eval()
