"""A processor's chat template, read and held to what it writes itself.

In: a processor. Out: its `ChatTemplate`, or the released SmolVLM's where it has none (as
checkpoints that were not taught to follow instructions).
"""

import re
from collections.abc import Sequence
from typing import Any

from smolvlm.datasets.encoding.jinja_template import FIX, RELEASED_TEMPLATE
from smolvlm.datasets.encoding.split_template import PROBES, ChatTemplate
from smolvlm.datasets.encoding.template_items import Shape, SpecialToken, TemplateItem, Words
from smolvlm.errors import ConfigError
from smolvlm.protocols import Processor

TILE_TAG = re.compile(r"<row_\d+_col_\d+>")
_PROBE_TEXTS = ("What is 2 + 2?", "  {{ x }} 'quoted' ", "Two\nlines.\n", "<b>é</b>", "a\tb")


def read_template(processor: Processor) -> ChatTemplate:
    """Return a processor's chat template, or the released SmolVLM's where it has none.

    Raises:
        ConfigError: it cannot be taken apart into what the template says and what others say.
    """
    tokenizer = processor.tokenizer
    source = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    variables = {name: getattr(tokenizer, name, None) for name in names}
    template = ChatTemplate(
        source=source or RELEASED_TEMPLATE,
        special_tokens=tuple(token.content for token in added if token.special),
        variables=tuple((name, token) for name, token in variables.items() if token),
    )
    check_template(template)
    return template


def prompt_tokens(processor: Processor, template: ChatTemplate) -> set[str]:
    """Return the special tokens that prompts are built of; in a row's own words they stay text."""
    tokenizer = processor.tokenizer
    names = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    return {
        *(token for token in names if token),
        *template.written_tokens,
        *(template.image_token, "<fake_token_around_image>", "<global-img>"),
        *(token for token in template.special_tokens if TILE_TAG.fullmatch(token)),
    }


def check_template(template: ChatTemplate) -> None:
    """Hold a template's pieces equal to what it writes itself, on conversations of several shapes.

    Raises:
        ConfigError: they differ, or the template cannot be taken apart.
    """
    for shape in PROBES:
        for turns, add_generation_prompt in ((shape, False), (shape[:-1], True)):
            texts = [_PROBE_TEXTS[number % len(_PROBE_TEXTS)] for number in range(9)]
            expected = template.rendered(
                _messages(turns, texts), add_generation_prompt=add_generation_prompt
            )
            items = template.items(turns, add_generation_prompt=add_generation_prompt)
            if _joined(template, items, turns, texts) != expected:
                raise ConfigError("its chat template changes the words of a message", fix=FIX)


def _messages(shape: Shape, texts: Sequence[str]) -> list[dict[str, Any]]:
    numbers = iter(range(len(texts)))
    return [
        {
            "role": role,
            "content": [
                {"type": "text", "text": texts[number]} if kind == "text" else {"type": "image"}
                for kind, number in zip(kinds, numbers, strict=False)
            ],
        }
        for role, kinds in shape
    ]


def _joined(
    template: ChatTemplate, items: Sequence[TemplateItem], shape: Shape, texts: Sequence[str]
) -> str:
    kinds = [kind for _, kinds in shape for kind in kinds]
    parts: list[str] = []
    for item in items:
        if isinstance(item, Words):
            parts.append(item.text)
        elif isinstance(item, SpecialToken):
            parts.append(item.token)
        elif kinds[item.block] == "text":
            parts.append(item.trimmed(texts[item.block]))
        else:
            parts.append(template.image_token)
    return "".join(parts)
