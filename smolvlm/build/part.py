"""What a model is built from: a vision tower and a language model, each known by its shape before
any weight is read.

In: nothing; these are the records that travel between the readers of files (SigLIP, DINOv2, Llama,
GGUF), the plan of a build and its cost card. A part without `read` is a published name: it can be
counted and timed, not built.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from smolvlm.build.configs import VisionDimensions
from smolvlm.build.tokenizer import PromptIds
from smolvlm.build.vocabulary import Vocabulary

HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionPart:
    """A vision tower that fits the stock SmolVLM vision class."""

    where: str
    """The folder, file or name that it was asked for by."""
    kind: str
    """What it is, in words."""
    dimensions: VisionDimensions
    """At the tile side that it was trained with."""
    pixel_mean: tuple[float, float, float] = HALF
    """What the processor subtracts from pixels in [0, 1]."""
    pixel_std: tuple[float, float, float] = HALF
    """What it then divides by."""
    read: Callable[[int], dict[str, Tensor]] | None = None
    """(number of layers, from the first) to the stock class's state dict at the tower's own side,
    float32."""
    notes: tuple[str, ...] = ()
    """What of the source has no place in the stock class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageWeights:
    """A Llama's tensors, float32, vocabulary as stored."""

    state: dict[str, Tensor]
    """Of the text model: `embed_tokens.weight`, `layers.0...`, `norm.weight`."""
    head: Tensor | None
    """(vocabulary, hidden); None where the output head is the embeddings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguagePart:
    """A language model, of Llama's layout or another family's."""

    where: str
    kind: str
    text_config: Mapping[str, Any]
    """What `LlamaConfig` takes, or the configuration of its `model_type`; vocabulary and special
    ids are set by the build."""
    ids: PromptIds
    vocabulary: Callable[[], Vocabulary] | None = None
    """Makes the tokenizer; None for a name without files."""
    read: Callable[[], LanguageWeights] | None = None
    notes: tuple[str, ...] = ()
