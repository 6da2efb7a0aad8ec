"""`smolvlm inspect`: what the model would see and learn, before a GPU is paid for.

Reads the processor, the rows and the headers, and plans the run as training would; the model is loaded only for
`--verify`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer
from rich.console import Console

from smolvlm.checkpoints.load import load_processor
from smolvlm.cli.models import with_model
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import SupervisedDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.columns import PlannedPack, Rows
from smolvlm.datasets.packing.plan import sample_size
from smolvlm.errors import ConfigError
from smolvlm.inspect.data import as_json_object, check_learned, inspect_example, token_texts
from smolvlm.inspect.page import write_inspect_page
from smolvlm.inspect.records import PackFill, PackSummary, TilePixels
from smolvlm.inspect.stock_inputs import special_tokens_in
from smolvlm.inspect.terminal import print_samples
from smolvlm.inspect.verify import GRADIENT_TOLERANCE, LOSS_TOLERANCE, Verification, verify_pack
from smolvlm.media.medium import open_medium
from smolvlm.media.tiles import pixel_values
from smolvlm.records import Example
from smolvlm.train.train import plan_run

FAILED_CHECK = 3


def run_inspection(
    run_file: Path,
    overrides: Sequence[str],
    *,
    rows: str,
    html: Path | None,
    pixels: Path | None,
    verify: bool,
    as_json: bool,
) -> None:
    """Show the samples `rows` of the first epoch, in the order of the rows they begin with."""
    config = with_model(load_run_config(run_file, overrides))
    prompt, planned = plan_run(config)
    processor = load_processor(config.model.path, new_tokens=tuple(config.model.new_tokens))
    dataset = SupervisedDataset(
        planned.measured,
        planned.plan,
        encoder=prompt.encoder(loss_weighting=config.data.loss_weighting),
        settings=prompt.media,
    )
    first_epoch = planned.plan.packs[: planned.plan.epoch_ends[0] * planned.plan.packs_per_step]
    chosen = _choose(first_epoch, rows)
    examples = [dataset.example(members) for members in chosen]
    for example in examples:
        check_learned(example, image_token_id=prompt.tokens.image)
    decode = token_texts(processor.tokenizer.backend_tokenizer)
    summary = _summary(first_epoch, config)
    if as_json:
        for example in examples:
            print(json.dumps(as_json_object(example, decode)))
    else:
        shown = [inspect_example(own, decode=decode, image_token_id=prompt.tokens.image) for own in examples]
        print_samples(Console(stderr=True), shown, summary=summary)
    if html is not None:
        shown = [
            inspect_example(own, decode=decode, image_token_id=prompt.tokens.image, tiles=_tiles(own, prompt))
            for own in examples
        ]
        print(f"page: {write_inspect_page(shown, path=html, title=run_file.name, summary=summary)}", file=sys.stderr)
    if pixels is not None:
        _write_pixels(examples, prompt, processor, pixels)
    if verify:
        _verify(config, dataset, chosen, processor)


def _choose(packs: Sequence[PlannedPack], rows: str) -> list[Rows]:
    """Return the samples start:end of an epoch, ordered by their first row."""
    start, colon, end = rows.partition(":")
    try:
        bounds = slice(int(start or 0), int(end) if end else None) if colon else slice(int(start), int(start) + 1)
    except ValueError as error:
        raise typer.BadParameter(f"--rows takes start:end, for example 0:8, not {rows!r}") from error
    samples = sorted(tuple(sorted(members)) for pack in packs for members in pack.samples)
    if not samples[bounds]:
        raise ConfigError(f"no sample in {rows}", where="--rows", fix=f"there are {len(samples):,} samples")
    return samples[bounds]


def _summary(packs: Sequence[PlannedPack], config: RunConfig) -> PackSummary:
    fills = tuple(
        PackFill(
            num_tokens=pack.num_tokens,
            budget_tokens=config.data.max_tokens_per_pack,
            num_tiles=pack.num_tiles,
            budget_tiles=config.data.max_tiles_per_pack,
        )
        for pack in packs
        if pack.samples
    )
    return PackSummary(packs=fills)


def _tiles(example: Example, prompt: PromptSettings) -> list[TilePixels]:
    pairs = zip(example.media, example.layouts, strict=True)
    return [open_medium(medium, layout, prompt.media, where=example.where[0]).tiles() for medium, layout in pairs]


def _write_pixels(examples: Sequence[Example], prompt: PromptSettings, processor: object, path: Path) -> None:
    """Write each sample's tiles as the tower gets them: `sample_<n>`, (tile, 3, side, side) float32, prompt order."""
    from safetensors.numpy import save_file

    images = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue] - a transformers processor
    tensors: dict[str, np.ndarray] = {}
    for number, example in enumerate(examples):
        tiles = _tiles(example, prompt)
        if not example.tiles:
            continue
        stacked = np.stack([tiles[ref.medium][ref.tile] for ref in example.tiles])
        tensors[f"sample_{number}"] = pixel_values(
            stacked, mean=images.image_mean, std=images.image_std, rescale_factor=images.rescale_factor
        )
    save_file(tensors, path)
    print(f"pixels: {path}", file=sys.stderr)


def _verify(config: RunConfig, dataset: SupervisedDataset, samples: Sequence[Rows], processor: object) -> None:
    """Check packed = alone on the first samples that fit one pack; exit status 3 where it does not hold."""
    members: list[Rows] = []
    tokens = tiles = 0
    for rows in _comparable(dataset, samples, processor):
        own_tokens, own_tiles = sample_size(rows, dataset.measured.lengths)
        if tokens + own_tokens > config.data.max_tokens_per_pack or tiles + own_tiles > config.data.max_tiles_per_pack:
            break
        members.append(rows)
        tokens, tiles = tokens + own_tokens, tiles + own_tiles
    pack = dataset.build(PlannedPack(samples=tuple(members), num_tokens=tokens, num_tiles=tiles))
    numbers = [row for rows in members for row in rows]
    found = verify_pack(dataset, pack, numbers, settings=config.model, processor=processor)
    print("\n".join([verification_text(found), *_not_part_of_it(config)]), file=sys.stderr)
    if not found.holds:
        raise typer.Exit(FAILED_CHECK)


def _not_part_of_it(config: RunConfig) -> list[str]:
    """Return a note on what of a run the comparison leaves out: it is of the base, all of whose weights train."""
    left_out = {
        "adapters": any(entry.is_adapter for _, entry in config.adapters.entries()),
        "quantisation": config.quantization.bits is not None,
        "the preference loss (the sum over both answers stands for it)": config.train.method == "dpo",
    }
    named = [name for name, is_there in left_out.items() if is_there]
    told = f"  compared with all weights of the base training; not part of it: {', '.join(named)}"
    return [told] if named else []


def _comparable(dataset: SupervisedDataset, samples: Sequence[Rows], processor: object) -> list[Rows]:
    """Return the samples that the stock processor can express, and name the others.

    Raises:
        ConfigError: there are none.
    """
    found: list[Rows] = []
    for rows in samples:
        conversations = [dataset.measured.conversations[number] for number in rows]
        taken = {row.where: special_tokens_in(processor, row) for row in conversations}
        for where, tokens in taken.items():
            if tokens:
                what = f"its text has {', '.join(tokens)}, which the stock processor takes for more than text"
                print(f"{where}: not compared: {what}; here it stays text", file=sys.stderr)
        if not any(taken.values()):
            found.append(rows)
    if not found:
        raise ConfigError("none of these samples can be compared", where="--verify", fix="choose others with --rows")
    return found


def verification_text(found: Verification) -> str:
    """Return what `--verify` prints."""
    lines = [
        f"packed = alone, on {found.num_conversations} conversations "
        f"({found.num_tokens_packed:,} tokens packed, {found.num_tokens_alone:,} alone), float64:",
        f"  ids        {'equal' if not found.ids_differ else 'DIFFER in ' + ', '.join(found.ids_differ)}",
        f"  loss       {found.loss_packed:.8f} packed, {found.loss_alone:.8f} alone, "
        f"error {found.loss_error:.1e} (allowed {LOSS_TOLERANCE:g})",
    ]
    lines += [
        f"  gradients  {tower:<16} error {error:.1e} (allowed {GRADIENT_TOLERANCE:g})"
        for tower, error in found.gradient_error.items()
    ]
    verdict = (
        "  holds"
        if found.holds
        else "  DOES NOT HOLD: do not train on this; please report it with these rows and versions"
    )
    return "\n".join([*lines, verdict])
