"""What a source's reader passed over, in lines for the terminal: said once a source."""

from collections.abc import Iterator, Sequence

SHOWN_FILES = 3


def source_notes(
    name: str, num_rows: int, num_filtered: int, empty_files: Sequence[str]
) -> Iterator[str]:
    """Yield a line for what a filter left out, and one for the files that have no rows.

    Args:
        name: of the source.
        num_rows: in its files.
        num_filtered: of them left out.
        empty_files: labels of files.
    """
    if num_filtered:
        yield f"filter of {name}: {num_filtered:,} of {num_rows:,} rows left out"
    if empty_files:
        shown = ", ".join(empty_files[:SHOWN_FILES])
        more = len(empty_files) - SHOWN_FILES
        yield f"no rows in {name}: {shown}" + (f" and {more:,} more files" if more > 0 else "")
