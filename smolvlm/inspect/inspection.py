"""What a run would see and learn, without training: settings in, samples out.

Reads the processor, the rows and the headers, and plans the run as training would; no weights are
read. An `Inspection` shows itself: as text, as a page, as a notebook's output, as objects for other
programs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float32
from rich.console import Console

from smolvlm.checkpoints.base import base_of_run
from smolvlm.checkpoints.processor_keys import pixel_scaling
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.columns import PlannedPack, Rows
from smolvlm.errors import ConfigError, located
from smolvlm.inspect.data import as_json_object, check_learned, inspect_example, token_texts
from smolvlm.inspect.page import write_inspect_page
from smolvlm.inspect.records import InspectedSample, PackFill, PackSummary, TilePixels
from smolvlm.inspect.terminal import print_samples
from smolvlm.media.medium import open_medium
from smolvlm.media.tiles import pixel_values
from smolvlm.protocols import Processor
from smolvlm.records import Example
from smolvlm.terminal import console as terminal_console
from smolvlm.train.planned_rows import plan_run


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Some samples of a run's first epoch, in the order of the rows they begin with."""

    examples: tuple[Example, ...]
    """As training gets them; a tree is one."""
    samples: tuple[Rows, ...]
    """Numbers of each one's rows in the data set."""
    summary: PackSummary
    """How full the packs of the epoch are."""
    dataset: PackDataset
    prompt: PromptSettings
    processor: Processor
    title: str

    def as_objects(self) -> list[dict[str, object]]:
        """Return each sample as `smolvlm inspect --json` writes it."""
        decode = token_texts(self.processor.tokenizer.backend_tokenizer)
        return [as_json_object(example, decode) for example in self.examples]

    def inspected(self, *, with_tiles: bool = False) -> list[InspectedSample]:
        """Return each sample laid out; with its pictures' pixels where asked.

        Raises:
            SampleError: a picture or a clip cannot be decoded.
        """
        decode = token_texts(self.processor.tokenizer.backend_tokenizer)
        return [
            inspect_example(
                example,
                decode=decode,
                image_token_id=self.prompt.tokens.image,
                **({"tiles": self.tiles_of(example)} if with_tiles else {}),
            )
            for example in self.examples
        ]

    def tiles_of(self, example: Example) -> list[TilePixels]:
        """Return the tiles of each of a sample's pictures and clips."""
        pairs = zip(example.media, example.layouts, strict=True)
        with located(example.where[0]):
            return [
                open_medium(medium, layout, self.prompt.media).tiles() for medium, layout in pairs
            ]

    def pixel_values(self) -> dict[str, Float32[np.ndarray, "tile 3 side side"]]:
        """Return each sample's tiles as the tower gets them: `sample_<n>`; none for text."""
        scaling = pixel_scaling(self.processor.image_processor)
        values: dict[str, np.ndarray] = {}
        for number, example in enumerate(self.examples):
            tiles = self.tiles_of(example)
            if not example.tiles:
                continue
            stacked = np.stack([tiles[ref.medium][ref.tile] for ref in example.tiles])
            values[f"sample_{number}"] = pixel_values(
                stacked,
                mean=scaling.mean,
                std=scaling.std,
                rescale_factor=scaling.rescale_factor,
            )
        return values

    def write_html(self, path: str | Path) -> Path:
        """Write a page that needs nothing else, and return its path."""
        samples = self.inspected(with_tiles=True)
        return write_inspect_page(samples, path=Path(path), title=self.title, summary=self.summary)

    def print_to(self, console: Console) -> None:
        """Write the samples to a terminal."""
        print_samples(console, self.inspected(), summary=self.summary)

    def __str__(self) -> str:
        text = StringIO()
        self.print_to(terminal_console(file=text, width=100, no_color=True))
        return text.getvalue()

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the page, in a frame of its own."""
        with TemporaryDirectory() as folder:
            page = self.write_html(Path(folder) / "inspect.html").read_text(encoding="utf-8")
        quoted = page.replace("&", "&amp;").replace('"', "&quot;")
        style = "width: 100%; height: 40em; border: 0"
        return f'<iframe sandbox srcdoc="{quoted}" style="{style}"></iframe>'


def inspect_run(
    config: RunConfig, *, start: int = 0, end: int | None = 4, title: str = "samples"
) -> Inspection:
    """Return the samples [start, end) of a run's first epoch.

    Args:
        config: the settings; `model.path` is a folder or a hub id.
        start: number of the first sample; negative counts from the end.
        end: behind the last; None is the end.
        title: of the page.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it; or there is no such
            sample.
    """
    base = base_of_run(config.model)
    prompt, planned = plan_run(config, base)
    dataset = PackDataset(
        planned.measured,
        planned.plan,
        encoder=prompt.encoder(loss_weighting=config.data.loss_weighting),
        settings=prompt.media,
    )
    first_epoch = planned.plan.packs[: planned.plan.epoch_ends[0] * planned.plan.packs_per_step]
    samples = sorted(tuple(sorted(members)) for pack in first_epoch for members in pack.samples)
    chosen = samples[start:end]
    if not chosen:
        what = f"no sample in {start}:{'' if end is None else end}"
        raise ConfigError(what, where="samples", fix=f"there are {len(samples):,} samples")
    examples = [dataset.example(members) for members in chosen]
    for example in examples:
        check_learned(example, image_token_id=prompt.tokens.image)
    return Inspection(
        examples=tuple(examples),
        samples=tuple(chosen),
        summary=_summary(first_epoch, config),
        dataset=dataset,
        prompt=prompt,
        processor=base.run_processor(),
        title=title,
    )


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
    num_samples = sum(len(pack.samples) for pack in packs)
    return PackSummary(packs=fills, num_samples=num_samples)
