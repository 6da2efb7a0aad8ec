"""Answers by greedy generation, batched, with each picture encoded once.

In: conversations whose last turn is the answer wanted. Out: what the model says instead. Prompts of
like length go together, padded on the left; the features of a picture come from the vision cache or
are computed once a batch. The stock `generate` does the rest.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.encoding.encoded import EncodedConversation
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.tiles import TileLoader
from smolvlm.errors import located
from smolvlm.generate.kept_answers import KeptAnswers, answer_key, model_digest
from smolvlm.generate.text_stream import OnText, TextStream
from smolvlm.media.decode_time import decoding
from smolvlm.media.layout import layout_of
from smolvlm.model.evaluating import evaluating
from smolvlm.protocols import FeatureCache, VisionLanguageModel
from smolvlm.records import Conversation


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationSettings:
    """How answers are generated."""

    max_new_tokens: int
    batch_size: int
    compute_dtype: torch.dtype = torch.float32
    """bfloat16 runs under autocast, as in training."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A prompt ready to be continued."""

    prompt: EncodedConversation
    where: str


class Generator:
    """Generates with one model; the model's mode and settings are left as they were found."""

    def __init__(
        self,
        model: VisionLanguageModel,
        prompt: PromptSettings,
        settings: GenerationSettings,
        *,
        cache: FeatureCache | None = None,
    ) -> None:
        self._model = model
        self._prompt = prompt
        self._settings = settings
        self._cache = cache
        self._encoder: Encoder = prompt.encoder()

    def question(self, conversation: Conversation) -> Question:
        """Return a row's prompt: all its turns but the last, and `Assistant:`.

        Raises:
            SampleError: a picture or a clip cannot be read.
        """
        turns = conversation.turns[:-1]
        media = [block for turn in turns for block in turn.blocks if not isinstance(block, str)]
        with self._reading(conversation.where):
            layouts = [layout_of(medium, self._prompt.media) for medium in media]
        encoded = self._encoder.encode_turns(turns, layouts=layouts, add_generation_prompt=True)
        return Question(prompt=encoded, where=conversation.where)

    def answers(self, conversations: Sequence[Conversation]) -> list[str]:
        """Return the answer to each last turn, stripped; it ends where the context does."""
        questions = [self.question(conversation) for conversation in conversations]
        answers = [""] * len(questions)
        with evaluating(self._model, self._settings.compute_dtype):
            for numbers in self._batches(questions):
                texts = self._batch([questions[number] for number in numbers])
                for number, text in zip(numbers, texts, strict=True):
                    answers[number] = text
        return answers

    def stream(self, conversation: Conversation, on_text: OnText) -> tuple[str, int]:
        """Return the answer to the last turn, and how many tokens it took.

        Args:
            conversation: see `answers`.
            on_text: told each piece of the answer as soon as it stands; together they are the
                answer.
        """
        question, tokens = self.question(conversation), self._prompt.tokens
        stream = TextStream(
            lambda ids: self._prompt.text.decode(ids, stop=tokens.end_of_turn),
            on_text,
            max_tokens=self._room(question),
        )
        with evaluating(self._model, self._settings.compute_dtype):
            (text,) = self._batch([question], stream)
        return text, stream.num_tokens

    def kept_answers(
        self, conversations: Sequence[Conversation], kept: KeptAnswers
    ) -> list[tuple[str, str]]:
        """Return (answer, key) of each last turn; ask only what is not kept, and keep it.

        Batches are those of `answers`, and one of which some answer is missing is asked whole: what
        is said does not depend on where an earlier evaluation was stopped.
        """
        questions = [self.question(conversation) for conversation in conversations]
        asked_of = (model_digest(self._model), self._model.device.type, self._settings)
        asked_of = (*asked_of, self._prompt.context_tokens)
        keys: list[str] = []
        for question in questions:
            with self._reading(question.where):
                keys.append(answer_key(question.prompt, self._prompt.media, asked_of))
        answers = [""] * len(questions)
        with evaluating(self._model, self._settings.compute_dtype):
            for numbers in self._batches(questions):
                batch = [keys[number] for number in numbers]
                texts = kept.get(batch)
                if texts is None:
                    texts = self._batch([questions[number] for number in numbers])
                    kept.add(dict(zip(batch, texts, strict=True)))
                for number, text in zip(numbers, texts, strict=True):
                    answers[number] = text
        return list(zip(answers, keys, strict=True))

    def _batches(self, questions: Sequence[Question]) -> Iterator[list[int]]:
        """Yield the numbers of the questions that go together: those of like length."""
        order = sorted(
            range(len(questions)), key=lambda number: len(questions[number].prompt.input_ids)
        )
        for start in range(0, len(order), self._settings.batch_size):
            yield order[start : start + self._settings.batch_size]

    def _batch(
        self, questions: Sequence[Question], streamer: TextStream | None = None
    ) -> list[str]:
        tokens = self._prompt.tokens
        longest = max(len(question.prompt.input_ids) for question in questions)
        ids = torch.full((len(questions), longest), tokens.pad)
        mask = torch.zeros_like(ids)
        for row, question in enumerate(questions):
            prompt_ids = torch.from_numpy(question.prompt.input_ids).long()
            ids[row, longest - len(prompt_ids) :] = prompt_ids
            mask[row, longest - len(prompt_ids) :] = 1
        device = self._model.device
        ids, mask = ids.to(device), mask.to(device)
        embeddings = self._model.get_input_embeddings()(ids)
        features = self._features(questions)
        if features is not None:
            embeddings[(ids == tokens.image) & mask.bool()] = features.flatten(0, 1).to(
                embeddings.dtype
            )
        output = self._model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            max_new_tokens=self._settings.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=tokens.end_of_turn,
            pad_token_id=tokens.pad,
            streamer=streamer,
        )
        ids_said = [
            row[: self._room(question)]
            for row, question in zip(output.tolist(), questions, strict=True)
        ]
        return [self._prompt.text.decode(row, stop=tokens.end_of_turn).strip() for row in ids_said]

    def _room(self, question: Question) -> int | None:
        """Return how many tokens an answer may have within the context; None is without end."""
        context = self._prompt.context_tokens
        return None if context is None else max(0, context - len(question.prompt.input_ids))

    @contextmanager
    def _reading(self, where: str) -> Iterator[None]:
        """Name a row in the errors of its media, and bound their time."""
        with located(where), decoding(self._prompt.media.max_decode_s, where=where):
            yield

    def _features(self, questions: Sequence[Question]) -> Tensor | None:
        """Return the connector's features of every image slot of the batch, rows in order."""
        loader = TileLoader(self._prompt.media, self._cache.read if self._cache else None)
        for question in questions:
            with self._reading(question.where):
                loader.add_prompt(question.prompt.media, question.prompt.layouts)
        slots, sizes = loader.slot_tiles(), loader.slot_sizes()
        if not len(slots):
            return None
        device, cached = self._model.device, loader.cached_features()
        features, computed = self._model.image_features(
            loader.tiles().to(device),
            None if cached is None else cached.to(device),
            slots.to(device),
            None if sizes is None else sizes.to(device),
        )
        if self._cache is not None and computed is not None:
            self._cache.write(loader.tile_keys, computed)
        return features
