"""`smolvlm inspect`: what the model would see and learn, before a GPU is paid for.

The model is loaded only for `--verify`.
"""

from collections.abc import Sequence
from pathlib import Path

import typer
from safetensors.numpy import save_file

from smolvlm.cli.train import to_stderr
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.columns import PlannedPack, Rows
from smolvlm.datasets.packing.plan import sample_size
from smolvlm.errors import ConfigError
from smolvlm.inspect.inspection import Inspection, inspect_run
from smolvlm.inspect.stock_inputs import special_tokens_in
from smolvlm.inspect.verify import GRADIENT_TOLERANCE, LOSS_TOLERANCE, Verification, verify_pack
from smolvlm.model.towers import TOWERS
from smolvlm.runs.model import with_model
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say, say_json

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
    config = with_model(load_run_config(run_file, overrides), say=to_stderr)
    start, end = _bounds(rows)
    inspection = inspect_run(config, start=start, end=end, title=run_file.name)
    if as_json:
        for sample in inspection.as_objects():
            say_json(sample)
    else:
        inspection.print_to(terminal_console())
    if html is not None:
        say(f"page: {inspection.write_html(html)}")
    if pixels is not None:
        save_file(inspection.pixel_values(), pixels)
        say(f"pixels: {pixels}")
    if verify:
        _verify(config, inspection)


def _bounds(rows: str) -> tuple[int, int | None]:
    """Return start and end of `start:end`, or of one number."""
    start, colon, end = rows.partition(":")
    try:
        if not colon:
            return int(start), int(start) + 1
        return int(start or 0), int(end) if end else None
    except ValueError as error:
        raise typer.BadParameter(
            f"--rows takes start:end, for example 0:8, not {rows!r}"
        ) from error


def _verify(config: RunConfig, inspection: Inspection) -> None:
    """Check packed = alone on the first samples that fit one pack; exit with 3 if it fails."""
    dataset, samples, processor = inspection.dataset, inspection.samples, inspection.processor
    members: list[Rows] = []
    tokens = tiles = 0
    for rows in _comparable(dataset, samples):
        own_tokens, own_tiles = sample_size(rows, dataset.measured.lengths)
        if (
            tokens + own_tokens > config.data.max_tokens_per_pack
            or tiles + own_tiles > config.data.max_tiles_per_pack
        ):
            break
        members.append(rows)
        tokens, tiles = tokens + own_tokens, tiles + own_tiles
    pack = dataset.build(PlannedPack(samples=tuple(members), num_tokens=tokens, num_tiles=tiles))
    numbers = [row for rows in members for row in rows]
    verification = verify_pack(dataset, pack, numbers, config=config, processor=processor)
    say(verification_text(verification))
    if not verification.holds:
        raise typer.Exit(FAILED_CHECK)


def _comparable(dataset: PackDataset, samples: Sequence[Rows]) -> list[Rows]:
    """Return the samples that the stock processor can express, and name the others.

    Raises:
        ConfigError: there are none.
    """
    comparable: list[Rows] = []
    for rows in samples:
        conversations = [dataset.measured.conversations[number] for number in rows]
        kept = dataset.encoder.tokens_kept_as_text
        taken = {row.where: special_tokens_in(row, kept) for row in conversations}
        for where, tokens in taken.items():
            if tokens:
                what = (
                    f"its text has {', '.join(tokens)}, which the stock processor takes for more "
                    f"than text"
                )
                say(f"{where}: not compared: {what}; here it stays text")
        if not any(taken.values()):
            comparable.append(rows)
    if not comparable:
        raise ConfigError(
            "none of these samples can be compared",
            where="--verify",
            fix="choose others with --rows",
        )
    return comparable


def verification_text(verification: Verification) -> str:
    """Return what `--verify` prints."""
    differing = ", ".join(verification.ids_differ)
    lines = [
        f"packed = alone, on {verification.num_conversations} {verification.row_words} "
        f"({verification.num_tokens_packed:,} tokens packed, "
        f"{verification.num_tokens_alone:,} alone), float64:",
        f"  ids        {f'DIFFER in {differing}' if differing else 'equal'}",
        f"  loss       {verification.loss_packed:.8f} packed, {verification.loss_alone:.8f} alone, "
        f"error {verification.loss_error:.1e} (allowed {LOSS_TOLERANCE:g})",
    ]
    for tower in TOWERS:
        error = verification.gradient_error.get(tower)
        words = "does not train"
        if error is not None:
            words = f"error {error:.1e} (allowed {GRADIENT_TOLERANCE:g})"
        lines.append(f"  gradients  {tower:<16} {words}")
    lines += [f"  compared   {words}" for words in verification.compared]
    lines += [f"  not covered: {words}" for words in verification.not_covered]
    verdict = (
        "  holds"
        if verification.holds
        else "  DOES NOT HOLD: do not train on this; please report it with these rows and versions"
    )
    return "\n".join([*lines, verdict])
