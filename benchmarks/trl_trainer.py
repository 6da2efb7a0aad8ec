"""The first peer: TRL's `SFTTrainer` with its own vision collator, set up to learn what the others
learn.

TRL learns the whole completion of prompt-completion rows. On conversational rows the template's
newline behind `<end_of_utterance>` is part of the completion and so is learned, one token a row
more than the model's own training runs did. Here the rows are rendered beforehand (TRL's "standard"
format) and end with `<end_of_utterance>`, so that the supervised tokens are the same for all
systems; `conversational_losses` says what the difference is. Switched off for speed and equality:
gradient checkpointing (TRL's default; the system `trl_default` leaves it on), truncation, and
bfloat16 where float32 is asked.
"""

from typing import Any

import torch
from datasets import Dataset, Image
from trl import SFTConfig, SFTTrainer

from benchmarks.job import Job, shared_arguments
from benchmarks.peer_model import answer_text, load_peer_model, peer_optimizer, prompt_text
from benchmarks.rows import Row, read_rows


def build_trl_trainer(job: Job) -> SFTTrainer:
    """Return the trainer, ready to train."""
    model, processor = load_peer_model(job)
    rows = read_rows(job.rows_file)
    ordered = [rows[number] for step in job.steps for number in step.rows]
    dataset = Dataset.from_dict(
        {
            "prompt": [prompt_text(processor, row) for row in ordered],
            "completion": [answer_text(row) for row in ordered],
        }
    )
    if ordered[0].images:
        paths = [[str(image) for image in row.images] for row in ordered]
        dataset = dataset.add_column("images", paths).cast_column("images", [Image()])
    arguments = SFTConfig(
        output_dir=str(job.work_dir / "trl"),
        max_steps=len(job.steps),
        per_device_train_batch_size=job.batch_size,
        gradient_accumulation_steps=len(job.steps[0].rows) // job.batch_size,
        train_sampling_strategy="sequential",
        gradient_checkpointing=job.system == "trl_default",
        max_length=None,
        **shared_arguments(job),
    )
    return SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        processing_class=processor,
        optimizers=(peer_optimizer(model, job), None),
    )


def conversational_losses(trainer: SFTTrainer, rows: list[Row]) -> dict[str, float]:
    """Return what TRL would learn from the same rows as conversations: its loss, and without the
    newlines.

    Args:
        trainer: untouched; nothing is learned here.
        rows: one batch.
    """
    processor: Any = trainer.processing_class
    tokenizer = processor.tokenizer
    examples = []
    for row in rows:
        user = {"role": "user", "content": row.question}
        assistant = {"role": "assistant", "content": row.answer}
        examples.append(
            {
                "prompt": [user],
                "completion": [assistant],
                "image": Image().decode_example(_file(row)),
            }
        )
    batch: Any = trainer.data_collator(examples)
    labels = batch["labels"]
    (newline,) = tokenizer("\n", add_special_tokens=False).input_ids
    end = tokenizer.convert_tokens_to_ids("<end_of_utterance>")
    follows_end = torch.nn.functional.pad(labels[:, :-1] == end, (1, 0))
    equalised = labels.masked_fill(follows_end & (labels == newline), -100)
    inputs = {
        name: value.to(trainer.args.device) for name, value in batch.items() if name != "labels"
    }
    with torch.no_grad():
        logits = trainer.model(**inputs, use_cache=False).logits[:, :-1].float().cpu()
    return {
        "num_learned": int((labels[:, 1:] != -100).sum()),
        "num_learned_without_newlines": int((equalised[:, 1:] != -100).sum()),
        "loss": _mean_loss(logits, labels),
        "loss_without_newlines": _mean_loss(logits, equalised),
    }


def _mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float(
        torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
        )
    )


def _file(row: Row) -> dict[str, Any]:
    return {"path": str(row.image), "bytes": None}
