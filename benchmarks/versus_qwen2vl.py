"""`python -m benchmarks.versus_qwen2vl`: what a picture costs SmolVLM and Qwen2-VL-2B, in tokens,
seconds until the first answered token, and tokens a second after it.

SmolVLM's announcement says that a picture of 1536 px takes it 1.2 thousand tokens and Qwen2-VL 16
thousand, that its prefill is 3.3 to 4.5 times and its generation 7.5 to 16 times as fast. Here both
run as stock transformers models of the published dimensions with random weights, on this machine's
CPU, one conversation at a time, one picture and a short question. Token counts follow from the
released processors' rules; Qwen2-VL's rule gives 3,025 tokens for that picture, and 16,384 are the
most that it gives any, so both lengths are shown.

Few layers are measured: a layer's seconds are the difference between two layers and one, at three
lengths, fitted by a n + b n^2, and times the published number of layers; what is not in layers
(patches, connector, head) is the rest. Lengths beyond the longest one measured are extrapolated by
the fit, and are marked. Times are processor time of one thread, so that a busy machine counts
little; bfloat16 where the CPU has units for it, float32 elsewhere.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    DynamicCache,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    SmolVLMForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from smolvlm.build.configs import PublishedSize, published_config, tile_side_px
from smolvlm.build.processor import PictureSettings, write_processor
from smolvlm.train.bf16_units import has_bf16_units

PICTURE_PX = 1536
LARGEST_PX = 3584
"""Of a square that Qwen2-VL gives its most tokens."""
QUESTION_TOKENS = 24
"""Of the question and of the template's own words, for either model."""
LONG_SIDE_TILES: dict[PublishedSize, int] = {"256M": 4, "500M": 4, "2.2B": 4}
"""What the released processors scale a picture's longest edge to, in tiles' sides."""
MIN_PIXELS, MAX_PIXELS, FACTOR = 3136, 12_845_056, 28
"""Of Qwen2-VL's released processor: 4 to 16,384 squares of 28 px, a token each."""
CLAIMS = {"tokens": "1.2 k against 16 k", "prefill": "3.3 to 4.5x", "generation": "7.5 to 16x"}
LANGUAGE_LENGTHS = (1024, 2048, 4096)
PATCH_SIDES = (40, 76, 110)
"""Patches a side of square pictures, at which Qwen2-VL's tower is measured."""
DECODED = 16
"""Generated tokens whose median counts."""
ENOUGH_S = 4.0
"""A measurement is repeated up to three times within it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """Seconds of one layer over `count` tokens or patches, a n + b n^2, and the stack's rest."""

    per_token_s: float
    per_pair_s: float
    rest_s: float
    """What does not lie in layers, at the longest length measured."""
    num_layers: int
    longest: int

    def seconds(self, count: int) -> float:
        """Return what all layers and the rest take; the rest grows with the length."""
        layer = self.per_token_s * count + self.per_pair_s * count**2
        return self.num_layers * layer + self.rest_s * count / self.longest


@dataclass(frozen=True, kw_only=True, slots=True)
class Costs:
    """What one picture and a question cost a model."""

    name: str
    picture_px: int
    num_tokens: int
    """Of the picture alone."""
    tower_s: float
    language_s: float
    tokens_per_s: float
    """Generated, one conversation."""
    cache_mb: float
    """Keys and values of a conversation, in this precision, 10^6 bytes."""
    is_extrapolated: bool

    @property
    def prefill_s(self) -> float:
        return self.tower_s + self.language_s


def qwen_tokens(side_px: int) -> tuple[int, int]:
    """Return (tokens, patches) of a square picture by Qwen2-VL's released rule."""
    height, width = smart_resize(
        side_px, side_px, factor=FACTOR, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS
    )
    squares = height * width // FACTOR**2
    return squares, 4 * squares


def smolvlm_tokens(size: PublishedSize, side_px: int) -> tuple[int, int]:
    """Return (tokens, tiles) of a square picture by the released processor's rule."""
    config = published_config(size)
    side = tile_side_px(config)
    patches = side // config.vision_config.patch_size
    with TemporaryDirectory() as folder:
        write_processor(
            Path(folder),
            model_type="smolvlm",
            tile_side_px=side,
            tokens_per_tile=(patches // config.scale_factor) ** 2,
            pictures=PictureSettings(longest_edge_px=LONG_SIDE_TILES[size] * side),
        )
        processor: Any = AutoProcessor.from_pretrained(folder)
        picture = Image.new("RGB", (side_px, side_px), "white")
        batch = processor(text=["<image>"], images=[[picture]], return_tensors="pt")
    return batch["input_ids"].shape[1], batch["pixel_values"].shape[1]


def qwen_config(num_layers: int) -> Qwen2VLConfig:
    """Return the published dimensions of Qwen2-VL-2B with fewer layers."""
    text = {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [16, 24, 24],
        },
    }
    vision = {"depth": num_layers, "embed_dim": 1280, "num_heads": 16, "hidden_size": 1536}
    return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


QWEN_LAYERS = (32, 28)
"""Of the published tower and language model."""


def measure_layers(
    module: Any, layers: str, run: Callable[[int], object], counts: Sequence[int], total: int
) -> Growth:
    """Time a stack of two layers and of one at some lengths, and fit a layer's seconds.

    Args:
        module: has the layers.
        layers: name of its list of two layers.
        run: computes the stack over so many tokens or patches.
        total: layers of the published model.
    """
    both = getattr(module, layers)
    times = []
    for count in counts:
        of_two = seconds_of(lambda count=count: run(count))
        setattr(module, layers, both[:1])
        of_one = seconds_of(lambda count=count: run(count))
        setattr(module, layers, both)
        times.append((of_one, of_two))
    per_layer = [max(two - one, 0.0) for one, two in times]
    return fitted(counts, per_layer, rest_s=max(times[-1][0] - per_layer[-1], 0), total=total)


def fitted(
    counts: Sequence[int], per_layer: Sequence[float], *, rest_s: float, total: int
) -> Growth:
    """Fit a n + b n^2 to a layer's seconds, relative errors weighing alike; both at least 0."""
    n, seconds = np.array(counts, float), np.array(per_layer)
    if (seconds <= 0).any():
        raise RuntimeError(
            f"a layer took no time at {counts}: {per_layer}; the machine is too busy"
        )
    a, b = np.linalg.lstsq(np.stack([n, n**2], 1) / seconds[:, None], np.ones(len(n)))[0]
    if b < 0:
        a, b = float(np.median(seconds / n)), 0.0
    if a < 0:
        a, b = 0.0, float(np.median(seconds / n**2))
    return Growth(
        per_token_s=float(a),
        per_pair_s=float(b),
        rest_s=rest_s,
        num_layers=total,
        longest=max(counts),
    )


def seconds_of(run: Callable[[], object]) -> float:
    """Return processor seconds, the median of up to three."""
    found: list[float] = []
    while len(found) < 3 and sum(found) < ENOUGH_S:
        begun = time.process_time()
        run()
        found.append(time.process_time() - begun)
    return median(found)


def decode_seconds(language: Any, head: Any, *, length: int, num_layers: int) -> float:
    """Return the seconds of one generated token behind `length` cached ones, all layers."""
    config, dtype = language.config, head.weight.dtype
    both = language.layers
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = torch.randn(1, 1, config.hidden_size, dtype=dtype)

    def run(count: int) -> float:
        language.layers = both[:count]
        cache = DynamicCache()
        for layer in range(count):
            shape = (1, config.num_key_value_heads, length, width)
            cache.update(torch.randn(shape, dtype=dtype), torch.randn(shape, dtype=dtype), layer)
        times = []
        for _ in range(DECODED):
            begun = time.process_time()
            head(language(inputs_embeds=token, past_key_values=cache).last_hidden_state)
            times.append(time.process_time() - begun)
        language.layers = both
        return median(times)

    of_one, of_two = run(1), run(2)
    return of_one + (num_layers - 1) * max(of_two - of_one, 0.0)


def cache_mb(config: Any, *, num_layers: int, length: int, dtype: torch.dtype) -> float:
    """Return the megabytes of a conversation's keys and values."""
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    values = 2 * num_layers * config.num_key_value_heads * width * length
    return values * dtype.itemsize / 1e6


def measure_qwen(dtype: torch.dtype) -> list[Costs]:
    """Measure Qwen2-VL-2B at the picture and at its most tokens."""
    model = Qwen2VLForConditionalGeneration(qwen_config(2)).to(dtype).eval()
    visual, language = model.model.visual, model.model.language_model
    tower_layers, language_layers = QWEN_LAYERS

    def see(patches: int) -> object:
        side = round(patches**0.5)
        pixels = torch.randn(patches, 3 * 2 * 14**2, dtype=dtype)
        return visual(pixels, grid_thw=torch.tensor([[1, side, side]]))

    tower = measure_layers(
        visual, "blocks", see, [side**2 for side in PATCH_SIDES], total=tower_layers
    )
    growth = _language_growth(language, dtype, total=language_layers)
    found = []
    for side_px in (PICTURE_PX, LARGEST_PX):
        tokens, patches = qwen_tokens(side_px)
        length = tokens + QUESTION_TOKENS
        found.append(
            Costs(
                name="Qwen2-VL-2B",
                picture_px=side_px,
                num_tokens=tokens,
                tower_s=tower.seconds(patches),
                language_s=growth.seconds(length),
                tokens_per_s=1
                / decode_seconds(
                    language, model.lm_head, length=length, num_layers=language_layers
                ),
                cache_mb=cache_mb(
                    language.config, num_layers=language_layers, length=length, dtype=dtype
                ),
                is_extrapolated=patches > tower.longest or length > growth.longest,
            )
        )
    return found


def measure_smolvlm(size: PublishedSize, dtype: torch.dtype) -> Costs:
    """Measure a SmolVLM at the picture."""
    config = published_config(size)
    tower_layers = config.vision_config.num_hidden_layers
    language_layers = config.text_config.num_hidden_layers
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 2
    model = SmolVLMForConditionalGeneration(config).to(dtype).eval()
    encoder, language = model.model.vision_model.encoder, model.model.text_model
    side = tile_side_px(config)

    def see(tiles: int) -> object:
        pixels = torch.randn(1, tiles, 3, side, side, dtype=dtype)
        return model.model.get_image_features(pixels)

    tokens, tiles = smolvlm_tokens(size, PICTURE_PX)
    tower = measure_layers(encoder, "layers", see, (1, 2), total=tower_layers)
    growth = _language_growth(language, dtype, total=language_layers)
    length = tokens + QUESTION_TOKENS
    tile_s = tower.seconds(tower.longest) / tower.longest  # tiles do not see each other
    return Costs(
        name=f"SmolVLM {size}",
        picture_px=PICTURE_PX,
        num_tokens=tokens,
        tower_s=tiles * tile_s,
        language_s=growth.seconds(length),
        tokens_per_s=1
        / decode_seconds(language, model.lm_head, length=length, num_layers=language_layers),
        cache_mb=cache_mb(language.config, num_layers=language_layers, length=length, dtype=dtype),
        is_extrapolated=length > growth.longest,
    )


def _language_growth(language: Any, dtype: torch.dtype, *, total: int) -> Growth:
    def read(tokens: int) -> object:
        embeddings = torch.randn(1, tokens, language.config.hidden_size, dtype=dtype)
        return language(inputs_embeds=embeddings, use_cache=True)

    return measure_layers(language, "layers", read, LANGUAGE_LENGTHS, total=total)


def table(costs: Sequence[Costs]) -> str:
    """Return the costs as Markdown; ratios say how many times as fast as either row of Qwen2-VL."""
    peers = [own for own in costs if own.name.startswith("Qwen")]
    heads = ["model", "picture", "tokens", "tower, s", "language model, s", "prefill, s"]
    heads += ["tokens/s", "cache, MB"]
    heads += [
        f"faster {what} than at {own.num_tokens:,}"
        for what in CLAIMS
        if what != "tokens"
        for own in peers
    ]
    lines = [heads, ["---"] * len(heads)]
    for own in costs:
        mark = " (extrapolated)" if own.is_extrapolated else ""
        cells = [own.name, f"{own.picture_px} px", f"{own.num_tokens:,}", f"{own.tower_s:.1f}"]
        cells += [f"{own.language_s:.1f}", f"{own.prefill_s:.1f}{mark}"]
        cells += [f"{own.tokens_per_s:.1f}", f"{own.cache_mb:.0f}"]
        cells += [f"{peer.prefill_s / own.prefill_s:.1f}x" for peer in peers]
        cells += [f"{own.tokens_per_s / peer.tokens_per_s:.1f}x" for peer in peers]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.versus_qwen2vl", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "bf16", "float32"), default="auto")
    parser.add_argument(
        "--size", action="append", choices=("256M", "500M", "2.2B"), help="this SmolVLM alone"
    )
    parser.add_argument("--out", type=Path, help="write the costs as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    is_bf16 = options.precision == "bf16" or (options.precision == "auto" and has_bf16_units())
    dtype = torch.bfloat16 if is_bf16 else torch.float32
    torch.manual_seed(0)
    costs: list[Costs] = []
    with torch.inference_mode():
        for size in options.size or ("256M", "500M", "2.2B"):
            costs.append(measure_smolvlm(size, dtype))
            print(f"{costs[-1].name} done", file=sys.stderr, flush=True)
        costs += measure_qwen(dtype)
    print(f"{dtype}, {options.threads} thread(s); published: {CLAIMS}")
    print(table(costs))
    if options.out is not None:
        options.out.write_text(json.dumps([asdict(own) for own in costs], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
