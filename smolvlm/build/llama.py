"""Language models of Llama's layout as parts: a GGUF file, or a published shape.

In: where it lies. Out: a `LanguagePart`: what `LlamaConfig` takes, the tokenizer it will have, and
its tensors when asked. Folders, of Llama and other families, are read by `language_folder.py`.
"""

from dataclasses import replace
from pathlib import Path

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
from smolvlm.errors import ConfigError


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
            *vocabulary_notes(vocabulary),
        ),
    )


def published_llama(name: str, dimensions: LanguageDimensions) -> LanguagePart:
    """Return a published shape, without weights."""
    return LanguagePart(
        where=name, kind="shape alone", text_config=text_settings(dimensions), ids=PromptIds()
    )


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


def vocabulary_notes(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return what becomes of a source's vocabulary, in a sentence."""
    first, end = vocabulary.first_new_id, vocabulary.end_new_id
    if replace(vocabulary.ids, vocabulary_size=VOCABULARY_SIZE) == PromptIds():
        return ("SmolLM2's vocabulary: the tokenizer is the released SmolVLM's, to the byte",)
    if first == end:
        return ("the tokenizer has all tokens that a prompt needs already",)
    return (
        f"{end - first} tokens added as ids {first} to {end - 1}; <image> is "
        f"{vocabulary.ids.image}",
    )
