"""`python -m benchmarks.pipeline`: samples a second of one core, from rows to a batch, beside the
released processor, and how many cores feed one H200.

Four kinds of rows: texts, one photo (one tile), square pages (17 tiles), and clips of 64 s of which
64 frames are shown (`clip_rows`). Ours does what a loader worker does with an item of the dataset:
decode, cut to uint8, encode the texts, join a pack; and once more with features that a vision cache
has, handed over from memory, so that reading them from the disk is not counted. The released
processor does what a collator does with the same rows: pictures opened, clips read by
`transformers.video_utils.load_video` (the same frames, by number; pyav and decord), its chat
template, one call that pads, and labels. Its floats are normalised; ours the device normalises.

CPU time of all threads, in turns within one process of one thread; medians. The tiles of both are
counted first: exit status 3 says that the systems do not do the same. The cores are those that keep
up with one H200 at the pace that `feeding` states. Rows are those of the 256M model for all sizes
(512-px tiles of 64 tokens); the 2.2B model has tiles of 384 px and 81 tokens.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoProcessor
from transformers.image_utils import load_image
from transformers.video_utils import load_video

from benchmarks.clip_rows import CLIP_S, read_clip_rows, write_clip_rows
from benchmarks.feeding import Sample, feeding_table
from benchmarks.model_files import write_model
from benchmarks.ours import plan_steps
from benchmarks.peer_model import answer_text, prompt_text
from benchmarks.rows import Content, Row, read_rows, write_rows
from smolvlm.config.load import config_from
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.packing.pack import Pack
from smolvlm.records import Frames
from smolvlm.train.planned_rows import plan_run

EXIT_WORK_DIFFERS = 3
OURS, WITH_FEATURES = "ours", "ours, features kept"
PEER, PEER_PYAV, PEER_DECORD = "processor", "processor on pyav", "processor on decord"
Turn = Callable[[], int]
"""Does all rows of a kind once; returns the number of tiles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Rows of one kind."""

    name: str
    content: Content
    num_rows: int
    is_cut: bool = False
    """Whether pictures are cut into tiles."""


KINDS = (
    Kind(name="texts", content="text", num_rows=64),
    Kind(name="one photo", content="picture", num_rows=16),
    Kind(name="page of 17 tiles", content="page", num_rows=4, is_cut=True),
    Kind(name="clip, 64 frames of 64 s", content="clip", num_rows=2),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, measure, print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pipeline", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=7, help="measured turns of each system")
    parser.add_argument("--tiny", action="store_true", help="tiles of 32 px: checks, no measure")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 120)
    is_same, samples = True, []
    table = Table("rows", "system", title=f"from rows to a batch, one core, {options.rounds} turns")
    for heading in ("samples/s", "CPU ms a sample", "ours is faster by"):
        table.add_column(heading, justify="right")
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as folder:
        for kind in KINDS:
            work = Work(Path(folder), kind, is_tiny=options.tiny)
            counts = {name: turn() for name, turn in work.systems().items()}
            is_same &= len({counts[name] for name in counts if name != WITH_FEATURES}) == 1
            seconds = measure(work.systems(), num_rounds=options.rounds)
            add_lines(table, kind, seconds)
            samples.append(work.sample(seconds))
    console.print(table)
    console.print(feeding_table(samples))
    return 0 if is_same else EXIT_WORK_DIFFERS


class Work:
    """What each system does with the rows of a kind."""

    def __init__(self, folder: Path, kind: Kind, *, is_tiny: bool) -> None:
        self.kind = kind
        self._is_clip = kind.content == "clip"
        model, rows = folder / f"model-{kind.is_cut}", folder / kind.content
        if not model.exists():
            write_model(model, is_tiny=is_tiny, layers=(1, 1), image_splitting=kind.is_cut)
        if self._is_clip:
            seconds = CLIP_S // 16 if is_tiny else CLIP_S
            self._file = write_clip_rows(rows, num_clips=kind.num_rows, seconds=seconds)
            self._rows = read_clip_rows(self._file)
        else:
            self._file = write_rows(
                rows,
                num_pictures=kind.num_rows,
                questions_per_picture=1,
                seed=0,
                content=kind.content,
            )
            self._rows = [(row, row.images[0] if row.images else None) for row in self._read()]
        self._processor: Any = AutoProcessor.from_pretrained(str(model))
        self._dataset = self._make_dataset(model, PackOptions())
        self._features = self._make_dataset(
            model, PackOptions(read_features=lambda keys: [self._feature] * len(keys))
        )
        self._feature = torch.zeros((64, 576), dtype=torch.bfloat16)

    def _read(self) -> list[Row]:
        return read_rows(self._file)

    def _make_dataset(self, model: Path, options: PackOptions) -> PackDataset:
        content = {
            "model": {"path": str(model)},
            "data": {
                "mixture": [{"json_path": str(self._file), "name": "rows"}],
                "max_tokens_per_pack": 8192,
            },
            "train": {"output_dir": str(model.parent / "run")},
        }
        config = config_from(content, [], where="benchmark")
        prompt, planned = plan_run(config)
        plan = plan_steps(planned.measured, [tuple(range(self.kind.num_rows))], config.data)
        encoder = prompt.encoder(loss_weighting=config.data.loss_weighting)
        return PackDataset(
            planned.measured, plan, encoder=encoder, settings=prompt.media, options=options
        )

    def systems(self) -> dict[str, Turn]:
        """Return what is measured, by name."""
        ours: dict[str, Turn] = {OURS: lambda: self._ours(self._dataset)}
        if self.kind.content != "text":
            ours[WITH_FEATURES] = lambda: self._ours(self._features)
        if not self._is_clip:
            return ours | {PEER: lambda: self._peer("")}
        return ours | {
            PEER_PYAV: lambda: self._peer("pyav"),
            PEER_DECORD: lambda: self._peer("decord"),
        }

    def sample(self, seconds: dict[str, list[float]]) -> Sample:
        """Return what a row of this kind is, and what ours takes of a core for it."""
        packs = [self._dataset[number] for number in range(len(self._dataset))]
        count = self.kind.num_rows
        return Sample(
            name=self.kind.name,
            tokens=sum(len(pack.input_ids) for pack in packs) // count,
            tiles=sum(map(_num_tiles, packs)) // count,
            targets=sum(len(pack.target_ids) for pack in packs) // count,
            cpu_s=median(seconds[OURS]) / count,
            cached_cpu_s=median(seconds.get(WITH_FEATURES, seconds[OURS])) / count,
        )

    def _ours(self, dataset: PackDataset) -> int:
        if dataset is self._dataset:
            self._forget()
        return sum(_num_tiles(dataset[number]) for number in range(len(dataset)))

    def _forget(self) -> None:
        """Touch the files, so that nothing remembered of them counts."""
        for _, medium in self._rows:
            if medium is not None:
                os.utime(medium)

    def _peer(self, backend: str) -> int:
        media: dict[str, Any] = {}
        texts = [self._peer_text(row) for row, _ in self._rows]
        if self._is_clip:
            read = [
                load_video(str(path), backend=backend, sample_indices_fn=self._asking(number))
                for number, (_, path) in enumerate(self._rows)
            ]
            media = {
                "videos": [[pixels] for pixels, _ in read],
                "video_metadata": [[metadata] for _, metadata in read],
                "do_sample_frames": False,
            }
        elif self.kind.content != "text":
            media = {"images": [[load_image(str(path))] for _, path in self._rows]}
        batch = self._processor(text=texts, padding=True, return_tensors="pt", **media)
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        mask = batch.get("pixel_attention_mask")
        return 0 if mask is None else int(mask.flatten(2).any(2).sum())

    def _peer_text(self, row: Row) -> str:
        if not self._is_clip:
            return prompt_text(self._processor, row) + answer_text(row)
        content = [{"type": "video"}, {"type": "text", "text": row.question}]
        turns = [{"role": "user", "content": content}]
        prompt = self._processor.apply_chat_template(turns, add_generation_prompt=True)
        return prompt + answer_text(row)

    def _asking(self, number: int) -> Callable[..., np.ndarray]:
        (layout,) = self._dataset.layouts(self._dataset.measured.conversations[number])
        assert isinstance(layout, Frames)
        numbers = np.asarray(layout.numbers)
        return lambda **_: numbers


def _num_tiles(pack: Pack) -> int:
    return len(pack.tiles)


def measure(systems: dict[str, Turn], *, num_rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each turn by system, the systems taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(num_rounds):
        for name, turn in systems.items():
            began = time.process_time()
            turn()
            seconds[name].append(time.process_time() - began)
    return seconds


def add_lines(table: Table, kind: Kind, seconds: dict[str, list[float]]) -> None:
    """Add a line for each system."""
    ours = median(seconds[OURS])
    for name, turns in seconds.items():
        middle = median(turns)
        table.add_row(
            kind.name,
            name,
            f"{kind.num_rows / middle:.1f}",
            f"{middle / kind.num_rows * 1e3:.2f}",
            f"{middle / ours:.2f}",
        )


if __name__ == "__main__":
    sys.exit(main())
