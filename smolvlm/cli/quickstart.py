"""`smolvlm quickstart`: from nothing but a package index to a trained model, its accuracy and a
report.

Assembles the embedded base model, prepares easy-VQA, shows held-out accuracy before, trains with
the features of the frozen tower cached, shows accuracy after beside two baselines that never look
at a picture, and writes checkpoint and report. The run file is written beside them, so that
`smolvlm train` can do it again with other settings.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from smolvlm.cli.train import to_stderr, train_aloud
from smolvlm.config.load import load_run_config
from smolvlm.disk.atomic_files import write_text
from smolvlm.errors import SmolVLMError
from smolvlm.eval.baselines import lookup_answers, majority_answers
from smolvlm.eval.metrics.exact_match import exact_match
from smolvlm.eval.prediction import Prediction, accuracy_by_source, balanced_accuracy
from smolvlm.quickstart.easy_vqa import prepare_easy_vqa
from smolvlm.report.files import read_predictions
from smolvlm.runs.model import with_model
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say

RUN_FILE = Path(__file__).parent / "quickstart.yaml"
GROUPS = ("shape", "color", "yes_no")


class QuickstartError(SmolVLMError):
    """The short check found that training did not do what it must."""


def run_quickstart(out: Path, *, steps: int | None, check: bool) -> None:
    """Run the quickstart into a folder.

    Args:
        out: the run's folder; a run that was stopped there is resumed.
        steps: stop after so many optimizer steps.
        check: raise unless the loss fell and the checkpoint answers in plain transformers.
    """
    data = prepare_easy_vqa(out / "data")
    split_by_group(data)
    run_file = out / "quickstart.yaml"
    text = RUN_FILE.read_text(encoding="utf-8")
    write_text(run_file, text if steps is None else shortened(text, steps))
    config = with_model(load_run_config(run_file, [f"train.output_dir={out}"]), say=to_stderr)
    write_baselines(data, out / "baselines.json", max_rows=config.eval.max_rows)
    train_aloud(config)
    show_result(out)
    if check:
        check_run(out)


def shortened(run_file: str, steps: int) -> str:
    """Return the run file's text with a cap on steps, and few held-out rows."""
    text, changed = re.subn(r"num_train_epochs: .*", f"max_steps: {steps}", run_file)
    assert changed == 1
    return re.sub(r"^eval:$", "eval:\n  max_rows: 100", text, flags=re.MULTILINE)


def split_by_group(data: Path, groups: Sequence[str] = GROUPS) -> None:
    """Write each question type's held-out rows to a file, so that each source has a score."""
    rows = [json.loads(line) for line in (data / "eval.jsonl").read_text().splitlines()]
    for group in groups:
        lines = [json.dumps(row) for row in rows if row["question_type"] == group]
        write_text(data / f"eval-{group}.jsonl", "".join(f"{line}\n" for line in lines))


def write_baselines(
    data: Path, path: Path, *, max_rows: int | None, groups: Sequence[str] = GROUPS
) -> None:
    """Write the accuracy of two baselines: each type's majority answer, and a lookup."""
    train = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    pairs = [(row["question"], row["answer"]) for row in train]
    held_out: list[tuple[str, str, str]] = []
    for group in groups:
        lines = (data / f"eval-{group}.jsonl").read_text().splitlines()[:max_rows]
        held_out += [(group, row["question"], row["answer"]) for row in map(json.loads, lines)]
    source_of = {question: group for group, question, _ in held_out}
    baselines = {
        "majority": majority_answers(pairs, source_of=source_of),
        "question_only": lookup_answers(pairs),
    }
    scores = {
        name: {
            group: accuracy
            for group, (accuracy, _) in accuracy_by_source(
                _as_prediction(group, question, truth, answers.get(question, ""))
                for group, question, truth in held_out
            ).items()
        }
        for name, answers in baselines.items()
    }
    write_text(path, json.dumps(scores, indent=1) + "\n")


def _as_prediction(group: str, question: str, truth: str, answer: str) -> Prediction:
    correct = exact_match(answer, (truth,))
    return Prediction(
        where="",
        source=group,
        group=group,
        question=question,
        answer=answer,
        references=(truth,),
        correct=correct,
        images=(),
    )


def show_result(out: Path) -> None:
    """Print accuracy before and after beside the baselines, and where the rest lies."""
    after = read_predictions(out / "predictions.jsonl")
    before = accuracy_by_source(read_predictions(out / "predictions-before.jsonl"))
    scores = accuracy_by_source(after)
    baselines = json.loads((out / "baselines.json").read_text())
    table = Table(
        "held-out questions",
        "number",
        "majority answer",
        "question only",
        "before",
        "after",
        title="accuracy, %",
    )
    for group in GROUPS:
        cells = [
            baselines["majority"][group],
            baselines["question_only"][group],
            before[group][0],
            scores[group][0],
        ]
        table.add_row(group, f"{scores[group][1]:,}", *(f"{100 * cell:.1f}" for cell in cells))
    balanced = balanced_accuracy(answer for answer in after if answer.source == "yes_no")
    if balanced is not None:
        table.add_row("yes_no, balanced", "", "50.0", "", "", f"{100 * balanced:.1f}")
    console = terminal_console()
    console.print(table)
    console.print(f"checkpoint: {out}\nreport:     {out / 'report.html'}", soft_wrap=True)


def check_run(out: Path) -> None:
    """Check a short run.

    Raises:
        QuickstartError: the loss did not fall, or the checkpoint does not load and answer in plain
            transformers.
    """
    losses = [row["loss"] for row in _rows(out / "metrics.jsonl") if "loss" in row]
    if len(losses) < 2 or losses[-1] >= losses[0]:
        raise QuickstartError(f"the loss did not fall: {losses}", where=str(out / "metrics.jsonl"))
    answer = answer_in_plain_transformers(
        out, next(iter(read_predictions(out / "predictions.jsonl")))
    )
    say(
        f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; plain transformers answers {answer!r}",
    )


def _rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answer_in_plain_transformers(checkpoint: Path, row: Prediction) -> str:
    """Load a checkpoint with transformers alone and answer one question.

    Raises:
        QuickstartError: its answer is not the one the evaluation noted.
    """
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=False)
    model: Any = AutoModelForImageTextToText.from_pretrained(
        checkpoint, dtype=torch.float32, trust_remote_code=False
    ).eval()
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row.question}]}
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    picture = Image.open(row.images[0]).convert("RGB")
    inputs = processor(text=text, images=[[picture]], return_tensors="pt")
    with torch.no_grad():
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    answer = _decode(processor, output[0, inputs["input_ids"].shape[1] :].tolist())
    if answer != row.answer:
        raise QuickstartError(
            f"plain transformers answers {answer!r}, the evaluation noted {row.answer!r}",
            where=row.where,
        )
    return answer


def _decode(processor: object, ids: Sequence[int]) -> str:
    return processor.tokenizer.decode(ids, skip_special_tokens=True).strip()  # pyright: ignore[reportAttributeAccessIssue] - a transformers processor
