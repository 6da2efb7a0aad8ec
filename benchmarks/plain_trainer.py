"""The second peer: `transformers.Trainer` and a padding collator, written as well as the stock
parts allow.

A batch is padded to its longest row. Learned are the assistant's words and `<end_of_utterance>`,
nothing else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

from benchmarks.job import Job, shared_arguments
from benchmarks.peer_model import answer_text, load_peer_model, peer_optimizer, prompt_text
from benchmarks.rows import Row, read_rows


class PaddingCollator:
    """Rows to a batch of the stock processor, with labels."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        texts = [f"{prompt_text(self._processor, row)}{answer_text(row)}\n" for row in rows]
        images = [[_open(path) for path in row.images] for row in rows]
        batch = dict(
            self._processor(
                text=texts,
                images=images if any(images) else None,
                padding=True,
                padding_side="right",
                return_tensors="pt",
            )
        )
        batch["labels"] = self._labels(batch["input_ids"], batch["attention_mask"], rows)
        return batch

    def _labels(
        self, input_ids: torch.Tensor, mask: torch.Tensor, rows: Sequence[Row]
    ) -> torch.Tensor:
        """Return the ids where something is learned, -100 elsewhere; the text ends in a newline
        that is not learned."""
        labels = torch.full_like(input_ids, -100)
        answers = self._processor.tokenizer(
            [answer_text(row) for row in rows], add_special_tokens=False
        ).input_ids
        for number, (answer, length) in enumerate(
            zip(answers, mask.sum(dim=1).tolist(), strict=True)
        ):
            own = slice(length - 1 - len(answer), length - 1)
            assert input_ids[number, own].tolist() == answer
            labels[number, own] = input_ids[number, own]
        return labels


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def build_plain_trainer(job: Job) -> Trainer:
    """Return the trainer, ready to train."""
    model, processor = load_peer_model(job)
    rows = read_rows(job.rows_file)
    arguments = TrainingArguments(
        output_dir=str(job.work_dir / "trainer"),
        max_steps=len(job.steps),
        per_device_train_batch_size=job.batch_size,
        gradient_accumulation_steps=len(job.steps[0].rows) // job.batch_size,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        **shared_arguments(job),
    )
    return Trainer(
        model=model,
        args=arguments,
        data_collator=PaddingCollator(processor),
        train_dataset=[rows[number] for step in job.steps for number in step.rows],
        optimizers=(peer_optimizer(model, job), None),
    )
