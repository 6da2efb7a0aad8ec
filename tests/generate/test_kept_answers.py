"""Answers that are kept: which prompt they belong to, and what a stopped evaluation leaves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.generate.answers import GenerationSettings, Generator
from smolvlm.generate.kept_answers import KeptAnswers, is_kept, model_digest
from smolvlm.records import Conversation, ImageRef, Turn

SETTINGS = GenerationSettings(max_new_tokens=4, batch_size=2)


@pytest.fixture
def model(loaded: dict[ModelType, Checkpoint]) -> Any:
    return loaded["smolvlm"].model


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that are generated."""
    sizes: list[int] = []
    batch = Generator._batch

    def note(self: Generator, questions: Any) -> list[str]:
        sizes.append(len(questions))
        return batch(self, questions)

    monkeypatch.setattr(Generator, "_batch", note)
    return sizes


def ask(
    model: Any, prompt: PromptSettings, rows: list[Conversation], file: Path, **settings: Any
) -> tuple[list[str], KeptAnswers]:
    kept = KeptAnswers(file)
    generator = Generator(model, prompt, replace(SETTINGS, **settings))
    return [answer for answer, _ in generator.kept_answers(rows, kept)], kept


def test_a_stopped_evaluation_goes_on_with_the_batches_that_it_had_not(
    model: Any,
    prompt: PromptSettings,
    rows: list[Conversation],
    tmp_path: Path,
    counted: list[int],
) -> None:
    file = tmp_path / "said.jsonl"
    never_stopped = Generator(model, prompt, SETTINGS).answers(rows)
    assert counted == [2, 2, 2]
    answers, _ = ask(model, prompt, rows, file)
    assert answers == never_stopped
    partial = tmp_path / "said.jsonl.partial"
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    for left in (lines[:2], [*lines[:2], lines[2][:9]], lines[:3]):  # the second cut within a line
        partial.write_bytes(b"".join(left))
        counted.clear()
        again, kept = ask(model, prompt, rows, file)
        assert (again, counted, kept.num_used) == (never_stopped, [2, 2], 2)
        assert len({json.loads(line)["key"] for line in _whole(partial)}) == 6
    counted.clear()
    _, kept = ask(model, prompt, rows, file)
    assert (counted, kept.num_used) == ([], 6)
    kept.finish()
    assert not partial.exists()


def _whole(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.endswith("}")]


def test_the_finished_file_is_read_too(
    model: Any, prompt: PromptSettings, rows: list[Conversation], tmp_path: Path, counted: list[int]
) -> None:
    file = tmp_path / "said.jsonl"
    answers, kept = ask(model, prompt, rows, file)
    kept.partial.replace(file)
    counted.clear()
    again, kept = ask(model, prompt, rows, file)
    assert (again, counted, kept.num_used) == (answers, [], 6)


def test_other_settings_weights_and_questions_are_asked_anew(
    model: Any, prompt: PromptSettings, rows: list[Conversation], tmp_path: Path, counted: list[int]
) -> None:
    file = tmp_path / "said.jsonl"
    ask(model, prompt, rows, file)
    for changed in (
        {"max_new_tokens": 3},
        {"batch_size": 3},
        {"compute_dtype": torch.bfloat16},
    ):
        counted.clear()
        ask(model, prompt, rows, file, **changed)
        assert sum(counted) == 6, changed
    counted.clear()
    asked = Turn(role="user", blocks=("What is one plus two?",))
    other = replace(rows[0], turns=(asked, rows[0].turns[1]))
    ask(model, prompt, [other, *rows[1:]], file)
    assert sum(counted) == 2, "the batch of the changed question"
    weight = model.model.text_model.layers[0].mlp.down_proj.weight
    with torch.no_grad():
        weight[0, 0] += 1
        try:
            counted.clear()
            ask(model, prompt, rows, file)
        finally:
            weight[0, 0] -= 1
    assert sum(counted) == 6


def test_a_picture_is_known_by_its_bytes(
    model: Any, prompt: PromptSettings, tmp_path: Path, counted: list[int]
) -> None:
    picture, file = tmp_path / "a.png", tmp_path / "said.jsonl"

    def row() -> Conversation:
        turns = (
            Turn(role="user", blocks=(ImageRef(path=picture), "What?")),
            Turn(role="assistant", blocks=("red",)),
        )
        return Conversation(turns=turns, where="a:1", source="a")

    Image.new("RGB", (30, 20), "red").save(picture)
    ask(model, prompt, [row()], file)
    moved = tmp_path / "b.png"
    moved.write_bytes(picture.read_bytes())
    picture = moved
    ask(model, prompt, [row()], file)
    assert counted == [1]
    Image.new("RGB", (30, 20), "blue").save(picture)
    ask(model, prompt, [row()], file)
    assert counted == [1, 1]


def test_a_model_is_known_by_what_it_holds(loaded: dict[ModelType, Checkpoint]) -> None:
    models = [loaded[model_type].model for model_type in loaded]
    assert model_digest(models[0]) == model_digest(models[0])
    assert len({model_digest(model) for model in models}) == len(models)
    former = models[0].config._name_or_path
    before = model_digest(models[0])
    models[0].config._name_or_path = "elsewhere"
    try:
        assert model_digest(models[0]) == before
    finally:
        models[0].config._name_or_path = former


def test_what_others_wrote_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    lines = ["[]", "3", '{"prediction": "x"}', '{"key": 3, "prediction": "x"}', "\xff", ""]
    beside = '{"key": "a", "prediction": "yes", "base_key": "c", "base_prediction": "no"}'
    file.write_text("\n".join([*lines, beside]), encoding="latin-1")
    kept = KeptAnswers(file)
    assert kept.get(["c"]) == ["no"]
    assert kept.get(["a"]) == ["yes"]
    assert kept.get(["a", "b"]) is None
    assert kept.num_used == 2


def test_nothing_is_kept_beside_a_device(tmp_path: Path) -> None:
    assert not is_kept(Path("/dev/null"))
    assert is_kept(tmp_path / "new.jsonl")
