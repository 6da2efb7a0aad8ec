"""A template's pieces are what it writes, and what is learned is what the model has to say."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.read_template import check_template
from smolvlm.datasets.encoding.split_template import ChatTemplate
from smolvlm.datasets.encoding.template_items import (
    BlockPlace,
    Shape,
    SpecialToken,
    TemplateItem,
    Words,
)
from smolvlm.errors import ConfigError
from tests.chat_templates import ALL, DEFAULT_SYSTEM, RELEASED, ROLE_TAGS

TEXTS = st.text(max_size=12)
BLOCKS = st.lists(TEXTS | st.none(), min_size=1, max_size=4)
"""Of a turn: a text each, None for a picture."""


@st.composite
def conversations(draw: Any) -> list[tuple[str, list[str | None]]]:
    turns: list[tuple[str, list[str | None]]] = []
    if draw(st.booleans()):
        turns.append(("system", [draw(TEXTS)]))
    for _ in range(draw(st.integers(1, 3))):
        turns += [("user", draw(BLOCKS)), ("assistant", [draw(TEXTS)])]
    return turns


def shape_of(turns: list[tuple[str, list[str | None]]]) -> Shape:
    return tuple(
        (role, tuple("image" if block is None else "text" for block in blocks))  # type: ignore[misc]
        for role, blocks in turns
    )


def messages_of(turns: list[tuple[str, list[str | None]]]) -> list[dict[str, Any]]:
    return [
        {
            "role": role,
            "content": [
                {"type": "image"} if block is None else {"type": "text", "text": block}
                for block in blocks
            ],
        }
        for role, blocks in turns
    ]


def written(item: TemplateItem, blocks: list[str | None]) -> str:
    if isinstance(item, Words):
        return item.text
    if isinstance(item, SpecialToken):
        return item.token
    block = blocks[item.block]
    return "<image>" if block is None else item.trimmed(block)


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=60)
@given(turns=conversations())
def test_pieces_joined_are_what_the_template_writes(
    name: str, turns: list[tuple[str, list[str | None]]]
) -> None:
    template = ALL[name]
    if (
        name == "trimmed text"
    ):  # of a text that is nothing but space, two blocks show it differently
        turns = [(role, [text or "x" for text in blocks]) for role, blocks in turns]
        turns = [(role, [text.strip() or "x" for text in blocks]) for role, blocks in turns]
    blocks = [block for _, blocks in turns for block in blocks]
    items = template.items(shape_of(turns))
    expected = template.rendered(messages_of(turns), add_generation_prompt=False)
    assert "".join(written(item, blocks) for item in items) == expected


@pytest.mark.parametrize("name", ALL)
@settings(deadline=None, max_examples=40)
@given(turns=conversations())
def test_what_is_learned_is_what_follows_the_generation_prompt_up_to_the_end(
    name: str, turns: list[tuple[str, list[str | None]]]
) -> None:
    template = ALL[name]
    turns = [
        (role, [None if text is None else text.strip() or "x" for text in blocks])
        for role, blocks in turns
    ]
    blocks = [block for _, blocks in turns for block in blocks]
    for number in range(1, len(turns), 2):
        at = number + (turns[0][0] == "system")
        if at >= len(turns):
            continue
        learned = "".join(
            written(item, blocks)
            for item in template.items(shape_of(turns))
            if (item.turn if isinstance(item, BlockPlace) and item.is_learned else None) == at
            or (not isinstance(item, BlockPlace) and item.learned_in == at)
        )
        prompt = template.rendered(messages_of(turns[:at]), add_generation_prompt=True)
        whole = template.rendered(messages_of(turns[: at + 1]), add_generation_prompt=False)
        assert whole.startswith(prompt + learned)
        assert learned.endswith(template.end_of_turn)


@pytest.mark.parametrize("name", ALL)
def test_the_kinds_that_checkpoints_come_with_pass_the_check(name: str) -> None:
    check_template(ALL[name])


def test_the_rendering_is_that_of_transformers() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    turns: list[tuple[str, list[str | None]]] = [
        ("user", [None, " a ", "b\n"]),
        ("assistant", ["c"]),
    ]
    for template in ALL.values():
        messages = messages_of(turns)
        if not template.takes_blocks:
            messages = [
                {**own, "content": "".join(part.get("text", "<image>") for part in own["content"])}
                for own in messages
            ]
        (theirs,), _ = render_jinja_template(
            conversations=[messages],
            chat_template=template.source,
            add_generation_prompt=False,
            **dict(template.variables),
        )
        assert template.rendered(messages_of(turns), add_generation_prompt=False) == theirs


def test_ends_and_beginnings_are_the_templates_own() -> None:
    assert ROLE_TAGS.end_of_turn == "<|end_of_text|>"
    assert RELEASED.end_of_turn == "<end_of_utterance>"
    assert ROLE_TAGS.written_tokens == ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>")
    items = DEFAULT_SYSTEM.items((("user", ("text",)), ("assistant", ("text",))))
    assert Words("system\nYou are helpful.") in items


def test_words_that_look_like_marks_are_words() -> None:
    """A conversation's own texts never pass through the template."""
    shape: Shape = (("user", ("text",)), ("assistant", ("text",)))
    assert [written(item, ["\ue0000\ue001{{ x }}", "<image>"]) for item in RELEASED.items(shape)][
        2
    ] == "\ue0000\ue001{{ x }}"


REFUSED = {
    "has no generation prompt": "{% for m in messages %}{{ m['role'] }}:{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}</s>{% endfor %}",
    "changes the words": "{% for m in messages %}{% for c in m['content'] %}"
    "{{ (c['text'] or '<image>') | upper | replace('<IMAGE>', '<image>') }}{% endfor %}</s>"
    "{% endfor %}",
    "leaves out text in a turn of the system": "{% for m in messages %}"
    "{% if m['role'] != 'system' %}{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}"
    "</s>{% endif %}{% endfor %}",
    "writes a block twice": "{% for m in messages %}{% for c in m['content'] %}"
    "{{ c['text'] ~ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}</s>{% endfor %}",
    "without a special token": "{% for m in messages %}{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}\n{% endfor %}",
    "behind another prompt": "{% for m in messages %}{{ m['role'] }}{% for c in m['content'] %}"
    "{{ c['text'] if c['type'] == 'text' else '<image>' }}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}<think>{% endif %}",
    "fails: no pictures": "{{ raise_exception('no pictures') }}",
    "fails: Encountered unknown tag": "{% nosuch %}",
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_template_that_cannot_be_taken_apart_is_refused(what: str) -> None:
    template = ChatTemplate(source=REFUSED[what], special_tokens=("</s>", "<image>"))
    with pytest.raises(ConfigError, match=f"its chat template .*{what}"):
        check_template(template)


def test_a_hostile_template_gets_at_nothing() -> None:
    source = "{{ messages.__class__.__mro__ }}"
    with pytest.raises(
        ConfigError, match=r"its chat template fails: access to attribute '__class__'"
    ):
        check_template(ChatTemplate(source=source, special_tokens=("</s>",)))
