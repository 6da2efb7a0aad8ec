"""`python -m benchmarks.preferences`: a DPO step of ours beside one of TRL's `DPOTrainer`, on the
same pairs.

Two models with the same random weights at the 256M model's dimensions, one picture of one 512-px
tile a pair, vision tower frozen, float32, the same optimizer. Steps are taken in turns in one
process. Ours pays for everything that an epoch costs: the reference pass over the step's pairs,
which fills the vision cache, and then the step itself; TRL runs its own loss with a second model as
the reference, from its own collator. Reading pictures is within the step for both. The losses of
every step must agree, or exit status 3 says that the times compare nothing. With `--epochs 2` the
same pairs come again: ours then reads reference and features back, TRL computes them anew, as both
do in a run.

With `--adapters` both train the same LoRA matrices (rank 8, all projections of the language model)
and nothing else; TRL's reference is then its model with the adapters switched off.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import DPOConfig, DPOTrainer

from benchmarks.model_files import write_model
from benchmarks.ours import plan_steps
from benchmarks.rows import Row, read_rows, write_rows
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
from smolvlm.train.methods.method import Preference
from smolvlm.train.methods.reference import ReferencePass, reference_logps

PAIRS_A_STEP = 4
BETA = 0.1
ADAPTER_RATE, WHOLE_RATE = 1e-4, 1e-5
WHOLE = LearningRates(full={"language_model": WHOLE_RATE})
ADAPTED_RATES = LearningRates(adapter={"language_model": ADAPTER_RATE})
ADAPTED: dict[Tower, AdapterConfig] = {"language_model": AdapterConfig(type="lora", r=8, alpha=8)}
LOSS_TOLERANCE = 1e-4
EXIT_LOSSES_DIFFER = 3
Step = Callable[[Sequence[Row]], float]
"""Learns from some rows and returns the loss."""
Times = Mapping[str, tuple[float, float]]
"""Seconds and CPU seconds of a step, by system."""


def rejected_answer(row: Row) -> str:
    """Return a worse answer: the words of the better one backwards."""
    return " ".join(reversed(row.answer.split())) + ", perhaps"


def our_step(model_dir: Path, work_dir: Path, rows: Sequence[Row], *, has_adapters: bool) -> Step:
    """Return a step of ours: reference pass, packs, loss, optimizer."""
    checkpoint = load_checkpoint(str(model_dir))
    model = checkpoint.model
    if has_adapters:
        attach_adapters(model, ADAPTED, base=str(model_dir), seed=0)
    freeze(model, ADAPTED_RATES if has_adapters else WHOLE)
    data = DataConfig(mixture=[{"path": str(_write_pairs(work_dir, rows))}], image_splitting=False)
    prompt = read_prompt(checkpoint.processor, data)
    measured = measure_mixture(data.mixture, data, prompt=prompt, kind="preference")
    number_of = {row: number for number, row in enumerate(rows)}
    model.caches_connector = True
    cache = open_vision_cache(
        work_dir / "cache", model, compute_dtype="float32", keeps_connector=True
    )
    optimizer = _optimizer(model, has_adapters=has_adapters)
    reference = load_checkpoint(
        str(model_dir)
    ).model  # as it was before the first step: what an epoch's pass would see
    reference.caches_connector = True
    method = Preference(settings=DpoMethod(loss_type="sigmoid", beta=BETA))

    def step(own: Sequence[Row]) -> float:
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
            reference, packs, folder=folder, identity="", settings=ReferencePass(cache=cache)
        )
        total = 0.0
        for number in range(len(packs)):
            output = model(
                pack=packs[number].model_tensors(), normalizer=float(len(own)), loss_of=method.loss
            )
            output.loss.backward()
            total += output.loss.item()
        _learn(model, optimizer)
        return total

    return step


def _write_pairs(folder: Path, rows: Sequence[Row]) -> Path:
    pairs = [
        {
            "prompt": row.question,
            "chosen": row.answer,
            "rejected": rejected_answer(row),
            "images": [str(row.image)],
        }
        for row in rows
    ]
    path = folder / "rows" / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


def trl_step(model_dir: Path, work_dir: Path, *, has_adapters: bool) -> Step:
    """Return a step of TRL's: collator, loss with a reference, optimizer."""
    processor = AutoProcessor.from_pretrained(str(model_dir))
    processor.image_processor.do_image_splitting = False
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
        gradient_checkpointing=False,
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
    optimizer = _optimizer(trainer.model, has_adapters=has_adapters)

    def step(rows: Sequence[Row]) -> float:
        decoded = Dataset.from_list(as_rows(rows)).cast_column("images", [Image()])
        trainer.model.train()
        loss = trainer.compute_loss(
            trainer.model, trainer.data_collator([dict(row) for row in decoded])
        )
        loss.backward()
        _learn(trainer.model, optimizer)
        return loss.item()

    return step


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preferences", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="measured steps of each system, after one to warm up"
    )
    parser.add_argument("--epochs", type=int, default=1, help="how often the same pairs come")
    parser.add_argument(
        "--adapters",
        action="store_true",
        help="LoRA on the language model instead of all its weights",
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="tiny dimensions: checks the comparison, measures nothing",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as folder:
        return _compare(Path(folder), options)


def _compare(folder: Path, options: argparse.Namespace) -> int:
    write_model(folder / "model", is_tiny=options.tiny)
    num_rows = (options.rounds + 1) * PAIRS_A_STEP
    rows = read_rows(
        write_rows(folder / "rows", num_pictures=num_rows, questions_per_picture=1, seed=0)
    )
    model_dir, has_adapters = folder / "model", options.adapters
    steps = {
        "smolvlm": our_step(model_dir, folder, rows, has_adapters=has_adapters),
        "TRL": trl_step(model_dir, folder, has_adapters=has_adapters),
    }
    agree, all_measured = True, list[list[Times]]()
    for epoch in range(1, options.epochs + 1):
        turns = [rows[at : at + PAIRS_A_STEP] for at in range(0, num_rows, PAIRS_A_STEP)]
        times = [_in_turns(steps, own, number=number) for number, own in enumerate(turns)]
        agree &= all(difference <= LOSS_TOLERANCE for difference, _ in times)
        measured = [
            own for _, own in times[1:]
        ]  # the first is for warming up; left out of every epoch alike
        print("\n".join(_told(measured, title=f"epoch {epoch}, medians of {len(measured)} steps")))
        all_measured.append(measured)
    if options.epochs > 1:
        together = [_sum(of_step) for of_step in zip(*all_measured, strict=True)]
        print(
            "\n".join(
                _told(
                    together, title=f"all {options.epochs} epochs together, the same pairs in each"
                )
            )
        )
    return 0 if agree else EXIT_LOSSES_DIFFER


def _in_turns(steps: Mapping[str, Step], own: Sequence[Row], *, number: int) -> tuple[float, Times]:
    """Let every system learn from the same rows; return by how much their losses differ, and what
    they took."""
    losses, times = {}, {}
    for name in steps if number % 2 else reversed(list(steps)):
        began, cpu_began = time.perf_counter(), time.process_time()
        losses[name] = steps[name](own)
        times[name] = time.perf_counter() - began, time.process_time() - cpu_began
    told = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
    print(f"step {number}: losses {told}", file=sys.stderr, flush=True)
    return abs(losses["smolvlm"] - losses["TRL"]), times


def _sum(times: Sequence[Times]) -> Times:
    return {
        name: (sum(own[name][0] for own in times), sum(own[name][1] for own in times))
        for name in times[0]
    }


def _told(times: Sequence[Times], *, title: str) -> list[str]:
    lines = [title]
    for name in times[0]:
        lines.append(
            f"{name}: {PAIRS_A_STEP / statistics.median(own[name][0] for own in times):.3f} pairs/s"
        )
    for number, kind in enumerate(("", " in CPU time")):
        ratios = [own["TRL"][number] / own["smolvlm"][number] for own in times]
        spread = f"paired steps {min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"smolvlm is {statistics.median(ratios):.2f}x as fast{kind} ({spread})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
