"""Files of rows in, tables out: the one place that knows which reader a format has."""

from pathlib import Path

from smolvlm.config.problems import shown_text
from smolvlm.datasets.rows.readers.arrow import ColumnTable, CsvTable, JsonTable, TarTable
from smolvlm.datasets.rows.readers.conversion import arrow_rows
from smolvlm.datasets.rows.readers.saved import open_saved
from smolvlm.datasets.rows.readers.tar_media import ShardReading
from smolvlm.datasets.rows.remote_rows import folder_of, is_remote
from smolvlm.datasets.rows.row_table import ChainTable, RowTable
from smolvlm.datasets.rows.sources import RowFormat, SourceSpec
from smolvlm.disk.system_errors import raise_of_the_machine
from smolvlm.errors import SampleError


def open_table(spec: SourceSpec) -> RowTable:
    """Return the rows of a source, all of them: sampling is applied later.

    A file without rows among others that have some is passed over, and named in `empty_files`.

    Raises:
        SampleError: a file cannot be read, is not of its format, or no file has rows.
    """
    if spec.format in ("saved", "hub"):
        return open_saved(spec)
    tables = [
        _table_of(
            path,
            spec.format,
            label=_label(spec, path),
            reading=ShardReading(
                media_root=spec.media_root,
                columns=spec.columns,
                not_read=spec.not_read,
                max_row_bytes=spec.max_row_bytes,
            ),
        )
        for path in spec.files
    ]
    if len(tables) == 1:
        return _with_rows(tables[0])
    full = [table for table in tables if len(table)]
    if not full:
        what = f"none of its {len(tables):,} files has a row"
        fix = "check what wrote them, or take the source out of the mixture"
        raise SampleError(what, kind="bad_file", where=spec.label, fix=fix)
    empty = [table.label for table in tables if not len(table)]
    return ChainTable(full, label=spec.label, empty_files=empty)


def _label(spec: SourceSpec, path: Path) -> str:
    if len(spec.files) == 1:
        return spec.label
    if is_remote(spec.label):  # a path would lose one of its two slashes
        return f"{folder_of(spec.label)}/{path.name}"
    return str(Path(spec.label).parent / path.name)


def read_rows(path: Path, row_format: RowFormat, *, label: str) -> RowTable:
    """Return the rows of one file.

    Args:
        path: the file.
        row_format: what is in it.
        label: what messages call it.

    Raises:
        SampleError: the file cannot be read, is not of its format, or has no rows.
    """
    reading = ShardReading(media_root=path.parent, columns={})
    table = _table_of(path, row_format, label=label, reading=reading)
    return _with_rows(table)


def _with_rows(table: RowTable) -> RowTable:
    if len(table) == 0:
        fix = "take the source out of the mixture"
        raise SampleError("the file has no rows", kind="bad_file", where=table.label, fix=fix)
    return table


def _table_of(
    path: Path,
    row_format: RowFormat,
    *,
    label: str,
    reading: ShardReading,
) -> RowTable:
    try:
        rows = arrow_rows(path, row_format, label=label, max_row_bytes=reading.max_row_bytes)
    except OSError as error:
        raise_of_the_machine(error)
        what = f"cannot be read: {shown_text(error.strerror or str(error))}"
        raise SampleError(what, kind="bad_file", where=label, fix="check the path") from None
    match row_format:
        case "tar":
            return TarTable(rows, path, label=label, reading=reading)
        case "csv" | "tsv":
            return CsvTable(rows, label=label)
        case "parquet":
            return ColumnTable(rows, label=label)
        case _:
            return JsonTable(rows, label=label)
