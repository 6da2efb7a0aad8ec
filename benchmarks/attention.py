"""Attention on a CPU by matrix products against torch's SDPA: time and errors.

    python -m benchmarks.attention [--precision bf16] [--rounds 5] [--layers 4]

First the function alone, forward and backward, at shapes of the 256M and 2.2B models: both take
turns on one thread, times are the process's CPU seconds, medians over the rounds, and the ratio is
the median of each round's. Then a model of the 256M widths with a few layers of each tower, and
queries and keys of the tower larger by a gain, as training makes them: the error of all gradients
relative to those in float32, by either way.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from smolvlm.build.configs import published_config
from smolvlm.model.attention.products import attend_by_products
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices, using_choices
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.vision import PixelScaling

SHAPES = {
    "a tile of 1,024 patches, 12 heads": (12, 12, 1024, 64, False),
    "a tile of 729 patches, 16 heads of 72": (16, 16, 729, 72, False),
    "128 tokens, 9 heads on 3": (9, 3, 128, 64, True),
    "512 tokens, 9 heads on 3": (9, 3, 512, 64, True),
    "1,300 tokens, 9 heads on 3": (9, 3, 1300, 64, True),
    "1,300 tokens, 32 heads": (32, 32, 1300, 64, True),
    "4,096 tokens, 9 heads on 3": (9, 3, 4096, 64, True),
}
"""Heads, heads of the keys, rows, width of a head, whether causal."""
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
CHOSEN = CpuChoices(bf16_products=True, onednn_products=True)
GAINS = (1.0, 2.0, 4.0)


def compare(shape: tuple[int, int, int, int, bool], dtype: torch.dtype, rounds: int) -> str:
    """Return one line: seconds of SDPA and of products, and the ratio."""
    heads, key_heads, rows, width, is_causal = shape
    torch.manual_seed(0)
    inputs = [
        torch.randn(1, rows, count, width, dtype=dtype).transpose(1, 2).requires_grad_()
        for count in (heads, key_heads, key_heads)
    ]
    upstream = torch.randn(1, rows, heads, width, dtype=dtype).transpose(1, 2)

    def both_passes(attend: Callable[..., Tensor], **more: Any) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(
            attend(*inputs, is_causal=is_causal, **more), inputs, upstream
        )

    ways = (
        both_passes(scaled_dot_product_attention, enable_gqa=heads != key_heads),
        both_passes(attend_by_products),
    )
    repeats = max(1, 1024 // rows)
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for way, times in zip(ways, taken, strict=True):
            begun = time.process_time()
            for _ in range(repeats):
                way()
            if number:  # the first warms up
                times.append((time.process_time() - begun) / repeats)
    ratio = statistics.median(a / b for a, b in zip(*taken, strict=True))
    sdpa, ours = (statistics.median(times) * 1e3 for times in taken)
    return f"SDPA {sdpa:8.2f} ms, products {ours:8.2f} ms, {ratio:.2f} times as fast"


def gradients(model: Any, pack: Mapping[str, Any], choices: CpuChoices, *, half: bool) -> Tensor:
    """Return all gradients of a pack's loss, one after another."""
    with using_choices(choices), torch.autocast("cpu", torch.bfloat16, enabled=half):
        model(pack=pack, normalizer=float(len(pack["target_ids"]))).loss.backward()
    found = [value.grad.flatten() for value in model.parameters() if value.grad is not None]
    model.zero_grad()
    return torch.cat(found)


def make_model(layers: int | tuple[int, int], gain: float) -> Any:
    """Return random weights of the 256M widths, the tower's queries and keys enlarged.

    Args:
        layers: of each tower, or of the vision tower and of the language model.
        gain: of the queries and of the keys.
    """
    config: Any = published_config("256M", model_type="smolvlm")
    vision, language = layers if isinstance(layers, tuple) else (layers, layers)
    config.vision_config.num_hidden_layers = vision
    config.text_config.num_hidden_layers = language
    torch.manual_seed(0)
    model: Any = MODEL_CLASSES["smolvlm"](config)
    model.set_pixel_scaling(PixelScaling(rescale_factor=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3))
    model.use_scope_attention()
    with torch.no_grad():
        for layer in model.model.vision_model.encoder.layers:
            layer.self_attn.q_proj.weight.mul_(gain)
            layer.self_attn.k_proj.weight.mul_(gain)
    return model.train()


def make_pack(rows: int = 2, words: int = 120, targets: int = 20) -> dict[str, Any]:
    """Return rows of a random tile and random words each, the last of which are learned."""
    length = 64 + words
    starts = torch.arange(rows) * length
    ids = torch.randint(10, 49000, (rows * length,))
    learned = (starts[:, None] + torch.arange(length - targets, length)).flatten()
    return {
        "input_ids": ids,
        "position_ids": torch.arange(length).repeat(rows),
        "scope_end": (starts + length).repeat_interleave(length),
        "image_places": (starts[:, None] + torch.arange(5, 69)).flatten(),
        "predict_from": learned - 1,
        "target_ids": ids[learned],
        "target_weights": torch.ones(len(learned)),
        "tiles": torch.randint(0, 256, (rows, 3, 512, 512), dtype=torch.uint8),
        "cached_features": None,
        "slot_tiles": torch.arange(rows),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attention", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--precision", choices=tuple(DTYPES), default="bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=4, help="of each tower; 0: no errors")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        print(f"{name:40s} {compare(shape, DTYPES[options.precision], options.rounds)}", flush=True)
    if not options.layers:
        return
    half = options.precision == "bf16"
    for gain in GAINS:
        model, pack = make_model(options.layers, gain), make_pack()
        exact = gradients(model, pack, STOCK_CHOICES, half=False)
        errors = [
            ((gradients(model, pack, choices, half=half) - exact).norm() / exact.norm()).item()
            for choices in (STOCK_CHOICES, CHOSEN)
        ]
        print(
            f"queries and keys x {gain:g}: error of all gradients {errors[0]:.3e} by SDPA, "
            f"{errors[1]:.3e} by products"
        )


if __name__ == "__main__":
    main()
