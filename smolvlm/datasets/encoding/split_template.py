"""A checkpoint's chat template as pieces: who says what, and where media go, by construction.

In: the template's text. Out: for every shape of a conversation (its roles, and the kinds of blocks
in each turn) the pieces between its blocks: words of the template, special tokens, places of
blocks.
A template is rendered once a shape, with marks in place of the conversation's texts; what stands
between the marks is the template's. So labels need no search in text, a conversation's own words
can never be taken for the template's, and millions of rows cost a look-up each.

What is learned of an assistant's turn: everything behind the generation prompt (what the template
writes for the model to go on from) up to and including the first special token behind the answer.

    <|im_start|>User: |text|<end_of_utterance>\\nAssistant:| |text|<end_of_utterance>|\\n
                                                          ^ learned ................ ^

A template that cannot be taken apart like this (it changes the words, drops a block, writes another
prompt than it goes on from) is refused when the checkpoint is read.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from smolvlm.datasets.encoding.jinja_template import FIX, render
from smolvlm.datasets.encoding.template_items import (
    BlockKind,
    BlockPlace,
    Place,
    Shape,
    SpecialToken,
    TemplateItem,
    Words,
)
from smolvlm.errors import ConfigError

_BEGIN, _END = "\ue000", "\ue001"
_SPACE = "\u2003"
"""White space that no template writes itself, so that one that trims texts shows it."""
_MARK = re.compile(f"({_SPACE}?){_BEGIN}([0-9]+){_END}({_SPACE}?)")


@dataclass(frozen=True, kw_only=True, eq=False)
class ChatTemplate:
    """A template, ready to be taken apart; what came of it is remembered by the object."""

    source: str
    special_tokens: tuple[str, ...]
    """Texts that the tokenizer reads as one id wherever the template writes them."""
    variables: tuple[tuple[str, str], ...] = ()
    """What the template may name besides the messages: `bos_token` and its kin."""
    image_token: str = "<image>"

    def items(
        self, shape: Shape, *, add_generation_prompt: bool = False
    ) -> tuple[TemplateItem, ...]:
        """Return the pieces of a conversation of this shape, in order.

        Raises:
            ConfigError: the template cannot be taken apart for it.
        """
        return _items(self, shape, add_generation_prompt)

    @property
    def written_tokens(self) -> tuple[str, ...]:
        """The special tokens that it writes itself, in the order in which they first come."""
        items = [item for shape in PROBES for item in self.items(shape)]
        return tuple(dict.fromkeys(item.token for item in items if isinstance(item, SpecialToken)))

    @property
    def end_of_turn(self) -> str:
        """The special token that ends an answer, and generation."""
        question: Shape = (("user", ("text",)), ("assistant", ("text",)))
        ends = [
            item
            for item in self.items(question)
            if isinstance(item, SpecialToken) and item.learned_in is not None
        ]
        return ends[-1].token

    def rendered(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool
    ) -> str:
        """Return what the template itself writes for messages of typed blocks."""
        shown = (
            messages if self.takes_blocks else [_as_text(own, self.image_token) for own in messages]
        )
        return render(
            self.source,
            shown,
            {**dict(self.variables), "add_generation_prompt": add_generation_prompt},
        )

    @property
    def takes_blocks(self) -> bool:
        """Whether a message's content is a list of typed blocks; else it is one text."""
        return _takes_blocks(self)


@lru_cache(maxsize=8)
def _takes_blocks(template: ChatTemplate) -> bool:
    message = {"role": "user", "content": [{"type": "text", "text": _BEGIN}]}
    try:
        text = render(
            template.source,
            [message],
            {**dict(template.variables), "add_generation_prompt": False},
        )
    except ConfigError:
        return False
    return _BEGIN in text and "'type'" not in text and '"type"' not in text


def _as_text(message: Mapping[str, Any], image_token: str) -> dict[str, Any]:
    texts = [
        block["text"] if block["type"] == "text" else image_token for block in message["content"]
    ]
    return {**message, "content": "".join(texts)}


@lru_cache(maxsize=4096)
def _items(
    template: ChatTemplate, shape: Shape, add_generation_prompt: bool
) -> tuple[TemplateItem, ...]:
    messages = _marked(shape)
    text = template.rendered(messages, add_generation_prompt=add_generation_prompt)
    places = _places(template, text, shape)
    tokens = re.compile("|".join(map(re.escape, template.special_tokens)) or "(?!)")
    cuts = Cuts(tokens=tokens, ends=_turn_ends(text, places, shape, tokens=tokens))
    for turn, (role, _) in enumerate(shape):
        if role == "assistant":
            cuts.learned.append(_learned(template, text, messages, turn, ends=cuts.ends))
    items: list[TemplateItem] = []
    done = 0
    for start, end, place in [*places, (len(text), len(text), None)]:
        items += cuts.items(text, done, start)
        if place is not None:
            items.append(place)
        done = end
    return tuple(items)


def _marked(shape: Shape) -> list[dict[str, Any]]:
    """Return messages whose texts are marks with white space on both sides."""
    messages: list[dict[str, Any]] = []
    number = 0
    for role, kinds in shape:
        content: list[dict[str, str]] = []
        for kind in kinds:
            text = f"{_SPACE}{_BEGIN}{number}{_END}{_SPACE}"
            content.append({"type": "text", "text": text} if kind == "text" else {"type": "image"})
            number += 1
        messages.append({"role": role, "content": content})
    return messages


def _places(template: ChatTemplate, text: str, shape: Shape) -> list[Place]:
    """Return where the blocks of a shape stand in what the template wrote.

    Raises:
        ConfigError: a block is missing, or stands twice.
    """
    wanted: list[tuple[int, BlockKind]] = [
        (turn, kind) for turn, (_, kinds) in enumerate(shape) for kind in kinds
    ]
    found: list[Place] = []
    for match in re.finditer(f"{_MARK.pattern}|{re.escape(template.image_token)}", text):
        block = len(found)
        if block == len(wanted):
            raise ConfigError(f"its chat template writes more than {block} blocks", fix=FIX)
        turn, kind = wanted[block]
        is_text = match[0] != template.image_token
        if is_text and int(match[2]) < block:
            raise ConfigError("its chat template writes a block twice", fix=FIX)
        if is_text != (kind == "text") or (is_text and int(match[2]) > block):
            raise _left_out(shape, turn, kind)
        place = BlockPlace(
            turn=turn,
            block=block,
            is_learned=shape[turn][0] == "assistant",
            strips_left=is_text and not match[1],
            strips_right=is_text and not match[3],
        )
        found.append((*match.span(), place))
    if len(found) < len(wanted):
        raise _left_out(shape, *wanted[len(found)])
    return found


def _left_out(shape: Shape, turn: int, kind: BlockKind) -> ConfigError:
    what = f"its chat template leaves out {kind} in a turn of the {shape[turn][0]}"
    return ConfigError(what, fix=FIX)


def _turn_ends(
    text: str, places: Sequence[Place], shape: Shape, *, tokens: re.Pattern[str]
) -> dict[int, int]:
    """Return where each turn's end token ends: the first special token behind its last block.

    Turn -> position in characters; turns that no special token ends are left out.
    """
    last = {place.turn: end for _, end, place in places}
    first = {place.turn: start for start, _, place in reversed(places)}
    found: dict[int, int] = {}
    for turn in range(len(shape)):
        token = tokens.search(text, last[turn], first.get(turn + 1, len(text)))
        if token is not None:
            found[turn] = token.end()
    return found


def _learned(
    template: ChatTemplate,
    text: str,
    messages: Sequence[Mapping[str, Any]],
    turn: int,
    *,
    ends: Mapping[int, int],
) -> tuple[int, int, int]:
    """Return the (begin, end) of what is learned of an assistant's turn, and its number.

    Raises:
        ConfigError: the template goes on from another prompt than it writes, or ends no answer.
    """
    prompt = template.rendered(messages[:turn], add_generation_prompt=True)
    if not text.startswith(prompt):
        what = "its chat template writes an answer behind another prompt than it generates from"
        raise ConfigError(what, fix=FIX)
    answer = _MARK.search(text, len(prompt))
    label = text[len(prompt) : answer.start()].strip() if answer is not None else ""
    if label and prompt == template.rendered(messages[:turn], add_generation_prompt=False):
        what = f"its chat template has no generation prompt, so {label[:40]!r} would be learned"
        raise ConfigError(what, fix=FIX)
    if turn not in ends:
        raise ConfigError("its chat template ends an answer without a special token", fix=FIX)
    return len(prompt), ends[turn], turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Cuts:
    """Where the template's own text is cut: at special tokens, and where learning begins."""

    tokens: re.Pattern[str]
    ends: Mapping[int, int]
    """Turn -> where its end token ends."""
    learned: list[tuple[int, int, int]] = field(default_factory=list)
    """(begin, end, turn) of what is learned."""

    def items(self, text: str, start: int, end: int) -> Iterator[TemplateItem]:
        """Yield the words and special tokens between two blocks."""
        turn_of_end = {position: turn for turn, position in self.ends.items()}
        while start < end:
            token = self.tokens.search(text, start, end)
            words_end = token.start() if token else end
            begins = [begin for begin, _, _ in self.learned if start < begin < words_end]
            for stop in [*begins, words_end]:
                if start < stop:
                    yield Words(text[start:stop], self._turn_at(start))
                start = stop
            if token:
                learned_in = self._turn_at(start)
                yield SpecialToken(token[0], learned_in, turn_of_end.get(token.end()))
                start = token.end()

    def _turn_at(self, position: int) -> int | None:
        return next((turn for begin, end, turn in self.learned if begin <= position < end), None)


PROBES: tuple[Shape, ...] = (
    (("user", ("text",)), ("assistant", ("text",))),
    (("user", ("image", "text")), ("assistant", ("text",))),
    (
        ("system", ("text",)),
        ("user", ("text", "image", "text")),
        ("assistant", ("text",)),
        ("user", ("image", "image")),
        ("assistant", ("text", "text")),
    ),
)
