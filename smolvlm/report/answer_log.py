"""`answers.jsonl`: what the model says to the same few questions, evaluation after evaluation.

In: predictions. Out: a line an evaluation, that of step 0 being the untrained model's; read back,
each question with its answers over the steps. Which questions: chosen as the gallery's are, by a
digest of their rows' names, so that they are the same each time and no one's pick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.eval.prediction import Prediction
from smolvlm.report.files import read_answer_lines
from smolvlm.report.gallery import in_turns, is_right, pictures_of, shortened

FILE_NAME = "answers.jsonl"
NUM_QUESTIONS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class SaidThen:
    """One answer, and the evaluations that found it, one after another."""

    when: str
    """`before`, `step 20`, `20 to 60`."""
    answer: str
    is_right: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerHistory:
    """A question with what was said to it, the untrained model's answer first."""

    question: str
    truth: str
    group: str
    pictures: tuple[str | None, ...]
    """Data URIs; None for a picture that is no longer there."""
    answers: tuple[SaidThen, ...]


def answer_line(step: int, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return the line of one evaluation.

    Args:
        step: that it follows; 0 is before training.
        predictions: all of it.
    """
    chosen = sorted(list(in_turns(predictions))[:NUM_QUESTIONS], key=lambda row: row.where)
    rows = [
        {
            "where": row.where,
            "source": row.source,
            "group": row.group,
            "question": row.question,
            "prediction": row.answer,
            "references": list(row.references),
            "correct": row.correct,
            "images": list(row.images),
        }
        for row in chosen
    ]
    return {"step": step, "answers": rows}


def answer_histories(run_dir: Path) -> tuple[AnswerHistory, ...]:
    """Return the questions of the newest evaluation; none below two evaluations.

    Raises:
        SampleError: a line is damaged; names file and line.
    """
    by_step = read_answer_lines(run_dir / FILE_NAME)
    if len(by_step) < 2:
        return ()
    newest = by_step[max(by_step)]
    return tuple(_history(row, by_step, run_dir) for row in newest)


def _history(
    row: Prediction, by_step: dict[int, tuple[Prediction, ...]], run_dir: Path
) -> AnswerHistory:
    runs: list[tuple[list[int], Prediction]] = []
    for step in sorted(by_step):
        said = [one for one in by_step[step] if _key(one) == _key(row)]
        if not said:
            continue
        if runs and step > 0 and runs[-1][0][0] > 0 and runs[-1][1].answer == said[0].answer:
            runs[-1][0].append(step)
        else:
            runs.append(([step], said[0]))
    return AnswerHistory(
        question=shortened(row.question),
        truth=shortened(" / ".join(dict.fromkeys(row.references))),
        group=row.group,
        pictures=pictures_of(row, run_dir),
        answers=tuple(
            SaidThen(when=_when(steps), answer=shortened(said.answer), is_right=is_right(said))
            for steps, said in runs
        ),
    )


def _key(row: Prediction) -> tuple[str, str]:
    return row.where, row.question


def _when(steps: Sequence[int]) -> str:
    if steps[0] == 0:
        return "before"
    if len(steps) == 1:
        return f"step {steps[0]:,}"
    return f"{steps[0]:,} to {steps[-1]:,}"
