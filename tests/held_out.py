"""Rows of every shape, and one of each tiny checkpoint to ask about them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint
from smolvlm.records import Conversation, ImageRef, Turn


@pytest.fixture(scope="session")
def loaded(checkpoint_folders: dict[ModelType, Path]) -> dict[ModelType, Checkpoint]:
    """Our checkpoints by model type; weights not to be changed."""
    return {
        model_type: load_checkpoint(str(folder))
        for model_type, folder in checkpoint_folders.items()
    }


@pytest.fixture(scope="session")
def stock(checkpoint_folders: dict[ModelType, Path]) -> dict[ModelType, Any]:
    """The same weights in the stock classes."""
    return {
        model_type: AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        for model_type, folder in checkpoint_folders.items()
    }


@pytest.fixture(scope="session")
def rows(photos: dict[str, Path]) -> list[Conversation]:
    """Six rows: text alone, one picture, several, several turns; prompts from ten to some hundred
    tokens."""
    pictures = {name: ImageRef(path=path) for name, path in photos.items()}
    asked: list[tuple[str, list[list[str | ImageRef]], str]] = [
        ("words", [["What is one plus one?"]], "two"),
        ("pictures", [[pictures["coffee"], "What is in the cup?"]], "Coffee."),
        (
            "pictures",
            [[pictures["rocket"], pictures["chelsea"], "Which of these flies?"]],
            "the first one",
        ),
        (
            "pictures",
            [["Look: ", pictures["camera"], " and at ", pictures["horse"], " as well. Describe."]],
            "a man",
        ),
        ("words", [["Say yes or no, and nothing else, to this: is water wet?"], ["Sure?"]], "yes"),
        (
            "pictures",
            [[pictures["horse"], "What is it?"], ["And what does it eat?"]],
            "grass and hay",
        ),
    ]
    return [
        Conversation(
            turns=tuple(turn for question in questions for turn in _exchange(question, answer)),
            where=f"rows.jsonl:{number}",
            source=source,
        )
        for number, (source, questions, answer) in enumerate(asked, start=1)
    ]


def _exchange(question: list[str | ImageRef], answer: str) -> tuple[Turn, Turn]:
    return Turn(role="user", blocks=tuple(question)), Turn(role="assistant", blocks=(answer,))
