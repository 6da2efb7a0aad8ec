"""The folder that a campaign's children write to: gone at its end, or at the next one's start.

A child may be killed at any moment, and the campaign too, so neither can be relied on to delete
what it wrote. All of it lies in one folder of the temporary folder, under a lock of the kernel that
ends with the campaign however that ends; the next start deletes folders whose lock nobody has. What
a child would download (the tokenizer, out of an archive of 93 MB) is put there before, from where
this program keeps its downloads.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smolvlm.build.tokenizer import tokenizer_file, tokenizer_json
from smolvlm.disk.file_lock import FileLock, try_lock

PREFIX = "smolvlm-fuzz-"
HOME = "home"
"""Of a campaign's folder: what `$SMOLVLM_HOME` is for its children."""
_LOCK = "lock"


@contextmanager
def campaign_folder() -> Iterator[Path]:
    """Make the folder of a campaign, and delete it at the end; those of dead ones go first.

    Raises:
        OSError: the temporary folder cannot be written to, or has no file locks.
        ConfigError: the tokenizer is not kept here, and cannot be downloaded.
    """
    remove_dead()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = try_lock(folder / _LOCK)
    assert lock is not None, "nobody else knows the folder's name"
    try:
        _put_tokenizer(folder / HOME)
        yield folder
    finally:
        _remove(folder, lock)


def remove_dead() -> None:
    """Delete the folders of campaigns that were killed.

    One without a lock file is only just being made, or is somebody else's.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if (folder / _LOCK).is_file() and (lock := try_lock(folder / _LOCK)) is not None:
            _remove(folder, lock)


def _remove(folder: Path, lock: FileLock) -> None:
    """Delete a folder, its lock last: where a child that is about to end still writes, the next
    start goes on."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != lock.path:
            path.unlink(missing_ok=True)
    if list(folder.iterdir()) == [lock.path]:
        lock.remove()
        shutil.rmtree(folder, ignore_errors=True)
    else:
        lock.release()


def _put_tokenizer(home: Path) -> None:
    target = home / "files" / tokenizer_file().name
    target.parent.mkdir(parents=True)
    target.write_text(tokenizer_json(), encoding="utf-8")
