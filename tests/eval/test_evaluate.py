"""What a held-out set says of a model: answers with their rows, and numbers that can be worked out
by hand."""

import json
from collections.abc import Callable
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
from smolvlm.eval.evaluate import Evaluation, Evaluator, Metric, write_predictions
from smolvlm.eval.metrics.exact_match import exact_match
from smolvlm.eval.metrics.vqa_accuracy import vqa_accuracy
from smolvlm.eval.prediction import Prediction
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.media.images import open_rgb
from smolvlm.records import Conversation, ImageRef
from tests.memory_rows import measured_rows

BUDGET = Budget(max_tokens=512, max_tiles=64)
GENERATION = GenerationSettings(max_new_tokens=4, batch_size=3)

MakeEvaluator = Callable[..., Evaluator]


@pytest.fixture
def make_evaluator(prompt: PromptSettings) -> MakeEvaluator:
    def make(rows: list[Conversation], **options: Any) -> Evaluator:
        plan = PlanSettings(
            budget=BUDGET, packs_per_step=1, share_media=True, max_branches=8, seed=0
        )
        return Evaluator(
            measured_rows(rows, prompt), prompt=prompt, generation=GENERATION, plan=plan, **options
        )

    return make


@pytest.fixture
def model(loaded: dict[ModelType, Checkpoint]) -> Any:
    return loaded["smolvlm"].model


def stock_losses(
    model: Any, processor: Any, prompt: PromptSettings, row: Conversation
) -> torch.Tensor:
    """Return the loss of each supervised token of a row, alone, through the stock classes on their
    own pixels."""
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
    return cross_entropy(logits[places - 1], ids[places], reduction="none")


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
        losses = stock_losses(stock["smolvlm"], processors["smolvlm"], prompt, row)
        by_source[row.source].append(losses)
        by_source["all"].append(losses)
    for source, losses in by_source.items():
        metric = found["loss", source]
        assert metric.value == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
        assert metric.num_rows == len(losses)


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
    assert evaluation.as_log() == {
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


def test_predictions_are_written_one_object_a_row(tmp_path: Path) -> None:
    predictions = [
        Prediction(
            where="a.jsonl:1",
            source="signs",
            group="signs",
            question="Was heißt das?",
            answer="The café",
            references=("café", "bar"),
            correct=1.0,
            images=("a.png",),
        ),
        Prediction(
            where="b.jsonl:7",
            source="b",
            group="b",
            question="?",
            answer="no",
            references=("yes",),
            correct=0.0,
            images=(),
        ),
    ]
    write_predictions(predictions, tmp_path / "predictions.jsonl")
    text = (tmp_path / "predictions.jsonl").read_text()
    assert "café" in text
    first, second = map(json.loads, text.splitlines())
    assert first == {
        "where": "a.jsonl:1",
        "source": "signs",
        "group": "signs",
        "question": "Was heißt das?",
        "prediction": "The café",
        "references": ["café", "bar"],
        "correct": exact_match("The café", ["café", "bar"]),
        "images": ["a.png"],
    }
    assert (second["correct"], second["images"]) == (0.0, [])


def test_a_log_has_short_names() -> None:
    metrics = (
        Metric(name="loss", value=1.5, num_rows=3, source="all"),
        Metric(name="loss", value=2.5, num_rows=1, source="charts"),
    )
    assert Evaluation(predictions=(), metrics=metrics).as_log() == {"loss": 1.5, "loss_charts": 2.5}
