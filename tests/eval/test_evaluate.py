"""What a held-out set says of a model: answers with their rows, and numbers that can be worked out
by hand."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.plan import PlanSettings
from smolvlm.errors import SampleError
from smolvlm.eval.evaluate import Evaluation, EvaluationOptions, Evaluator, evaluation_of
from smolvlm.eval.intervals import Interval
from smolvlm.eval.metrics.vqa_accuracy import vqa_accuracy
from smolvlm.eval.prediction import Prediction
from smolvlm.eval.scoring import Metric
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.media.images import open_rgb
from smolvlm.records import Conversation, ImageRef
from tests.memory_rows import measured_rows

BUDGET = Budget(max_tokens=512, max_tiles=64)
GENERATION = GenerationSettings(max_new_tokens=4, batch_size=3)

MakeEvaluator = Callable[..., Evaluator]


@pytest.fixture
def make_evaluator(prompt: PromptSettings) -> MakeEvaluator:
    def make(rows: list[Conversation], options: EvaluationOptions | None = None) -> Evaluator:
        plan = PlanSettings(
            budget=BUDGET, packs_per_step=1, share_media=True, max_branches=8, seed=0
        )
        return Evaluator(
            measured_rows(rows, prompt),
            prompt=prompt,
            generation=GENERATION,
            plan=plan,
            options=options or EvaluationOptions(),
        )

    return make


@pytest.fixture
def model(loaded: dict[ModelType, Checkpoint]) -> Any:
    return loaded["smolvlm"].model


def stock_losses(
    model: Any, processor: Any, prompt: PromptSettings, row: Conversation
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of each supervised token of a row, and whether it is the likeliest one.

    The row is alone, through the stock classes on their own pixels.
    """
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "image"}
                if isinstance(block, ImageRef)
                else {"type": "text", "text": block}
                for block in turn.blocks
            ],
        }
        for turn in row.turns
    ]
    pictures = [open_rgb(image) for image in row.media]
    text = processor.apply_chat_template(messages)
    inputs = processor(text=text, images=[pictures] if pictures else None, return_tensors="pt")
    ids = inputs["input_ids"][0]
    opening = len(processor.tokenizer.encode("\nAssistant:", add_special_tokens=False))
    ends = (ids == prompt.tokens.end_of_turn).nonzero()[:, 0].tolist()
    learned: list[int] = []
    for number, turn in enumerate(row.turns):
        if turn.role == "assistant":
            learned += range(ends[number - 1] + 1 + opening, ends[number] + 1)
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[0]
    places = torch.tensor(learned)
    said, true = logits[places - 1], ids[places]
    return cross_entropy(said, true, reduction="none"), said.argmax(-1) == true


def test_the_loss_of_each_source_is_its_mean_over_supervised_tokens(
    make_evaluator: MakeEvaluator,
    model: Any,
    stock: dict[ModelType, Any],
    processors: dict[ModelType, Any],
    prompt: PromptSettings,
    rows: list[Conversation],
) -> None:
    evaluation = make_evaluator(rows)(model)
    found = {(metric.name, metric.source): metric for metric in evaluation.metrics}
    by_source: dict[str, list[torch.Tensor]] = {"all": [], "words": [], "pictures": []}
    for row in rows:
        losses, _ = stock_losses(stock["smolvlm"], processors["smolvlm"], prompt, row)
        by_source[row.source].append(losses)
        by_source["all"].append(losses)
    for source, losses in by_source.items():
        metric = found["loss", source]
        assert metric.value == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
        assert metric.num_rows == len(losses)


def test_token_accuracy_is_the_share_of_learned_tokens_that_the_model_would_say(
    make_evaluator: MakeEvaluator,
    model: Any,
    stock: dict[ModelType, Any],
    processors: dict[ModelType, Any],
    prompt: PromptSettings,
    rows: list[Conversation],
) -> None:
    """Answers are what the model would say, in part, so that some of their tokens are right."""
    said = Generator(model, prompt, GENERATION).answers(rows)
    answered = [
        replace(
            row,
            turns=(
                *row.turns[:-1],
                replace(row.turns[-1], blocks=(answer if number % 2 else "two",)),
            ),
        )
        for number, (row, answer) in enumerate(zip(rows, said, strict=True))
    ]
    evaluation = make_evaluator(answered)(model)
    found = {metric.source: metric for metric in evaluation.metrics if metric.name.startswith("to")}
    by_source: dict[str, list[torch.Tensor]] = {"all": [], "words": [], "pictures": []}
    for row, prediction in zip(answered, evaluation.predictions, strict=True):
        losses, right = stock_losses(stock["smolvlm"], processors["smolvlm"], prompt, row)
        assert prediction.tokens is not None
        assert prediction.tokens.num_right == int(right.sum())
        assert prediction.tokens.num_tokens == len(right)
        assert prediction.tokens.loss == pytest.approx(float(losses.sum()), rel=1e-5)
        by_source[row.source].append(right)
        by_source["all"].append(right)
    for source, right in by_source.items():
        assert found[source].value == pytest.approx(float(torch.cat(right).double().mean()))
        assert found[source].interval is not None
    assert 0 < found["all"].value < 1


def test_predictions_are_the_generators_with_their_rows(
    make_evaluator: MakeEvaluator, model: Any, prompt: PromptSettings, rows: list[Conversation]
) -> None:
    evaluation = make_evaluator(rows)(model)
    answers = Generator(model, prompt, GENERATION).answers(rows)
    assert [(own.where, own.answer) for own in evaluation.predictions] == [
        (row.where, answer) for row, answer in zip(rows, answers, strict=True)
    ]
    last = evaluation.predictions[5]
    assert last.question == "And what does it eat?"
    assert last.references == ("grass and hay",)
    assert [Path(name).name for name in last.images] == ["horse.png"]


def test_scores_are_means_over_rows_with_all_references(
    make_evaluator: MakeEvaluator,
    model: Any,
    rows: list[Conversation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = iter(["Two", "tea", "The second", "a man", "YES.", "hay"])
    monkeypatch.setattr(Generator, "answers", lambda _, own: [next(said) for _ in own])
    votes = ("2", "two", "three", "2.", "4", "5", "6", "7", "8", "9")
    asked = [
        Conversation(
            turns=row.turns,
            where=row.where,
            source=row.source,
            references=votes if not number else (),
        )
        for number, row in enumerate(rows)
    ]
    evaluation = make_evaluator(asked)(model)
    found = {(metric.name, metric.source): metric.value for metric in evaluation.metrics}
    shared = vqa_accuracy("2", votes)
    assert 0 < shared < 1
    assert found["exact_match", "all"] == pytest.approx((1 + 0 + 0 + 1 + 1 + 0) / 6)
    assert found["vqa_accuracy", "all"] == pytest.approx((shared + 0 + 0 + 1 + 1 + 0) / 6)
    assert found["exact_match", "words"] == 1.0
    assert found["vqa_accuracy", "words"] == pytest.approx((shared + 1) / 2)
    assert found["exact_match", "pictures"] == 0.25
    logged = {name: value for name, value in evaluation.as_log().items() if "_ci95_" not in name}
    assert logged == {
        name if source == "all" else f"{name}_{source}": value
        for (name, source), value in found.items()
    }


def test_one_source_is_reported_once(
    make_evaluator: MakeEvaluator, model: Any, rows: list[Conversation]
) -> None:
    evaluation = make_evaluator([row for row in rows if row.source == "words"])(model)
    assert [(metric.name, metric.source, metric.num_rows) for metric in evaluation.metrics] == [
        ("exact_match", "all", 2),
        ("vqa_accuracy", "all", 2),
        ("token_accuracy", "all", 2),
        ("loss", "all", 2),
    ]


@pytest.mark.parametrize("is_training", [True, False])
def test_nothing_runs_in_training_mode_and_the_mode_is_restored(
    make_evaluator: MakeEvaluator, model: Any, rows: list[Conversation], is_training: bool
) -> None:
    modes: list[bool] = []
    handle = model.model.text_model.layers[0].register_forward_pre_hook(
        lambda own, _: modes.append(own.training)
    )
    model.train(is_training)
    try:
        make_evaluator(rows[:2])(model)
    finally:
        handle.remove()
    assert set(modes) == {False}
    assert model.training == is_training


def test_a_log_has_short_names() -> None:
    ends = Interval(low=1.25, high=2.0, method="bootstrap")
    metrics = (
        Metric(name="loss", value=1.5, num_rows=3, source="all", interval=ends),
        Metric(name="loss", value=2.5, num_rows=1, source="charts"),
    )
    assert Evaluation(predictions=(), metrics=metrics).as_log() == {
        "loss": 1.5,
        "loss_charts": 2.5,
        "loss_ci95_low": 1.25,
        "loss_ci95_high": 2.0,
    }


def predicted(source: str, answer: str, *references: str) -> Prediction:
    return Prediction(
        where=f"{source}.jsonl:{len(answer)}", source=source, group=source, question="?",
        answer=answer, references=references, correct=0.0, images=(),
    )  # fmt: skip


def test_each_source_has_its_metrics_and_all_rows_those_that_every_source_has() -> None:
    rows = [
        predicted("charts", "5.1", "5"),
        predicted("charts", "seven", "5"),
        predicted("docs", "Pariss", "Paris"),
    ]
    chosen = {"charts": ("relaxed_accuracy", "exact_match"), "docs": ("anls", "exact_match")}
    evaluation = evaluation_of(rows, [], chosen)
    assert [
        (metric.source, metric.name, round(metric.value, 4), metric.num_rows)
        for metric in evaluation.metrics
        if metric.name not in ("loss", "token_accuracy")
    ] == [
        ("all", "exact_match", 0.0, 3),
        ("charts", "relaxed_accuracy", 0.5, 2),
        ("charts", "exact_match", 0.0, 2),
        ("docs", "anls", 0.8333, 1),
        ("docs", "exact_match", 0.0, 1),
    ]
    assert [round(row.correct, 4) for row in evaluation.predictions] == [1.0, 0.0, 0.8333]


def test_a_source_without_boxes_is_refused_before_anything_is_generated(
    make_evaluator: MakeEvaluator,
    model: Any,
    rows: list[Conversation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Generator, "answers", lambda *_: pytest.fail("asked"))
    options = EvaluationOptions(metrics={"pictures": ("iou",)})
    with pytest.raises(SampleError, match=r"`iou` needs a box in the true answer: 'Coffee\.'"):
        make_evaluator(rows, options)(model)
