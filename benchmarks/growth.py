"""`python -m benchmarks.growth`: how time and memory grow with what a run is given.

Four families of packs, at the 256M model's widths with one layer of the tower and two of the
language model, everything trained: one conversation that fills the pack, rows of 128 tokens that
fill it, tiles a pack, branches a tree. Of each: processor seconds of forward and backward, and the
most memory that the pass adds to the process, weights and gradients not counted. An eighth of a
row's words is learned. Two families of rows on the data side: an epoch planned over sizes that were
drawn, and the lines of a JSON file indexed for the first time.

Every point is a process of its own, so that no point's memory is another's. Slopes are of straight
lines through the logarithms: 1 is growth in proportion, 2 with the square; over all points, and
over the last two, where constant costs count least. Written: a table, the points as JSON, and the
picture `docs/figures/growth.png`, dark one beside.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plots import Palette, write_pictures
from benchmarks.worker_memory import begin_peak, peak_rss_bytes, rss_bytes
from smolvlm.parent_process import Parent

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"
KEPT = ROOT / "benchmarks" / "growth_points.json"
LAYERS = (1, 2)
ROW_TOKENS = 128
BRANCH_TOKENS = 64
CONTEXT_TOKENS = 65_536
ENOUGH_S = 3.0
"""A pass is repeated up to three times within it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Points that differ in one number."""

    title: str
    unit: str
    """What the number counts."""
    sizes: tuple[int, ...]
    panel: str
    """Families of one panel share its axis."""


FAMILIES: Mapping[str, Family] = {
    "conversation": Family(
        title="one conversation",
        unit="tokens",
        sizes=(1024, 2048, 4096, 8192, 16_384, 32_768),
        panel="tokens a pack",
    ),
    "rows": Family(
        title="rows of 128 tokens",
        unit="tokens",
        sizes=(1024, 2048, 4096, 8192, 16_384, 32_768),
        panel="tokens a pack",
    ),
    "tiles": Family(
        title="tiles", unit="tiles", sizes=(1, 2, 4, 8, 16, 32, 64), panel="tiles a pack"
    ),
    "branches": Family(
        title="branches of 64 tokens",
        unit="branches",
        sizes=(1, 2, 4, 8, 16, 32, 64),
        panel="branches a tree",
    ),
    "planning": Family(
        title="an epoch planned",
        unit="rows",
        sizes=(10**4, 10**5, 10**6, 10**7),
        panel="rows of a mixture",
    ),
    "index": Family(
        title="JSON lines indexed",
        unit="rows",
        sizes=(10**4, 10**5, 10**6),
        panel="rows of a mixture",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One measurement."""

    family: str
    size: int
    cpu_s: float
    added_bytes: int
    """The most that the process held over what it had before."""


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent of growth: the slope of a line through the logarithms.

    (1, 2, 4) with (3, 6, 12) gives 1.

    Raises:
        ValueError: fewer than two points, or a value that is not above 0.
    """
    if len(sizes) < 2 or min(values) <= 0:
        raise ValueError(f"no line through {list(zip(sizes, values, strict=True))}")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measure_point(family: str, size: int, folder: Path) -> Point:
    """Measure one point in this process; the model's checkpoint lies in `folder / "model"`."""
    measure = {"planning": _plan, "index": _index}.get(family)
    if measure is not None:
        cpu_s, added = measure(size, folder)
        return Point(family=family, size=size, cpu_s=cpu_s, added_bytes=added)
    cpu_s, added, tokens = _pass(family, size, folder)
    is_length = FAMILIES[family].unit == "tokens"
    return Point(family=family, size=tokens if is_length else size, cpu_s=cpu_s, added_bytes=added)


def _measured(run: Callable[[], object]) -> tuple[float, int]:
    """Return processor seconds and the bytes added at the peak."""
    begin_peak()
    before, begun = rss_bytes(), time.process_time()
    made = run()  # kept until the peak is read
    seconds, peak = time.process_time() - begun, peak_rss_bytes()
    del made
    return seconds, max(peak - before, 1)


def _plan(size: int, _folder: Path) -> tuple[float, int]:
    from smolvlm.datasets.packing.lengths import Budget, LengthTable
    from smolvlm.datasets.packing.plan import PlanSettings, plan_training

    random = np.random.default_rng(0)
    tokens = np.clip(random.lognormal(4.5, 0.8, size), 10, 4000).astype(np.int32)
    none = np.zeros(size, np.int32)
    lengths = LengthTable(
        num_tokens=tokens,
        num_tiles=none,
        num_supervised_tokens=tokens // 2,
        prefix_tokens=none,
        prefix_tiles=none,
        prefix_group=none - 1,
        repeats=np.ones(size, np.float32),
    )
    settings = PlanSettings(
        budget=Budget(max_tokens=4096, max_tiles=64),
        packs_per_step=4,
        share_media=True,
        max_branches=16,
        seed=0,
    )
    return _measured(lambda: plan_training(lengths, settings))


def _index(size: int, folder: Path) -> tuple[float, int]:
    from smolvlm.datasets.rows.conversations import open_sources
    from smolvlm.datasets.rows.mixture import load_mixture

    file = folder / f"{size}.jsonl"
    with file.open("w", encoding="utf-8") as lines:
        for number in range(size):
            words = "word " * (number % 37 + 3)
            lines.write(f'{{"question": "What is {number}? {words}", "answer": "a number"}}\n')
    sources = load_mixture([{"path": file.name}], base_dir=folder)
    return _measured(lambda: open_sources(sources))


def _pass(family: str, size: int, folder: Path) -> tuple[float, int, int]:
    """Return seconds and bytes of forward and backward over one pack, and its tokens."""
    import torch

    from smolvlm.checkpoints.learning_rates import LearningRates, freeze
    from smolvlm.checkpoints.load import load_checkpoint

    torch.set_num_threads(1)
    checkpoint = load_checkpoint(str(folder / "model"))
    model = checkpoint.model
    rates = {"vision_tower": 1e-5, "connector": 1e-5, "language_model": 1e-5}
    freeze(model, LearningRates(full=rates))
    work = folder / f"{family}_{size}"
    warm_up, pack = (
        _pack(lines, checkpoint.processor, work / name)
        for name, lines in (("first", _lines(family, 1)), ("pack", _lines(family, size)))
    )

    def step(own: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=_is_bf16()):
            loss = model(pack=own.model_tensors(), normalizer=1.0).loss
        loss.backward()

    step(warm_up)  # makes the gradients, which the peak then does not count
    seconds, added = _measured(lambda: step(pack))
    further = [seconds]
    while len(further) < 3 and sum(further) < ENOUGH_S:
        further.append(_measured(lambda: step(pack))[0])
    return float(np.median(further)), added, pack.num_tokens


def _is_bf16() -> bool:
    from smolvlm.train.bf16_units import has_bf16_units

    return has_bf16_units()


def _lines(family: str, size: int) -> list[dict[str, Any]]:
    """Return the rows of a pack; `size` 1 is the smallest of its family."""
    if family == "conversation":
        return [_words(max(size, ROW_TOKENS))]
    if family == "rows":
        return [_words(ROW_TOKENS) for _ in range(max(size // ROW_TOKENS, 1))]
    if family == "tiles":
        return [_words(16) | {"image": f"{number}.jpg"} for number in range(size)]
    return [_words(BRANCH_TOKENS) | {"image": "0.jpg"} for _ in range(size)]


_TEMPLATE_TOKENS = 10


def _words(num_tokens: int) -> dict[str, Any]:
    answer = max(num_tokens // 8, 2)
    question = max(num_tokens - answer - _TEMPLATE_TOKENS, 1)
    return {"question": "word" + " word" * question, "answer": "word" + " word" * (answer - 1)}


def _pack(lines: Sequence[Mapping[str, Any]], processor: Any, folder: Path) -> Any:
    """Write rows with their pictures, and return the pack that holds them all."""
    from PIL import Image

    from benchmarks.ours import plan_steps
    from smolvlm.config.schema import DataConfig
    from smolvlm.datasets.builder import measure_mixture, read_prompt
    from smolvlm.datasets.dataset import PackDataset

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in {line["image"] for line in lines if "image" in line}:
        pixels = random.integers(0, 256, (64, 64, 3), np.uint8)  # each picture has its own key
        Image.fromarray(pixels).resize((512, 512)).save(folder / name, quality=92)
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    data = DataConfig(
        mixture=[{"path": str(file)}],
        image_splitting=False,
        max_tokens_per_pack=CONTEXT_TOKENS,
        max_tiles_per_pack=128,
        max_branches=128,
    )
    prompt = read_prompt(processor, data)
    measured = measure_mixture(data.mixture, data, prompt=prompt)
    packs = PackDataset(
        measured,
        plan_steps(measured, [tuple(range(len(lines)))], data),
        encoder=prompt.encoder(),
        settings=prompt.media,
    )
    assert len(packs) == 1
    return packs[0]


def measure_apart(family: str, size: int, folder: Path) -> Point:
    """Measure one point in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed; it has written why.
    """
    environment = os.environ | {
        "SMOLVLM_HOME": str(folder / "home"),
        "OMP_NUM_THREADS": "1",
        "THP_MEM_ALLOC_ENABLE": "1",
    }
    own = ["--point", f"{family}:{size}", "--work-dir", str(folder)]
    command = Parent.here().command([sys.executable, "-m", "benchmarks.growth", *own])
    answer = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return Point(**json.loads(answer.splitlines()[-1]))


def table(points: Sequence[Point]) -> str:
    """Return a line a family: seconds and memory at both ends, and the slopes."""
    heads = ("what grows", "from, to", "CPU seconds", "slope, of the last two")
    heads += ("memory added, MB", "slope, of the last two")
    lines = [heads, ("---",) * len(heads)]
    for name, own in _by_family(points).items():
        family = FAMILIES[name]
        sizes = [point.size for point in own]
        seconds, added = [point.cpu_s for point in own], [point.added_bytes / 1e6 for point in own]
        lines.append(
            (
                family.title,
                f"{sizes[0]:,} to {sizes[-1]:,} {family.unit}",
                f"{seconds[0]:.3g} to {seconds[-1]:.3g}",
                _slopes(sizes, seconds),
                f"{added[0]:.3g} to {added[-1]:.3g}",
                _slopes(sizes, added),
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _slopes(sizes: Sequence[float], values: Sequence[float]) -> str:
    if len(sizes) < 2:
        return ""
    return f"{slope(sizes, values):.2f}, {slope(sizes[-2:], values[-2:]):.2f}"


def _by_family(points: Sequence[Point]) -> dict[str, list[Point]]:
    found = {name: [own for own in points if own.family == name] for name in FAMILIES}
    return {name: sorted(own, key=lambda point: point.size) for name, own in found.items() if own}


def draw(figure: Any, palette: Palette, points: Sequence[Point]) -> None:
    """Draw a column a panel: seconds above, memory below, both axes logarithmic."""
    families = _by_family(points)
    panels = list(dict.fromkeys(FAMILIES[name].panel for name in families))
    axes = figure.subplots(2, len(panels), sharex="col", squeeze=False)
    for column, panel in enumerate(panels):
        names = [name for name in families if FAMILIES[name].panel == panel]
        for colour, name in zip(palette.series, names, strict=False):
            own = families[name]
            sizes = [point.size for point in own]
            for row, values in enumerate(
                ([point.cpu_s for point in own], [point.added_bytes / 1e6 for point in own])
            ):
                label = f"{FAMILIES[name].title}: slope {_slopes(sizes, values)}"
                axes[row][column].plot(
                    sizes, values, marker="o", markersize=4, color=colour, label=label
                )
        for own_axes in axes[:, column]:
            own_axes.set_xscale("log")
            own_axes.set_yscale("log")
            own_axes.grid(color=palette.soft, alpha=0.3, linewidth=0.5)
            own_axes.legend(fontsize=7)
        axes[1][column].set_xlabel(panel)
    axes[0][0].set_ylabel("CPU seconds")
    axes[1][0].set_ylabel("memory added, MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the points and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--family", action="append", choices=tuple(FAMILIES), help="this alone")
    parser.add_argument("--most", type=int, help="leave out larger sizes")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: checks the script")
    parser.add_argument("--kept", type=Path, default=KEPT, help="JSON file of the points")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the pictures")
    parser.add_argument("--work-dir", type=Path, help="where temporary files lie")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.point:
        family, _, size = options.point.partition(":")
        print(json.dumps(asdict(measure_point(family, int(size), options.work_dir))))
        return 0
    if options.tiny and options.kept == KEPT:
        parser.error("--tiny measures nothing: name files for it with --kept and --figures")
    points = _kept(options.kept)
    with tempfile.TemporaryDirectory(prefix="smolvlm-growth-", dir=options.work_dir) as name:
        folder = Path(name)
        _write_model_apart(folder / "model", is_tiny=options.tiny)
        for family in options.family or FAMILIES:
            sizes = [size for size in FAMILIES[family].sizes if size <= (options.most or size)]
            points = [own for own in points if own.family != family]
            for size in sizes:
                points.append(measure_apart(family, size, folder))
                print(points[-1], file=sys.stderr, flush=True)
            _keep(options.kept, points)
    print(table(points))
    write_pictures(
        options.figures,
        "growth",
        lambda figure, colours: draw(figure, colours, points),
        size_in=(13, 6),
    )
    return 0


def _kept(path: Path) -> list[Point]:
    if not path.exists():
        return []
    return [Point(**point) for point in json.loads(path.read_text(encoding="utf-8"))]


def _keep(path: Path, points: Sequence[Point]) -> None:
    content = json.dumps([asdict(point) for point in points], indent=1)
    path.write_text(f"{content}\n", encoding="utf-8")


def _write_model_apart(folder: Path, *, is_tiny: bool) -> None:
    """Write the model in a process of its own, with room for the longest conversation."""
    from benchmarks.processes import write_model_apart

    write_model_apart(folder, is_tiny=is_tiny, layers=LAYERS)
    settings_file = folder / "config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings["text_config"]["max_position_embeddings"] = CONTEXT_TOKENS
    settings_file.write_text(json.dumps(settings, indent=2), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
