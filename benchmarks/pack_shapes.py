"""`python -m benchmarks.pack_shapes`: how many different shapes the packs of a run have, as they
are and padded.

The benchmark's rows, a file each of wide pictures, pages, captions and texts, in one mixture at the
released tile size; the plan is a run's. Of each part of a step the shapes that it meets: the tower
by tiles, the language model by tokens, the loss by targets, the connector by image slots. What
padding adds is in percent of all packs together.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.processes import write_model_apart
from benchmarks.rows import Content, write_rows
from smolvlm.checkpoints.load import load_processor
from smolvlm.config.schema import DataConfig
from smolvlm.datasets.builder import measure_mixture, plan_data, read_prompt
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.packing.buckets import PackBuckets
from smolvlm.datasets.packing.pack import Pack
from smolvlm.model.attention.flex import plan_flex

PICTURES: dict[Content, tuple[int, int]] = {
    "wide_picture": (260, 5),
    "page": (30, 2),
    "caption": (60, 1),
    "text": (100, 4),
}
"""Content -> (pictures, questions of each)."""
PACKS = 100
AXES = {
    "tokens (language model)": lambda pack: len(pack.input_ids),
    "targets (loss)": lambda pack: len(pack.target_ids),
    "tiles (tower)": lambda pack: len(pack.tiles),
    "image slots (connector)": lambda pack: len(pack.slot_tiles),
}


def packs_of(folder: Path, *, tokens: int) -> Iterator[Pack]:
    """Yield the first packs of a run over the mixture."""
    write_model_apart(folder / "model", is_tiny=False, layers=(1, 1), image_splitting=True)
    files = [
        write_rows(
            folder / content,
            num_pictures=pictures,
            questions_per_picture=questions,
            seed=0,
            content=content,
        )
        for content, (pictures, questions) in PICTURES.items()
    ]
    data = DataConfig(
        mixture=[{"path": str(file), "name": file.parent.name} for file in files],
        max_tokens_per_pack=tokens,
    )
    prompt = read_prompt(load_processor(str(folder / "model")), data)
    measured = measure_mixture(data.mixture, data, prompt=prompt)
    planned = plan_data(measured, data, packs_per_step=4, seed=0, num_epochs=8)
    packs = PackDataset(measured, planned.plan, encoder=prompt.encoder(), settings=prompt.media)
    buckets = PackBuckets(pad_id=prompt.tokens.pad, plan_attention=plan_flex)
    print(json.dumps({"packs": len(packs), "budget_tokens": tokens}), file=sys.stderr)
    for number in range(PACKS):
        pack = packs[number]
        yield pack
        yield buckets(pack)


def main() -> int:
    """Print a table and return the exit status."""
    for tokens in (4096, 16_384):
        with tempfile.TemporaryDirectory() as folder:
            sizes = [
                tuple(size(pack) for size in AXES.values())
                for pack in packs_of(Path(folder), tokens=tokens)
            ]
        plain, padded = sizes[0::2], sizes[1::2]
        table = Table("axis", "as they are", "padded", "added, %", title=f"{tokens} tokens a pack")
        for axis, name in enumerate(AXES):
            before, after = ([size[axis] for size in packs] for packs in (plain, padded))
            added = 100 * (sum(after) / sum(before) - 1)
            table.add_row(name, str(len(set(before))), str(len(set(after))), f"{added:.1f}")
        table.add_row("all together", str(len(set(plain))), str(len(set(padded))), "")
        Console(width=None if sys.stdout.isatty() else 100).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
