"""Files of rows in, tables out: the one place that knows which reader a format has."""

from pathlib import Path

from smolvlm.datasets.rows.readers.arrow import ColumnTable, JsonTable, TarTable
from smolvlm.datasets.rows.readers.conversion import arrow_rows
from smolvlm.datasets.rows.readers.saved import open_saved
from smolvlm.datasets.rows.row_table import ChainTable, RowTable
from smolvlm.datasets.rows.sources import RowFormat, SourceSpec
from smolvlm.errors import SampleError


def open_table(spec: SourceSpec) -> RowTable:
    """Return the rows of a source, all of them: sampling is applied later.

    Raises:
        SampleError: a file cannot be read, is not of its format, or has no rows.
    """
    if spec.format in ("saved", "hub"):
        return open_saved(spec)
    tables = [read_rows(path, spec.format, label=_label(spec, path)) for path in spec.files]
    return tables[0] if len(tables) == 1 else ChainTable(tables, label=spec.label)


def _label(spec: SourceSpec, path: Path) -> str:
    return spec.label if len(spec.files) == 1 else str(Path(spec.label).parent / path.name)


def read_rows(path: Path, row_format: RowFormat, *, label: str) -> RowTable:
    """Return the rows of one file.

    Args:
        path: the file.
        row_format: what is in it.
        label: what messages call it.

    Raises:
        SampleError: the file cannot be read, is not of its format, or has no rows.
    """
    try:
        rows = arrow_rows(path, row_format, label=label)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise SampleError(what, kind="bad_file", where=label, fix="check the path") from None
    table: RowTable
    if row_format == "tar":
        table = TarTable(rows, path, label=label)
    else:
        table = (ColumnTable if row_format == "parquet" else JsonTable)(rows, label=label)
    if len(table) == 0:
        fix = "take the source out of the mixture"
        raise SampleError("the file has no rows", kind="bad_file", where=label, fix=fix)
    return table
