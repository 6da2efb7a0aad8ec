"""A DPO step of ours and one of TRL's `DPOTrainer` on the same pairs, each a function of rows, and
a worker that takes one of them.

Ours pays for everything that an epoch costs: the reference pass over the step's pairs, which fills
the vision cache, and then the step itself; TRL runs its own loss with a second model as the
reference, from its own collator. Reading pictures is within the step for both.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import DPOConfig, DPOTrainer

from benchmarks.job import Job, Precision
from benchmarks.ours import plan_steps
from benchmarks.processes import STOP
from benchmarks.rows import Row, read_rows
from benchmarks.worker_memory import state_bytes
from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import PREFIX
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.method import DpoMethod
from smolvlm.config.schema import DataConfig
from smolvlm.datasets.builder import measure_mixture, read_prompt
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.model.towers import Tower, is_adapter
from smolvlm.model.vision_cache import open_vision_cache
from smolvlm.train.cpu_ways import computing_as_trained
from smolvlm.train.methods.method import Preference
from smolvlm.train.methods.reference import ReferencePass, reference_logps

BETA = 0.1
ADAPTER_RATE, WHOLE_RATE = 1e-4, 1e-5
WHOLE = LearningRates(full={"language_model": WHOLE_RATE})
ADAPTED_RATES = LearningRates(adapter={"language_model": ADAPTER_RATE})
ADAPTED: dict[Tower, AdapterConfig] = {"language_model": AdapterConfig(type="lora", r=8, alpha=8)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSettings:
    """How both systems learn."""

    has_adapters: bool = False
    """LoRA on the language model, and nothing else; otherwise all of the language model."""
    precision: Precision = "float32"
    """bf16 is autocast."""
    checkpoints_activations: bool = False
    """TRL alone."""

    def autocast(self) -> AbstractContextManager[None]:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bf16")


PLAIN = PairSettings()


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Learns from some rows and returns the loss."""

    model: Any
    learn: Callable[[Sequence[Row]], float]

    def __call__(self, rows: Sequence[Row]) -> float:
        return self.learn(rows)


def rejected_answer(row: Row) -> str:
    """Return a worse answer: the words of the better one backwards."""
    return " ".join(reversed(row.answer.split())) + ", perhaps"


def our_step(
    model_dir: Path, work_dir: Path, rows: Sequence[Row], *, settings: PairSettings = PLAIN
) -> Step:
    """Return a step of ours: reference pass, packs, loss, optimizer; on a CPU in the ways that a
    run takes there."""
    checkpoint = load_checkpoint(str(model_dir))
    model = checkpoint.model
    has_adapters = settings.has_adapters
    if has_adapters:
        attach_adapters(model, ADAPTED, base=str(model_dir), seed=0)
    freeze(model, ADAPTED_RATES if has_adapters else WHOLE)
    data = DataConfig(mixture=[{"path": str(_write_pairs(rows))}], image_splitting=False)
    prompt = read_prompt(checkpoint.processor, data)
    measured = measure_mixture(data.mixture, data, prompt=prompt, kind="preference")
    number_of = {row: number for number, row in enumerate(rows)}
    model.caches_connector = True
    dtype = "bfloat16" if settings.precision == "bf16" else "float32"
    cache = open_vision_cache(work_dir / "cache", model, compute_dtype=dtype, keeps_connector=True)
    optimizer = _optimizer(model, has_adapters=has_adapters)
    reference = load_checkpoint(
        str(model_dir)
    ).model  # as it was before the first step: what an epoch's pass would see
    freeze(reference, WHOLE)  # its tower as a run's: the run's own model before its first step
    reference.caches_connector = True
    reference_pass = ReferencePass(cache=cache, compute_dtype=getattr(torch, dtype))
    method = Preference(settings=DpoMethod(loss_type="sigmoid", beta=BETA))

    def step(own: Sequence[Row]) -> float:
        with computing_as_trained(str(model_dir), model.device), settings.autocast():
            total = backward(own)
        _learn(model, optimizer)
        return total

    def backward(own: Sequence[Row]) -> float:
        plan = plan_steps(measured, [tuple(number_of[row] for row in own)], data)
        packs = PackDataset(
            measured,
            plan,
            encoder=prompt.encoder(),
            settings=prompt.media,
            options=PackOptions(read_features=cache.read),
        )
        folder = work_dir / f"reference_{number_of[own[0]]}"  # kept for the next epoch
        packs.reference_logps = reference_logps(
            reference, packs, folder=folder, identity="", settings=reference_pass
        )
        total = 0.0
        for number in range(len(packs)):
            output = model(
                pack=packs[number].model_tensors(), normalizer=float(len(own)), loss_of=method.loss
            )
            output.loss.backward()
            total += output.loss.item()
        return total

    return Step(model=model, learn=step)


def _write_pairs(rows: Sequence[Row]) -> Path:
    pairs = [
        {
            "prompt": row.question,
            "chosen": row.answer,
            "rejected": rejected_answer(row),
            "images": [str(row.image)],
        }
        for row in rows
    ]
    path = rows[0].image.parent / "pairs.jsonl"  # a source's pictures lie beside it
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


def trl_step(model_dir: Path, work_dir: Path, *, settings: PairSettings = PLAIN) -> Step:
    """Return a step of TRL's: collator, loss with a reference, optimizer."""
    processor = AutoProcessor.from_pretrained(str(model_dir))
    processor.image_processor.do_image_splitting = False
    has_adapters = settings.has_adapters
    count = 1 if has_adapters else 2
    models = [
        AutoModelForImageTextToText.from_pretrained(str(model_dir), dtype=torch.float32)
        for _ in range(count)
    ]
    peft_config, first = _same_adapters(model_dir) if has_adapters else (None, {})
    if not has_adapters:
        freeze(models[0], WHOLE)
    arguments = DPOConfig(
        output_dir=str(work_dir / "trl"),
        beta=BETA,
        max_length=None,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=settings.checkpoints_activations,
        report_to="none",
        disable_tqdm=True,
    )

    def as_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
        return [_trl_row(processor, row) for row in rows]

    blank = Dataset.from_list([{"prompt": "", "images": [], "chosen": "", "rejected": ""}])
    trainer = DPOTrainer(
        model=models[0],
        ref_model=None if has_adapters else models[1],
        args=arguments,
        train_dataset=blank,
        processing_class=processor,
        peft_config=peft_config,
    )
    assert not trainer.model.load_state_dict(first, strict=False).unexpected_keys
    if settings.checkpoints_activations:  # `train` would switch it on, and is not called
        trainer.model.gradient_checkpointing_enable(arguments.gradient_checkpointing_kwargs)
    optimizer = _optimizer(trainer.model, has_adapters=has_adapters)

    def step(rows: Sequence[Row]) -> float:
        decoded = Dataset.from_list(as_rows(rows)).cast_column("images", [Image()])
        trainer.model.train()
        with settings.autocast():
            loss = trainer.compute_loss(
                trainer.model, trainer.data_collator([dict(row) for row in decoded])
            )
        loss.backward()
        _learn(trainer.model, optimizer)
        return loss.item()

    return Step(model=trainer.model, learn=step)


def _same_adapters(model_dir: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Return peft's configuration of our adapters, and their first values by the names that peft's
    model has."""
    model = load_checkpoint(str(model_dir)).model
    config = attach_adapters(model, ADAPTED, base=str(model_dir), seed=0).peft_config
    config.inference_mode = False
    return config, {
        f"{PREFIX}{name}": value for name, value in model.state_dict().items() if is_adapter(name)
    }


def _trl_row(processor: Any, row: Row) -> dict[str, Any]:
    content = [{"type": "image"}, {"type": "text", "text": row.question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True
    )
    answers = {"chosen": row.answer, "rejected": rejected_answer(row)}
    return {"prompt": prompt, "images": [str(row.image)]} | {
        name: f" {text}<end_of_utterance>" for name, text in answers.items()
    }


def _optimizer(model: Any, *, has_adapters: bool) -> torch.optim.Optimizer:
    rate = ADAPTER_RATE if has_adapters else WHOLE_RATE
    return torch.optim.AdamW(
        [value for value in model.parameters() if value.requires_grad], lr=rate, fused=True
    )


def _learn(model: Any, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(
        [value for value in model.parameters() if value.requires_grad], 1.0
    )
    optimizer.step()
    optimizer.zero_grad()


def run_pairs(job: Job, connection: Connection, measure: Any, *, base_bytes: int) -> None:
    """Do a job of pairs; a worker's work.

    Args:
        job: of `ours`, `trl` or `trl_default`.
        connection: to the parent; messages as in `benchmarks.worker`.
        measure: a `benchmarks.worker.Measure`.
        base_bytes: resident memory before anything was loaded.
    """
    rows = read_rows(job.rows_file)
    settings = PairSettings(
        precision=job.precision, checkpoints_activations=job.system == "trl_default"
    )
    folder = job.work_dir / job.system
    folder.mkdir(parents=True)
    if job.system == "ours":
        step = our_step(job.model_dir, folder, rows, settings=settings)
    else:
        step = trl_step(job.model_dir, folder, settings=settings)
    connection.send({"ready": True})
    for drawn in job.steps:
        if connection.recv() == STOP:
            break
        measure.begin()
        loss = step([rows[number] for number in drawn.rows])
        connection.send(measure.message(loss))
    connection.send(
        {
            "num_tokens": 0,
            "num_padded": 0,
            "peak_rss_bytes": measure.peak_rss_bytes,
            "peak_device_bytes": 0,
            "base_rss_bytes": base_bytes,
            "state_bytes": state_bytes(step.model),
            "step_flops": (),
            "flops_per_cpu_s": 0.0,
            "device": "cpu",
        }
    )
