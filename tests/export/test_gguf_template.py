"""A mended template writes for llama.cpp's parts what the family's writes for images."""

from typing import Any

import pytest
from transformers.models.smolvlm import processing_smolvlm

from smolvlm.datasets.encoding.jinja_template import RELEASED_TEMPLATE
from smolvlm.datasets.encoding.template_engine import write
from smolvlm.export.gguf_template import mended_template

MARKER = "<__media_q7Zt__>"


def rendered(template: str, *contents: list[dict[str, str]]) -> str:
    roles = ("user", "assistant", "user")
    messages: list[dict[str, Any]] = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
    ]
    return write(template, messages, {"add_generation_prompt": True})


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


IMAGE = {"type": "image"}
CONVERSATIONS = (
    [[IMAGE, words("What?")]],
    [[words("What?")]],
    [[words("Is "), IMAGE, words(" it?")], [words("Yes.")], [IMAGE, IMAGE, words("And now?")]],
)


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("kind", ["media_marker", "text"])
@pytest.mark.parametrize(
    "template", [RELEASED_TEMPLATE, processing_smolvlm.DEFAULT_CHAT_TEMPLATE], ids=["old", "new"]
)
def test_a_marker_is_written_as_an_image_is(
    template: str, kind: str, conversation: list[list[dict[str, str]]]
) -> None:
    expected = rendered(template, *conversation).replace("<image>", MARKER)
    marked = [
        [{"type": kind, "text": MARKER} if part is IMAGE else part for part in content]
        for content in conversation
    ]
    assert rendered(mended_template(template), *marked) == expected
    assert rendered(mended_template(template), *conversation) == rendered(template, *conversation)


def test_unmended_it_would_write_a_space_that_was_never_trained() -> None:
    marked = [words(MARKER), words("What?")]
    assert rendered(RELEASED_TEMPLATE, marked).startswith(f"<|im_start|>User: {MARKER}")
    assert rendered(mended_template(RELEASED_TEMPLATE), marked).startswith(
        f"<|im_start|>User:{MARKER}"
    )


def test_a_template_that_asks_in_other_words_stays_as_it_is() -> None:
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert mended_template(template) == template
