"""What a run begins at: the small files of a checkpoint, read once.

In: a hub id or a folder, also of an adapter. Out: a `Base`: its configuration and its processor,
and from them whatever a run asks of the checkpoint: prompts, rows for new tokens, the model itself.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from smolvlm.checkpoints.context import context_tokens
from smolvlm.checkpoints.load import (
    Checkpoint,
    WeightFormat,
    load_processor,
    load_weights,
    read_model_config,
)
from smolvlm.checkpoints.new_tokens import placement_of, with_tokenizer
from smolvlm.checkpoints.vocabulary import Placement
from smolvlm.config.new_tokens import NewToken
from smolvlm.config.quantization import Quantization
from smolvlm.config.rope import RopeScaling
from smolvlm.config.schema import DataConfig, ModelConfig
from smolvlm.datasets.builder import read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import located
from smolvlm.protocols import Processor, VisionLanguageConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """A checkpoint's facts; its weights are still to be read."""

    path: str
    """Hub id or folder, as the run file names it."""
    config: VisionLanguageConfig
    """The model's configuration, its context scaled as asked; not to be changed."""
    processor: Processor
    """With the tokenizer that tokenizer.json describes, without new tokens; not to be changed."""
    new_tokens: tuple[NewToken, ...]
    """Texts that become single ids."""

    @property
    def placement(self) -> Placement:
        """Which ids the new tokens take."""
        with located(self.path):
            return placement_of(self.processor, self.new_tokens)

    def run_processor(self) -> Processor:
        """Return the processor with the new tokens in its tokenizer."""
        return with_tokenizer(self.processor, self.placement) if self.new_tokens else self.processor

    def prompt(self, data: DataConfig) -> PromptSettings:
        """Return what encoding and measuring need to know.

        Raises:
            ConfigError: the processor lacks something, or its sizes and the section's do not fit
                each other.
        """
        context, num_rows = context_tokens(self.config), self.config.text_config.vocab_size
        if self.new_tokens:
            num_rows = max(num_rows, self.placement.num_tokens)
        with located(self.path):
            return read_prompt(
                self.run_processor(), data, context_tokens=context, num_rows=num_rows
            )

    def load(
        self,
        *,
        dtype: torch.dtype = torch.float32,
        quantization: Quantization | None = None,
        device: torch.device | None = None,
    ) -> Checkpoint:
        """Read the weights.

        Args:
            dtype: of the weights in memory.
            quantization: which of them are quantised, and how.
            device: of a quantised model, which is not moved later; None is the CPU.

        Raises:
            ConfigError: they cannot be read, or model and processor do not fit.
        """
        return load_weights(
            self.path,
            config=copy.deepcopy(self.config),
            processor=self.processor,
            new_tokens=self.new_tokens,
            weights=WeightFormat(dtype=dtype, quantization=quantization, device=device),
        )


def read_base(
    path: str, *, new_tokens: Sequence[NewToken] = (), rope_scaling: RopeScaling | None = None
) -> Base:
    """Read a checkpoint's configuration and processor.

    Args:
        path: hub id or folder.
        new_tokens: texts that become single ids.
        rope_scaling: makes its context longer.

    Raises:
        ConfigError: there is no such checkpoint, it is not of the family, or it is incomplete.
    """
    config = read_model_config(path, rope_scaling)
    return Base(
        path=path,
        config=config,
        processor=load_processor(path, is_known=True),
        new_tokens=tuple(new_tokens),
    )


def base_of_run(model: ModelConfig) -> Base:
    """Read what a run's `model` section names; raises as `read_base`."""
    return read_base(model.path, new_tokens=model.new_tokens, rope_scaling=model.rope_scaling)
