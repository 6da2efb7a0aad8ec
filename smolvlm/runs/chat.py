"""A conversation with a checkpoint, turn by turn, and the same with the base that it was trained
from.

In: a model, then questions and media. Out: answers while they are generated. A turn is kept once
its answer is whole; one that fails or is interrupted leaves the conversation as it was. Each
picture's features are computed once.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from smolvlm.checkpoints.peft_layers import adapters_off, is_adapter_folder
from smolvlm.errors import ConfigError, located
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.generate.text_stream import OnText
from smolvlm.media.layout import layout_of
from smolvlm.records import Conversation, ImageRef, Media, Turn, VideoRef
from smolvlm.runs.answering import (
    LoadedModel,
    Shown,
    as_media,
    load_answering,
    load_model,
    without_rows,
)
from smolvlm.runs.evaluation_settings import config_of_base

DEFAULT_NEW_TOKENS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """What a model said."""

    text: str
    num_tokens: int
    seconds: float
    """From the question to the last token."""
    first_s: float
    """Until the first piece of text; all of the time where there was none."""

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second after the first piece, which waits for pictures and prompt."""
        return max(0, self.num_tokens - 1) / max(self.seconds - self.first_s, 1e-9)


class Chat:
    """One conversation with one model."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        system: str | None = None,
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        is_base_of_adapter: bool = False,
    ) -> None:
        """Take the model, which stays as it is.

        Args:
            model: its weights may be shared with other conversations.
            system: a system turn at the beginning.
            max_new_tokens: where an answer that does not end is cut.
            is_base_of_adapter: whether the model answers without its adapter.
        """
        self.model = model
        self._settings = GenerationSettings(max_new_tokens=max_new_tokens, batch_size=1)
        self.is_base_of_adapter = is_base_of_adapter
        self._beginning = () if system is None else (Turn(role="system", blocks=(system,)),)
        self._turns: tuple[Turn, ...] = self._beginning
        self._features = _Features()

    @property
    def turns(self) -> Sequence[Turn]:
        """What was said so far."""
        return self._turns

    def twin(self, model: LoadedModel, *, is_base_of_adapter: bool = False) -> "Chat":
        """Return a conversation, yet to begin, with another model and the same settings."""
        twin = Chat(model, is_base_of_adapter=is_base_of_adapter)
        twin._settings, twin._beginning = self._settings, self._beginning
        twin.restart()
        return twin

    def restart(self) -> None:
        """Forget what was said, and the pictures that were shown."""
        self._turns = self._beginning
        self._features = _Features()

    def rewind(self, num_turns: int) -> None:
        """Forget what was said after the first `num_turns` turns."""
        self._turns = self._turns[:num_turns]

    def check(self, medium: Shown | Media) -> Media:
        """Return a picture or a clip as it can be asked about.

        Raises:
            SampleError: it cannot be read.
            ConfigError: it is neither.
        """
        is_reference = isinstance(medium, ImageRef | VideoRef)
        named = medium.name if is_reference else medium
        where = str(named) if isinstance(named, str | Path) else type(medium).__name__
        with located(where), without_rows():
            media = medium if is_reference else as_media(medium)
            layout_of(media, self.model.prompt.media)
        return media

    def ask(self, question: str, media: Sequence[Media] = (), *, on_text: OnText) -> Reply:
        """Return the answer to a question; pictures and clips stand before it.

        Args:
            question: of the person.
            media: new ones; earlier ones are still in sight.
            on_text: told each piece of the answer as soon as it stands.

        Raises:
            SampleError: a picture or a clip can no longer be read.
            ConfigError: the conversation is longer than the model's context.
        """
        began, first = time.perf_counter(), list[float]()

        def timed(text: str) -> None:
            first.append(time.perf_counter())
            on_text(text)

        turns = (*self._turns, Turn(role="user", blocks=(*media, question)))
        row = Conversation(
            turns=(*turns, Turn(role="assistant", blocks=("",))), where="chat", source="chat"
        )
        checkpoint, prompt = self.model.checkpoint, self.model.prompt
        generator = Generator(checkpoint.model, prompt, self._settings, cache=self._features)
        with without_rows():
            num_prompt = len(generator.question(row).prompt.input_ids)
        self._check_room(num_prompt)
        off: AbstractContextManager[None] = (
            adapters_off(checkpoint.model) if self.is_base_of_adapter else nullcontext()
        )
        with off, without_rows():
            text, num_tokens = generator.stream(row, timed)
        self._turns = (*turns, Turn(role="assistant", blocks=(text,)))
        end = time.perf_counter()
        return Reply(
            text=text,
            num_tokens=num_tokens,
            seconds=end - began,
            first_s=(first[0] if first else end) - began,
        )

    def _check_room(self, num_tokens: int) -> None:
        context = self.model.prompt.context_tokens
        if context is not None and num_tokens >= context:
            what = f"the conversation is {num_tokens:,} tokens, and the model sees {context:,}"
            fix = "begin a new one (in `smolvlm chat`: /new), or show fewer frames"
            raise ConfigError(what, where="chat", fix=fix)


class _Features:
    """A conversation's pictures, as the vision tower gave them."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Tensor] = {}

    def read(self, keys: Sequence[bytes]) -> list[Tensor | None]:
        return [self._kept.get(key) for key in keys]

    def write(self, keys: Sequence[bytes], features: Tensor) -> None:
        self._kept.update(zip(keys, features.detach(), strict=True))


def open_chat(
    checkpoint: str | Path,
    *,
    device: torch.device | str | None = None,
    system: str | None = None,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
) -> Chat:
    """Return a conversation with a run's folder, one of its checkpoints, a checkpoint's folder or a
    hub id; raises as `load_model`."""
    model = load_model(checkpoint, device=device)
    return Chat(model, system=system, max_new_tokens=max_new_tokens)


def chat_with_base(chat: Chat, checkpoint: str | Path) -> Chat:
    """Return a conversation, yet to begin, with the model that a checkpoint was trained from.

    An adapter's base is the same weights with the adapter off.

    Args:
        chat: with the checkpoint.
        checkpoint: what `open_chat` was given.

    Raises:
        ConfigError: the checkpoint is no run's and no adapter, so that nobody knows its base; or
            the base cannot be loaded.
    """
    if is_adapter_folder(checkpoint):
        return chat.twin(chat.model, is_base_of_adapter=True)
    config = config_of_base(Path(checkpoint))
    if config is None:
        what = "no run.yaml here or above, so its base is not known"
        raise ConfigError(what, where=str(checkpoint), fix="give a run's output_dir")
    return chat.twin(load_answering(config, device=chat.model.checkpoint.model.device))
