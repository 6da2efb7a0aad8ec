"""Sizes of all rows of a mixture: measured over all cores, kept on disk, resumable.

In: open sources and a checkpoint's prompt settings. Out: each source's sizes (`lengths.SIZES`).
Rows are measured in parts of `PART_ROWS`; with a cache folder each part becomes a Parquet file as
soon as it is done, so a run that was stopped goes on with the parts that are missing. A part is
named by what its sizes depend on: the file of rows, the source's settings, the prompt's tokens and
tiles. Pictures are not part of the name: rows that could not be used are measured again each time
(somebody fixes them), and a picture that changed since is found when it is decoded.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import SIZES, Meter
from smolvlm.datasets.packing.part_meter import Part, PartMeter
from smolvlm.datasets.packing.workers import over_cores
from smolvlm.datasets.rows.conversations import OpenSource
from smolvlm.datasets.rows.readers.conversion import file_identity
from smolvlm.datasets.rows.sources import MAX_ROW_BYTES
from smolvlm.disk.atomic_files import replacing
from smolvlm.disk.disk_space import NO_SPACE, is_full
from smolvlm.home import cache_dir
from smolvlm.notices import notice

PART_ROWS = 8192
SMALL_ROWS = 4 * PART_ROWS
"""Sources with fewer rows are measured by this process, each time: as fast as starting others, and
never stale."""
INDEX = 7
"""Raise it when sizes of an earlier version must not be read; parts with other columns never
are."""

_NO_TEXT = pa.nulls(PART_ROWS, pa.string())

Engine = Literal["local", "ray"]
Keeping = Literal["large", "all", "anew"]
"""Large sources' sizes; those of all; or large ones', all rows being measured anew."""
Report = Callable[[int, int], None]
"""Called with the number of rows measured so far, and of all."""


def measure_sources(
    sources: Sequence[OpenSource],
    prompt: PromptSettings,
    *,
    engine: Engine = "local",
    num_workers: int | None = None,
    keeping: Keeping = "large",
    report: Report | None = None,
) -> list[pa.Table]:
    """Return the sizes of each source's used rows.

    Args:
        sources: of a mixture.
        prompt: of the checkpoint.
        engine: `local` uses this machine's cores, `ray` a Ray cluster.
        num_workers: processes; None is one a core.
        keeping: of which sources sizes are read that were kept, and kept.
        report: called with the rows measured so far, and all.
    """
    parts = [
        part
        for number, source in enumerate(sources)
        for part in parts_of(number, source, prompt, keeps_all=keeping == "all")
    ]
    done: dict[int, pa.Table] = {}
    missing: list[int] = []
    for number, part in enumerate(parts):
        kept = None if keeping == "anew" else _read(part.file)
        if kept is None:
            missing.append(number)
        else:
            done[number] = _compact(_again_if_bad(kept, part, sources, prompt))
    num_done, num_rows = (
        sum(len(parts[number].rows) for number in numbers) for numbers in (done, range(len(parts)))
    )
    for number, table in _measured(
        missing, parts, sources, prompt, engine=engine, num_workers=num_workers
    ):
        done[number] = _compact(table)
        if (file := parts[number].file) is not None:
            write_part(table, file)
        num_done += len(parts[number].rows)
        if report is not None:
            report(num_done, num_rows)
    return [
        pa.concat_tables([done[place] for place, part in enumerate(parts) if part.source == number])
        for number in range(len(sources))
    ]


def parts_of(
    number: int, source: OpenSource, prompt: PromptSettings, *, keeps_all: bool
) -> Iterator[Part]:
    """Yield the parts of a source; small sources keep nothing unless `keeps_all`.

    The source's number is also its parts'.
    """
    folder = index_folder(source, prompt) if keeps_all or len(source.rows) > SMALL_ROWS else None
    for start in range(0, max(len(source.rows), 1), PART_ROWS):
        rows = source.rows[start : start + PART_ROWS]
        first_row = int(rows[0]) if len(rows) else 0
        name = f"{first_row:09d}-{blake2b(rows.tobytes(), digest_size=6).hexdigest()}.parquet"
        yield Part(source=number, rows=rows, file=folder / name if folder else None)


def index_folder(source: OpenSource, prompt: PromptSettings) -> Path:
    """Return the folder that keeps a source's sizes under these prompt settings."""
    spec = source.spec
    described = repr(
        (
            INDEX,
            source.table.identity
            if spec.format in ("hub", "saved")
            else [file_identity(file) for file in spec.files],
            spec.format,
            str(spec.media_root),
            sorted(spec.columns.items()),
            sorted(spec.not_read),
            sorted(spec.constants.items()),
            spec.first_option_index,
            spec.keeps_mark_newlines,
            spec.source_fps,
            *([spec.media_url] if spec.media_url is not None else []),
            *([spec.media_markers] if spec.media_markers != "plain" else []),
            *([spec.max_row_bytes] if spec.max_row_bytes != MAX_ROW_BYTES else []),
            prompt.identity,
        )
    )
    return (
        cache_dir()
        / "lengths"
        / f"{spec.path.stem[:40]}-{blake2b(described.encode(), digest_size=12).hexdigest()}"
    )


def _read(file: Path | None) -> pa.Table | None:
    """Return the sizes that a part's file keeps; None without one, damaged or of other columns."""
    if file is None or not file.is_file():
        return None
    try:
        with pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as kept:
            if not kept.schema_arrow.equals(SIZES):
                return None
            return kept.read(use_threads=False)  # a part is read faster than threads are woken
    except (pa.ArrowException, OSError):  # cut off, changed since, or of something else
        notice(f"sizes in {file.parent} are damaged: these rows are measured again")
        return None


def _compact(table: pa.Table) -> pa.Table:
    """Return a part's sizes in some half of the memory: millions of rows wait as small parts.

    Arrow's memory is wasted on pieces as small as these; numpy's is not. Parts without a bad row
    share one column that says so.
    """
    if table["error"].null_count < len(table):
        return table
    nothing = _NO_TEXT.slice(0, len(table))
    columns = [
        nothing if field.type == pa.string() else pa.array(table[field.name].to_numpy().copy())
        for field in SIZES
    ]
    return pa.table(columns, schema=SIZES)


def _again_if_bad(
    kept: pa.Table, part: Part, sources: Sequence[OpenSource], prompt: PromptSettings
) -> pa.Table:
    """Return the sizes with those rows measured anew that could not be used."""
    bad = kept["error"].is_valid().to_numpy()
    if not bad.any():
        return kept
    meter, source = Meter(prompt.encoder(), prompt.media), sources[part.source]
    rows = kept["row"].to_numpy()[bad].tolist()
    again = meter.sizes(source.all_rows(), rows, media_root=source.spec.media_root)
    return pa.concat_tables([kept.filter(pa.array(~bad)), again]).sort_by("row")


def _measured(
    missing: Sequence[int],
    parts: Sequence[Part],
    sources: Sequence[OpenSource],
    prompt: PromptSettings,
    *,
    engine: Engine,
    num_workers: int | None,
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (number, sizes) of parts, in any order."""
    if engine == "ray":
        from smolvlm.datasets.packing.ray_engine import measured_over_ray

        yield from measured_over_ray(
            [(number, parts[number]) for number in missing], sources, prompt
        )
        return
    unmeasured = [parts[number] for number in missing]
    is_small = sum(len(part.rows) for part in unmeasured) <= SMALL_ROWS
    for place, sizes in over_cores(
        PartMeter, (tuple(sources), prompt), unmeasured, num_workers=1 if is_small else num_workers
    ):
        yield missing[place], sizes


def write_part(table: pa.Table, file: Path) -> None:
    """Keep a part's sizes: the file is there whole or not at all; said once where it cannot be."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file, is_synced=False) as partial_file:
            pyarrow.parquet.write_table(table, partial_file, write_page_checksum=True)
    except OSError as error:
        why = NO_SPACE if is_full(file) else error.strerror or str(error)
        notice(f"sizes are not kept in {file.parents[1]} ({why}): every start measures again")
