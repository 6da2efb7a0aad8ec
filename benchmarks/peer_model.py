"""What both peers share: the stock model and processor, the same frozen parts, the same
optimizer."""

from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from benchmarks.job import Job
from benchmarks.rows import Row
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.model.towers import TOWERS, tower_of


def load_peer_model(job: Job) -> tuple[Any, Any]:
    """Return (stock model in float32, stock processor), parts with rate 0 frozen."""
    model = AutoModelForImageTextToText.from_pretrained(str(job.model_dir), dtype=torch.float32)
    freeze(model, LearningRates(full=job.learning_rates))
    return model, AutoProcessor.from_pretrained(str(job.model_dir))


def peer_optimizer(model: Any, job: Job) -> torch.optim.Optimizer:
    """Return fused AdamW with a learning rate for each part, as our trainer has it."""
    groups = []
    for tower in TOWERS:
        members = [
            value
            for name, value in model.named_parameters()
            if value.requires_grad and tower_of(name) == tower
        ]
        if members:
            groups.append({"params": members, "lr": job.learning_rates[tower]})
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


def prompt_text(processor: Any, row: Row) -> str:
    """Return the row's prompt as the checkpoint's template says it, up to `Assistant:`."""
    content = [{"type": "image"} for _ in row.images] + [{"type": "text", "text": row.question}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )


def answer_text(row: Row) -> str:
    """Return what follows `Assistant:` and is learned."""
    return f" {row.answer}<end_of_utterance>"
