"""Language models as folders with safetensors: Llama, and other families that transformers runs
behind the SmolVLM class.

In: a folder. Out: a `LanguagePart`. Everything of the source's configuration is kept (rotary
scaling, biases, norms of queries and keys, layers without positions): only the vocabulary's size
and the special ids change, and the output head stands apart, which begins as the embeddings where
the source ties the two.

What packs need of a family is that all its layers attend to the whole conversation through
transformers' attention interface: scopes go in there. Sliding windows and chunks cut a conversation
by distance and are refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, PreTrainedConfig

from smolvlm.build.language_model import HEAD
from smolvlm.build.llama import vocabulary_notes
from smolvlm.build.part import LanguagePart, LanguageWeights
from smolvlm.build.vocabulary import read_vocabulary
from smolvlm.build.weights_folder import model_type_of, open_weights, read_config
from smolvlm.errors import ConfigError

FAMILIES: Mapping[str, str] = {
    "llama": "Llama",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
    "mistral": "Mistral",
}
"""Model type -> its name; each is trained packed and alone in tests."""
_OWN_TO_THE_SOURCE = (
    *("architectures", "dtype", "torch_dtype", "transformers_version", "_name_or_path"),
    *("use_cache", "model_type", "vocab_size", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_EMBEDDINGS = "model.embed_tokens.weight"
WHOLE_ATTENTION = "full_attention"


def read_language_folder(folder: Path) -> LanguagePart:
    """Return the language model of a folder; only headers are read yet.

    Raises:
        ConfigError: it is of a family that is not built upon, attends in windows, or weights or
            tokenizer are missing or do not fit each other.
    """
    model_type = model_type_of(folder)
    if model_type not in FAMILIES:
        fix = f"give a language model of type {', '.join(FAMILIES)}"
        what = f"a model of type {model_type}, not of a family that is built upon"
        raise ConfigError(what, where=str(folder), fix=fix)
    weights, config = open_weights(folder), read_config(folder)
    _check_attention(config, folder)
    names = _names(config)
    weights.check(names.values())
    num_rows = weights.shape(_EMBEDDINGS)[0]
    vocabulary = read_vocabulary(
        folder, num_rows=num_rows, max_positions=config.max_position_embeddings
    )
    kept = {key: value for key, value in config.to_dict().items() if key not in _OWN_TO_THE_SOURCE}

    def read() -> LanguageWeights:
        state = weights.read(names)
        head = state.pop(HEAD, None)
        return LanguageWeights(state=state, head=head)

    return LanguagePart(
        where=str(folder),
        kind=f"{FAMILIES[model_type]}, safetensors",
        text_config={**kept, "model_type": model_type},
        ids=vocabulary.ids,
        vocabulary=lambda: vocabulary,
        read=read,
        notes=vocabulary_notes(vocabulary),
    )


def _check_attention(config: PreTrainedConfig, folder: Path) -> None:
    """Refuse layers that attend to less than the whole conversation."""
    settings: dict[str, Any] = config.to_dict()
    kinds = set(settings.get("layer_types") or ()) - {WHOLE_ATTENTION}
    # Qwen keeps a window's length that it does not use.
    has_window = settings.get("sliding_window") is not None
    if kinds or (has_window and settings.get("use_sliding_window", True)):
        shown = ", ".join(sorted(kinds)) or f"a window of {settings['sliding_window']} tokens"
        raise ConfigError(
            f"some of its layers attend in another way than to the whole conversation: {shown}",
            where=str(folder),
            fix="give a model whose layers all attend in full: conversations of a pack are kept "
            "apart by scopes, which windows would cut",
        )


def _names(config: PreTrainedConfig) -> dict[str, str]:
    """Return the text model's tensors -> their names in the files; a separate head besides."""
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    head = {} if getattr(config, "tie_word_embeddings", False) else {HEAD: HEAD}
    return {**{name: f"model.{name}" for name in model.state_dict()}, **head}
