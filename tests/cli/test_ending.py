"""What a run says at its end: where it is, what it answers, what comes next."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolvlm.cli.ending import ending_lines


def write_answers(out: Path, name: str, *rows: tuple[str, str, str, float]) -> None:
    lines = [
        {
            "where": f"{source}:{number}",
            "source": source,
            "question": question,
            "prediction": answer,
            "references": ["yes"],
            "correct": correct,
        }
        for number, (source, question, answer, correct) in enumerate(rows)
    ]
    (out / name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_three_answers_of_several_sources_wrong_ones_among_them(tmp_path: Path) -> None:
    rows = [("a", "Is it?", "yes", 1.0), ("a", "Was it?", "no", 0.0), ("b", "Why?", "yes", 1.0)]
    rows += [("a", "Will it? " * 20, "yes", 1.0)]
    write_answers(tmp_path, "predictions.jsonl", *rows)
    write_answers(
        tmp_path, "predictions-before.jsonl", *((*row[:2], "un", 0.0) for row in rows[:2])
    )
    lines = ending_lines(tmp_path, base="base", num_steps=50)
    assert lines[3:6] == [
        "answers  'Was it?': 'no'  (wanted 'yes'; before: 'un')",
        "         'Why?': 'yes'  (right)",
        f"         {('Will it? ' * 20)[:57] + '...'!r}: 'yes'  (right)",
    ]
    assert not any(line.startswith("note") for line in lines)


def test_an_adapter_is_called_one_and_merged_for_export(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    lines = ending_lines(tmp_path, base="owner/base", num_steps=50)
    assert f"model    {tmp_path}  (an adapter of owner/base)" in lines
    assert lines[-1].endswith("--out DIR --merge")
    assert not any("answers" in line for line in lines)


@pytest.mark.parametrize(("steps", "words"), [(1, "1 step in all"), (9, "9 steps in all")])
def test_few_steps_are_said_to_be_few(tmp_path: Path, steps: int, words: str) -> None:
    (last,) = ending_lines(tmp_path, base="base", num_steps=steps)[-1:]
    assert last.startswith(f"note: {words}: too few to learn; ")


def test_the_command_says_it(trained: Any, out: Path) -> None:
    end = trained.messages.splitlines()
    assert f"model    {out}  (loads in plain transformers)" in end
    assert f"next     smolvlm chat {out} --base" in end
    assert sum(line.startswith("answers  ") for line in end) == 1
    assert end[-1].startswith("note: ")
    assert "too few to learn" in end[-1]


def test_the_best_checkpoint_is_named_where_it_was_asked_for(tmp_path: Path) -> None:
    lines = [{"step": step, "eval_loss": loss} for step, loss in ((10, 2.0), (20, 3.0))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = ending_lines(tmp_path, base="base", num_steps=20)
    assert not any(line.startswith("best") for line in said)
    (tmp_path / "run.yaml").write_text("eval: {best_by: loss}\n")
    said = ending_lines(tmp_path, base="base", num_steps=20)
    assert f"best     {tmp_path / 'checkpoint-10'}  (loss 2.0000: the model)" in said
