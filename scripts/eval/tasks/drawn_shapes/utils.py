"""What lmms-eval calls for the task `drawn_shapes`: a row's picture, its text, and its score."""

from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent


def pictures(row: dict[str, Any]) -> list[Image.Image]:
    """Return what is shown with a question."""
    with Image.open(HERE / row["image"]) as picture:
        return [picture.convert("RGB")]


def question(row: dict[str, Any], lmms_eval_specific_kwargs: Any = None) -> str:
    """Return the question as it was trained on; nothing is put before or behind it."""
    del lmms_eval_specific_kwargs
    return row["question"]


def score(row: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Return 1 where the answer is the row's, but for case, spaces and a final point."""
    said = answers[0].strip().lower().removesuffix(".")
    return {"exact_match": float(said == row["answer"])}
