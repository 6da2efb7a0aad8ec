"""One question about one picture with two answers is a warning; where several may be right, not."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.check.check_rows import check_rows
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.measured import RowRequirements
from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.mixture import load_mixture


def asks(answer: str, question: str = "Which color?", **more: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, "image": "a.png", **more}


def contradicting(
    folder: Path, prompt: PromptSettings, rows: list[dict[str, Any]], **source: Any
) -> list[tuple[str, str]]:
    """Return (where, message) of what is found to contradict an earlier row."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, color in {"a": "red", "copy": "red", "b": "blue"}.items():
        Image.new("RGB", (64, 48), color).save(folder / f"{name}.png")
    sources = open_sources(load_mixture([{"json_path": "rows.jsonl", **source}], base_dir=folder))
    requirements = RowRequirements(budget=Budget(max_tokens=4096, max_tiles=64))
    result = check_rows(sources, (), prompt, requirements=requirements)
    assert result.num_errors == 0
    return [
        (found.where, found.message)
        for found in result.findings
        if (found.kind, found.severity) == ("contradictory_answers", "warning")
    ]


def test_two_answers_to_one_question_are_named_with_both_rows(
    tmp_path: Path, prompt: PromptSettings
) -> None:
    rows = [
        asks("red"),
        asks("Red."),  # the same, otherwise written
        asks("blue", image="b.png"),
        asks("blue", "which Color?", image="copy.png"),  # the picture under another name
        asks("one", "How many?"),
    ]
    ((where, message),) = contradicting(tmp_path, prompt, rows)
    assert where == "rows.jsonl:4"
    assert message.startswith(
        "answers the question of rows.jsonl:1 about the same media differently; make the two agree"
    )


def test_a_later_question_is_that_of_its_conversation(
    tmp_path: Path, prompt: PromptSettings
) -> None:
    def talk(*said: str) -> dict[str, Any]:
        roles = ("user", "assistant")
        turns = [{"role": roles[number % 2], "content": text} for number, text in enumerate(said)]
        return {"messages": turns, "image": "a.png"}

    same = [talk("Color?", "red", "Sure?", "yes"), talk("Color?", "red", "Sure?", "no")]
    other = [talk("Form?", "round", "Sure?", "no")]
    found = contradicting(tmp_path, prompt, same + other)
    assert [where for where, _ in found] == ["rows.jsonl:2"]


@pytest.mark.parametrize(
    ("rows", "source"),
    [
        pytest.param(
            [{"question": "A poem?", "answer": answer} for answer in ("one", "two")],
            {},
            id="text alone",
        ),
        pytest.param(
            [
                {"question": "Color?", "answers": answers, "image": "a.png"}
                for answers in (["red", "pink"], ["pink", "red"])
            ],
            {},
            id="several answers in a row",
        ),
        pytest.param(
            [{"image": "a.png", "answer": answer} for answer in ("A square.", "All red.")],
            {"constants": {"question": "Describe the picture."}},
            id="captions",
        ),
        pytest.param([asks("A square."), asks("All red.")], {"metric": "cider_d"}, id="metric"),
        pytest.param(
            [
                {"prompt": "Color?", "chosen": one, "rejected": two, "image": "a.png"}
                for one, two in (("red", "blue"), ("blue", "red"))
            ],
            {},
            id="preferences",
        ),
    ],
)
def test_rows_that_may_be_answered_in_several_ways_are_left_in_peace(
    tmp_path: Path, prompt: PromptSettings, rows: list[dict[str, Any]], source: dict[str, Any]
) -> None:
    assert contradicting(tmp_path, prompt, rows, **source) == []
