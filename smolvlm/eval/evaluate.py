"""A held-out set through a model: answers, how often they are right, and loss, by source.

In: conversations, a model. Out: an `Evaluation`: predictions, and metrics as (name, value,
num_rows, source). With several ranks each takes its share of the rows; every rank has the whole
result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from accelerate.utils import gather_object

from smolvlm.config.eval_metrics import DEFAULT_METRICS
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.datasets.packing.plan import PlanSettings, plan_training
from smolvlm.eval.prediction import Prediction
from smolvlm.eval.scoring import (
    Metric,
    answer_metrics,
    check_references,
    row_scores,
    share_right,
    token_metrics,
)
from smolvlm.eval.token_scores import RowTokens, token_scores
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.generate.kept_answers import KeptAnswers
from smolvlm.model.vision_cache import VisionCache
from smolvlm.protocols import VisionLanguageModel
from smolvlm.records import Conversation

ALL_SOURCES = "all"
MetricsBySource = Mapping[str, tuple[str, ...]]
"""Name of a source to the metrics of its answers."""


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
        """Return `{name: value}` over all rows and `{name_source: value}` by source, with the ends
        of their intervals as `..._ci95_low` and `..._ci95_high`."""
        values: dict[str, float] = {}
        ends: dict[str, float] = {}
        for metric in self.metrics:
            of_source = "" if metric.source == ALL_SOURCES else f"_{metric.source}"
            values[f"{metric.name}{of_source}"] = metric.value
            if metric.interval is not None:
                ends[f"{metric.name}{of_source}_ci95_low"] = metric.interval.low
                ends[f"{metric.name}{of_source}_ci95_high"] = metric.interval.high
        return values | {name: end for name, end in ends.items() if name not in values}


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


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationOptions:
    """What an evaluation may have besides rows, prompt and model."""

    metrics: MetricsBySource = field(default_factory=dict)
    """Of sources that have others than the default ones."""
    cache: VisionCache | None = None
    """Of the model's frozen tower."""
    share: RankShare = RankShare()
    """Of this process."""
    kept: KeptAnswers | None = None
    """Answers of a stopped evaluation of the same rows; new ones are kept there."""


class Evaluator:
    """Evaluates one held-out set, as often as asked."""

    def __init__(
        self,
        measured: MeasuredSet,
        *,
        prompt: PromptSettings,
        generation: GenerationSettings,
        plan: PlanSettings,
        options: EvaluationOptions = EvaluationOptions(),
    ) -> None:
        """Plan the packs of one pass.

        Args:
            measured: the held-out rows.
            prompt: of the model.
            generation: how answers are generated.
            plan: how rows are packed for their loss.
            options: metrics, cache, ranks.
        """
        self._measured = measured
        self._prompt = prompt
        self._generation = generation
        self._options = options
        cache = options.cache
        self._packs = PackDataset(
            measured,
            plan_training(measured.lengths, plan),
            encoder=prompt.encoder(),
            settings=prompt.media,
            options=PackOptions(read_features=cache.read if cache else None),
        )

    def __call__(self, model: VisionLanguageModel) -> Evaluation:
        """Generate an answer to every row, and take the loss of the true one.

        Raises:
            SampleError: a row has no reference that its source's metrics could score.
        """
        share, metrics = self._options.share, self._options.metrics
        conversations = self._measured.conversations[share.members]
        asked = [_asked(row) for row in conversations]
        for row in asked:
            check_references(metrics.get(row.source, DEFAULT_METRICS), row)
        generator = Generator(model, self._prompt, self._generation, cache=self._options.cache)
        answers = (
            [(answer, "") for answer in generator.answers(conversations)]
            if self._options.kept is None
            else generator.kept_answers(conversations, self._options.kept)
        )
        predictions = [
            replace(row, answer=answer, key=key)
            for row, (answer, key) in zip(asked, answers, strict=True)
        ]
        packs = (self._packs[number] for number in range(len(self._packs))[share.members])
        tokens = token_scores(
            model, packs, sources=self._packs.sources, compute_dtype=self._generation.compute_dtype
        )
        if share.num_ranks > 1:
            predictions = gather_object(predictions)
            tokens = gather_object(tokens)
        rows = self._measured.conversations
        place = {rows.where(number): number for number in range(len(rows))}
        predictions.sort(key=lambda prediction: place[prediction.where])
        tokens.sort(key=lambda row: place[row.where])
        return evaluation_of(predictions, tokens, metrics)


def evaluation_of(
    answered: Sequence[Prediction], tokens: Sequence[RowTokens], metrics: MetricsBySource
) -> Evaluation:
    """Score answers, and return them with the metrics of all rows and of each source.

    Args:
        answered: all rows, without scores.
        tokens: of the rows that could be packed.
        metrics: of sources that have others than the default ones.
    """
    by_row = {(row.where, row.source): row.scores for row in tokens}
    sources = sorted({row.source for row in answered})
    scores: dict[int, dict[str, float]] = {}
    for source in sources:
        numbers = [number for number, row in enumerate(answered) if row.source == source]
        found = row_scores(
            metrics.get(source, DEFAULT_METRICS), [answered[number] for number in numbers]
        )
        scores |= dict(zip(numbers, found, strict=True))
    predictions = [
        replace(
            row,
            scores=scores[number],
            correct=share_right(scores[number]),
            tokens=by_row.get((row.where, row.source)),
        )
        for number, row in enumerate(answered)
    ]
    return Evaluation(
        predictions=tuple(predictions), metrics=tuple(_metrics(predictions, tokens, metrics))
    )


def _asked(conversation: Conversation) -> Prediction:
    """Return a row without its answer and scores."""
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
        answer="",
        references=references,
        correct=0.0,
        images=tuple(medium.name for medium in conversation.media),
    )


def _metrics(
    predictions: Sequence[Prediction], tokens: Sequence[RowTokens], chosen: MetricsBySource
) -> list[Metric]:
    """Return the metrics of all rows, those that every source has, and of each of several."""
    sources = sorted({prediction.source for prediction in predictions})
    names = {source: chosen.get(source, DEFAULT_METRICS) for source in sources}
    first, *others = names.values() or [DEFAULT_METRICS]
    names[ALL_SOURCES] = tuple(name for name in first if all(name in other for other in others))
    metrics: list[Metric] = []
    for source in [ALL_SOURCES, *(sources if len(sources) > 1 else [])]:
        answered = [row for row in predictions if source in (ALL_SOURCES, row.source)]
        metrics += answer_metrics(names[source], answered, source=source)
        learned = [row.scores for row in tokens if source in (ALL_SOURCES, row.source)]
        metrics += token_metrics(learned, source=source, num_rows=len(answered))
    return metrics
