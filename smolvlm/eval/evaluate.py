"""A held-out set through a model: answers, how often they are right, and loss, by source.

In: conversations, a model. Out: an `Evaluation`: predictions, and metrics as (name, value,
num_rows, source). With several ranks each takes its share of the rows; every rank has the whole
result.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate.utils import gather_object

from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.datasets.packing.pack import on_device
from smolvlm.datasets.packing.plan import PlanSettings, plan_training
from smolvlm.disk.atomic_files import replacing
from smolvlm.eval.metrics.exact_match import exact_match
from smolvlm.eval.metrics.vqa_accuracy import vqa_accuracy
from smolvlm.eval.prediction import Prediction
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.model.evaluating import evaluating
from smolvlm.model.vision_cache import VisionCache
from smolvlm.protocols import VisionLanguageModel
from smolvlm.records import Conversation

ALL_SOURCES = "all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number."""

    name: str
    value: float
    num_rows: int
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredModel:
    """Which weights answered."""

    checkpoint: str
    """The folder, absolute, or the hub id that was loaded."""
    base: str | None
    """What it was trained from, or its adapter on; None where nothing beside it says so."""
    is_adapter: bool
    """Whether the folder holds an adapter, so that the base's weights answered with it."""

    def __str__(self) -> str:
        if self.is_adapter:
            return f"adapter {self.checkpoint} on base {self.base}"
        return self.checkpoint if self.base is None else f"{self.checkpoint} (from {self.base})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one pass over a held-out set gave."""

    predictions: tuple[Prediction, ...]
    metrics: tuple[Metric, ...]
    model: ScoredModel | None = None
    """What was scored; None of a model in memory, as during training."""

    def as_log(self) -> dict[str, float]:
        """Return `{name: value}` over all rows and `{name_source: value}` by source."""
        return {
            metric.name
            if metric.source == ALL_SOURCES
            else f"{metric.name}_{metric.source}": metric.value
            for metric in self.metrics
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class RankShare:
    """Which rows and packs of a held-out set this process evaluates; by default all."""

    rank: int = 0
    num_ranks: int = 1
    """Processes that share the set."""

    @property
    def members(self) -> slice:
        """Where they stand among all."""
        return slice(self.rank, None, self.num_ranks)


class Evaluator:
    """Evaluates one held-out set, as often as asked."""

    def __init__(
        self,
        measured: MeasuredSet,
        *,
        prompt: PromptSettings,
        generation: GenerationSettings,
        plan: PlanSettings,
        cache: VisionCache | None = None,
        share: RankShare = RankShare(),
    ) -> None:
        self._measured = measured
        self._prompt = prompt
        self._generation = generation
        self._cache = cache
        self._share = share
        self._packs = PackDataset(
            measured,
            plan_training(measured.lengths, plan),
            encoder=prompt.encoder(),
            settings=prompt.media,
            options=PackOptions(read_features=cache.read if cache else None),
        )

    def __call__(self, model: VisionLanguageModel) -> Evaluation:
        """Generate an answer to every row, and take the loss of the true one."""
        conversations = self._measured.conversations[self._share.members]
        generator = Generator(model, self._prompt, self._generation, cache=self._cache)
        predictions = [
            _prediction(row, answer)
            for row, answer in zip(conversations, generator.answers(conversations), strict=True)
        ]
        losses = self._losses(model)
        if self._share.num_ranks > 1:
            predictions = gather_object(predictions)
            losses = gather_object(losses)
        rows = self._measured.conversations
        place = {rows.where(number): number for number in range(len(rows))}
        predictions.sort(key=lambda prediction: place[prediction.where])
        return Evaluation(
            predictions=tuple(predictions), metrics=tuple(_metrics(predictions, losses))
        )

    def _losses(self, model: VisionLanguageModel) -> list[tuple[str, float, int]]:
        """Return (source, summed loss, supervised tokens) of this rank's packs."""
        losses: list[tuple[str, float, int]] = []
        for number in range(len(self._packs))[self._share.members]:
            pack = self._packs[number]
            tensors = on_device(pack.model_tensors(), model.device)
            with evaluating(model, self._generation.compute_dtype):
                target_losses = model(pack=tensors).target_losses.double().cpu()
            for source_number, source in enumerate(self._packs.sources):
                chosen = target_losses[pack.target_sources == source_number]
                if len(chosen):
                    losses.append((source, float(chosen.sum()), len(chosen)))
        return losses


def _prediction(conversation: Conversation, answer: str) -> Prediction:
    *earlier, last = conversation.turns
    truth = "".join(block for block in last.blocks if isinstance(block, str)).strip()
    question = " ".join(
        block.strip() for block in earlier[-1].blocks if isinstance(block, str)
    ).strip()
    references = conversation.references or (truth,)
    return Prediction(
        where=conversation.where,
        source=conversation.source,
        group=conversation.source,
        question=question,
        answer=answer,
        references=references,
        correct=exact_match(answer, references),
        images=tuple(medium.name for medium in conversation.media),
    )


def _metrics(
    predictions: Sequence[Prediction], losses: Sequence[tuple[str, float, int]]
) -> list[Metric]:
    scores: list[tuple[str, Callable[[str, Sequence[str]], float]]] = [
        ("exact_match", exact_match),
        ("vqa_accuracy", vqa_accuracy),
    ]
    sources = sorted({prediction.source for prediction in predictions})
    metrics: list[Metric] = []
    for source in [ALL_SOURCES, *(sources if len(sources) > 1 else [])]:
        answered = [
            prediction for prediction in predictions if source in (ALL_SOURCES, prediction.source)
        ]
        for name, score in scores:
            total = sum(score(prediction.answer, prediction.references) for prediction in answered)
            metrics.append(
                Metric(
                    name=name,
                    value=total / max(len(answered), 1),
                    num_rows=len(answered),
                    source=source,
                )
            )
        parts = [(value, count) for name, value, count in losses if source in (ALL_SOURCES, name)]
        tokens = sum(count for _, count in parts)
        loss = sum(value for value, _ in parts) / max(tokens, 1)
        metrics.append(Metric(name="loss", value=loss, num_rows=len(answered), source=source))
    return metrics


def write_predictions(predictions: Sequence[Prediction], path: Path) -> None:
    """Write one JSON object a row, in place of what is there: what the report reads."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for prediction in predictions:
            row = {
                "where": prediction.where,
                "source": prediction.source,
                "group": prediction.group,
                "question": prediction.question,
                "prediction": prediction.answer,
                "references": list(prediction.references),
                "correct": prediction.correct,
                "images": list(prediction.images),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
