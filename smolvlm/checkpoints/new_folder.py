"""The folder that a new checkpoint is written to: there whole or not at all, by one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smolvlm.disk.atomic_files import is_temporary, making_folder
from smolvlm.disk.one_writer import LOCK, only_maker
from smolvlm.errors import ConfigError


def check_new_folder(out_dir: Path) -> None:
    """Raise ConfigError unless a folder is still to be made, or is empty."""
    if out_dir.exists() and (not out_dir.is_dir() or any(map(_is_foreign, out_dir.iterdir()))):
        raise ConfigError(
            "there is something in it already", where=str(out_dir), fix="give --out another folder"
        )


@contextmanager
def new_folder(out_dir: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `out_dir` at the end; what a killed try left is deleted.

    Raises:
        ConfigError: there is something in it, or another process is writing it.
        OSError: it cannot be written.
    """
    check_new_folder(out_dir)
    with only_maker(out_dir, where=str(out_dir)):
        check_new_folder(out_dir)  # another may have made it just now
        with making_folder(out_dir) as folder:
            yield folder


def _is_foreign(path: Path) -> bool:
    return path.name != LOCK and not is_temporary(path.name)
