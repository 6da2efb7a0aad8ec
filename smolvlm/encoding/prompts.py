"""A checkpoint's processor, read once: how it cuts pictures and what its prompts are made of.

In: a transformers processor (Idefics3Processor, SmolVLMProcessor). Out: `PromptSettings`. Nothing that a processor
carries is hard-coded, and the processor itself is never changed.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from smolvlm.encoding.encode import Encoder, LossWeighting
from smolvlm.encoding.tokens import PromptTokens, TextEncoder, read_prompt_tokens
from smolvlm.errors import ConfigError
from smolvlm.media.geometry import TileSettings, check_tile_settings

LANCZOS = 1
"""Pillow's number of the filter, which processor files carry as `resample`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSettings:
    """What encoding needs to know of a checkpoint."""

    tokens: PromptTokens
    text: TextEncoder
    tiles: TileSettings

    @property
    def missing_tags(self) -> bool:
        """Whether pictures are cut though the vocabulary has no row and column tags (the first 2.2B checkpoint).

        Its tags then fall apart into pieces of text that were never learned.
        """
        return self.tiles.image_splitting and any(len(ids) > 1 for ids in self.tokens.row_column.values())

    @property
    def identity(self) -> str:
        """A digest that is equal where every prompt is: tokens, tokenizer, tiles."""
        parts = repr((self.tokens, self.tiles)).encode() + self.text.definition().encode()
        return blake2b(parts, digest_size=12).hexdigest()

    def encoder(self, *, loss_weighting: LossWeighting = "token") -> Encoder:
        return Encoder(tokens=self.tokens, text=self.text, loss_weighting=loss_weighting)


def read_prompt_settings(
    processor: Any, *, image_splitting: bool | None = None, longest_edge_px: int | None = None, where: str = "processor"
) -> PromptSettings:
    """Read a processor.

    Args:
        processor: the checkpoint's; untouched.
        image_splitting: cut pictures into tiles, or show the global view alone; None is the processor's own choice.
        longest_edge_px: scale the longest edge to this; None is the processor's own.
        where: what an error calls the checkpoint.

    Raises:
        ConfigError: a needed token is missing, or the sizes do not fit each other.
    """
    images, tokenizer = processor.image_processor, processor.tokenizer
    if int(images.resample) != LANCZOS:
        raise ConfigError(
            f"the processor resizes with resample={int(images.resample)}, the family's is LANCZOS ({LANCZOS})",
            where=where,
            fix="set resample to 1 in preprocessor_config.json",
        )
    tiles = TileSettings(
        tile_side_px=int(images.max_image_size["longest_edge"]),
        longest_edge_px=int(longest_edge_px or images.size["longest_edge"]),
        image_splitting=bool(images.do_image_splitting) if image_splitting is None else image_splitting,
    )
    check_tile_settings(tiles)
    backend = tokenizer.backend_tokenizer  # as load_processor restored it, with the digits splitting of tokenizer.json
    tokens = read_prompt_tokens(
        backend, tokens_per_tile=int(processor.image_seq_len), pad=int(tokenizer.pad_token_id), where=where
    )
    return PromptSettings(tokens=tokens, text=TextEncoder(backend), tiles=tiles)
