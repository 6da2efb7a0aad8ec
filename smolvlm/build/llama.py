"""Language models of Llama's layout as parts: a folder with safetensors, a GGUF file, or a
published shape.

In: where it lies. Out: a `LanguagePart`: what `LlamaConfig` takes, the tokenizer it will have, and
its tensors when asked. Everything of the source's configuration is kept (rotary scaling, biases,
epsilon, head width): only the vocabulary's size and the special ids change.
"""

from dataclasses import replace
from pathlib import Path

from transformers import LlamaConfig

from smolvlm.build.configs import LanguageDimensions, text_settings
from smolvlm.build.language_model import HEAD, read_dimensions, read_language_model
from smolvlm.build.part import LanguagePart, LanguageWeights
from smolvlm.build.tokenizer import VOCABULARY_SIZE, PromptIds, read_gguf_vocabulary
from smolvlm.build.vocabulary import (
    Vocabulary,
    read_vocabulary,
    smollm2_tokenizer,
    smolvlm_vocabulary,
)
from smolvlm.build.weights_folder import model_type_of, open_weights, read_config
from smolvlm.errors import ConfigError

_OWN_TO_THE_SOURCE = (
    *(
        "architectures",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "_name_or_path",
        "use_cache",
        "model_type",
    ),
    *("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size", "tie_word_embeddings"),
)
_EMBEDDINGS = "model.embed_tokens.weight"


def read_llama_folder(folder: Path) -> LanguagePart:
    """Return the language model of a folder; only headers are read yet.

    Raises:
        ConfigError: it is no Llama, or weights or tokenizer are missing or do not fit each other.
    """
    if (model_type := model_type_of(folder)) != "llama":
        fix = "give a language model of Llama's layout (SmolLM2, or any of model_type llama)"
        raise ConfigError(f"a model of type {model_type}, not llama", where=str(folder), fix=fix)
    weights, config = open_weights(folder), read_config(folder)
    assert isinstance(config, LlamaConfig)
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
        kind="Llama, safetensors",
        text_config=kept,
        ids=vocabulary.ids,
        vocabulary=lambda: vocabulary,
        read=read,
        notes=_vocabulary_notes(vocabulary),
    )


def read_llama_gguf(gguf_file: Path) -> LanguagePart:
    """Return the language model of a GGUF file; only its header is read yet.

    Raises:
        ConfigError: it is not of Llama's layout, or its vocabulary is neither SmolLM2's nor beside
            it.
    """
    dimensions = read_dimensions(gguf_file)
    vocabulary = _gguf_vocabulary(gguf_file, dimensions)

    def read() -> LanguageWeights:
        state = read_language_model(
            gguf_file, num_layers=dimensions.num_layers, dimensions=dimensions
        )
        head = state.pop(HEAD, None)
        return LanguageWeights(state=state, head=head)

    return LanguagePart(
        where=str(gguf_file),
        kind="Llama, GGUF",
        text_config=text_settings(dimensions),
        ids=vocabulary.ids,
        vocabulary=lambda: vocabulary,
        read=read,
        notes=(
            "weights are as rounded as the GGUF file stores them",
            *_vocabulary_notes(vocabulary),
        ),
    )


def published_llama(name: str, dimensions: LanguageDimensions) -> LanguagePart:
    """Return a published shape, without weights."""
    return LanguagePart(
        where=name, kind="shape alone", text_config=text_settings(dimensions), ids=PromptIds()
    )


def _names(config: LlamaConfig) -> dict[str, str]:
    """Return the text model's tensors -> their names in the files; a separate head besides."""
    stems = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    norms = ["input_layernorm", "post_attention_layernorm"]
    gates = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    names = ["embed_tokens.weight", "norm.weight"]
    for index in range(config.num_hidden_layers):
        names += [f"layers.{index}.{stem}.weight" for stem in (*stems, *norms, *gates)]
        names += [f"layers.{index}.{stem}.bias" for stem in stems if config.attention_bias]
        names += [f"layers.{index}.{stem}.bias" for stem in gates if config.mlp_bias]
    own_head = {} if config.tie_word_embeddings else {HEAD: HEAD}
    return {**{name: f"model.{name}" for name in names}, **own_head}


def _gguf_vocabulary(gguf_file: Path, dimensions: LanguageDimensions) -> Vocabulary:
    text = smollm2_tokenizer(*read_gguf_vocabulary(gguf_file))
    if text is not None:
        return smolvlm_vocabulary(text, num_rows=dimensions.vocabulary_size)
    if not (gguf_file.parent / "tokenizer.json").is_file():
        what = "its vocabulary is not SmolLM2's, and a tokenizer's rules are not all in a GGUF file"
        raise ConfigError(
            what, where=str(gguf_file), fix="put the model's own tokenizer.json beside it"
        )
    return read_vocabulary(
        gguf_file.parent,
        num_rows=dimensions.vocabulary_size,
        max_positions=dimensions.max_positions,
    )


def _vocabulary_notes(vocabulary: Vocabulary) -> tuple[str, ...]:
    first, end = vocabulary.first_new_id, vocabulary.end_new_id
    if replace(vocabulary.ids, vocabulary_size=VOCABULARY_SIZE) == PromptIds():
        return ("SmolLM2's vocabulary: the tokenizer is the released SmolVLM's, to the byte",)
    if first == end:
        return ("the tokenizer has all tokens that a prompt needs already",)
    return (
        f"{end - first} tokens added as ids {first} to {end - 1}; <image> is "
        f"{vocabulary.ids.image}",
    )
