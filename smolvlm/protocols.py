"""What this package asks of objects that transformers makes: processors, configurations, models.

Names alone: nothing heavy is imported at run time, and no class here is ever instantiated. The real
objects are transformers' Idefics3 and SmolVLM classes, whose own annotations leave most of these
attributes open; each attribute listed here is one that this package reads or sets.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from typing import Self

    import torch
    from tokenizers import AddedToken, Tokenizer
    from torch import Tensor, nn
    from transformers.models.llama.modeling_llama import LlamaModel
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

    Module = nn.Module
else:
    Module = object


JsonObject = dict[str, Any]
"""A JSON file's mapping as read, values unchecked."""


class VisionConfig(Protocol):
    """`config.vision_config`: the vision tower."""

    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    _attn_implementation: str

    def to_json_string(self) -> str: ...


class TextConfig(Protocol):
    """`config.text_config`: the language model."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    max_position_embeddings: int
    rope_parameters: Mapping[str, Any]
    """`rope_type`, `rope_theta` and what that type takes besides."""
    _attn_implementation: str


class VisionLanguageConfig(Protocol):
    """A model's configuration, as `config.json` describes it."""

    model_type: str
    image_token_id: int
    scale_factor: int
    """Patches that the connector joins into one token, along each side."""
    tie_word_embeddings: bool

    @property
    def vision_config(self) -> VisionConfig: ...

    @property
    def text_config(self) -> TextConfig: ...

    def to_json_string(self) -> str: ...


class ImageProcessor(Protocol):
    """`processor.image_processor`: how pictures become tiles."""

    size: Mapping[str, int]
    """`longest_edge` of the whole picture, px."""
    max_image_size: Mapping[str, int]
    """`longest_edge` of a tile, px."""
    resample: int
    do_image_splitting: bool
    do_rescale: bool | None
    do_normalize: bool | None
    rescale_factor: float
    image_mean: Sequence[float]
    image_std: Sequence[float]

    def __call__(self, *inputs: object, **settings: object) -> Mapping[str, Any]: ...

    def to_dict(self) -> JsonObject: ...


class ProcessorTokenizer(Protocol):
    """`processor.tokenizer`, a fast one."""

    backend_tokenizer: "Tokenizer"
    _tokenizer: "Tokenizer"
    """The same; the one that can be set."""
    pad_token_id: int | None
    pad_token: str | None
    bos_token: str | None
    eos_token: str | None
    unk_token: str | None
    chat_template: str | dict[str, str] | None
    added_tokens_decoder: "Mapping[int, AddedToken]"

    def convert_tokens_to_ids(self, token: str) -> int: ...

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str: ...


class Processor(Protocol):
    """A checkpoint's processor; that of SmolVLM has a `video_processor` besides."""

    image_processor: ImageProcessor
    tokenizer: ProcessorTokenizer
    image_seq_len: int
    """Tokens that stand for one tile."""
    chat_template: str | None

    def __call__(self, *inputs: object, **settings: object) -> "Mapping[str, Tensor]": ...

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, Any]], **settings: object
    ) -> str: ...


class FeatureCache(Protocol):
    """Features of tiles by their content keys: the vision cache, or a conversation's own."""

    def read(self, keys: Sequence[bytes]) -> "list[Tensor | None]":
        """Return the features of each key, None where there are none."""
        ...

    def write(self, keys: Sequence[bytes], features: "Tensor") -> None:
        """Keep the features of some tiles."""
        ...


class InnerModel(Module):
    """`model.model`: the towers."""

    vision_model: "SmolVLMVisionTransformer"
    """Or Idefics3's, which is the same."""
    connector: "nn.Module"
    text_model: "LlamaModel"


class VisionLanguageModel(Module):
    """A model of the family, for type checkers: one of `MODEL_CLASSES`.

    A stock model alone lacks what `PackedTraining` adds: `image_features`, `set_pixel_scaling`,
    `use_scope_attention`, and the flags.
    """

    config: VisionLanguageConfig
    model: InnerModel
    lm_head: "nn.Linear"
    caches_connector: bool
    touches_vision: bool
    checkpointed_towers: Collection[str]
    """Those whose activations are computed again where activation checkpointing is on."""
    context_group: object | None
    """A `ContextGroup`, where several ranks hold a pack together."""
    _hf_peft_config_loaded: bool

    pixel_scaling: object
    """A `PixelScaling`."""

    if TYPE_CHECKING:

        @property
        def device(self) -> torch.device: ...

        @property
        def dtype(self) -> torch.dtype: ...

        @classmethod
        def from_pretrained(cls, path: str, **settings: object) -> Self: ...

        def save_pretrained(self, folder: object, **settings: object) -> None: ...

        def get_input_embeddings(self) -> nn.Embedding: ...

        def get_output_embeddings(self) -> nn.Linear: ...

        def resize_token_embeddings(self, num_tokens: int, *, mean_resizing: bool) -> object: ...

        def generate(self, **settings: object) -> Tensor: ...

        def set_pixel_scaling(self, scaling: object) -> None: ...

        def use_scope_attention(self) -> None: ...

        def image_features(
            self,
            tiles: Tensor,
            cached: Tensor | None,
            slot_tiles: Tensor,
            slot_sizes: Tensor | None = None,
        ) -> tuple[Tensor | None, Tensor | None]: ...
