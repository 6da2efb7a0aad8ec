"""Files of rows by their addresses: fetched whole before they are opened, and kept by version.

In: what a mixture writes, `s3://bucket/part-*.parquet`, `hf://datasets/owner/name/rows.jsonl`,
`https://...`. Out: files in the cache folder (`remote-rows`). A store or server is asked for the
file's version at each start (a web server by its `ETag`, else the time of change and the length);
what changed is fetched anew, and where nobody answers the newest copy is read, with a word. Of
several processes that want the same file one fetches it.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from braceexpand import braceexpand

from smolvlm.datasets.rows.file_patterns import MAX_FILES, num_alternatives
from smolvlm.disk.file_lock import LocksUnavailableError, try_lock
from smolvlm.errors import SampleError
from smolvlm.media.downloads import fetch_rows, version_of_answer
from smolvlm.media.kept_files import rows_dir
from smolvlm.media.object_stores import (
    StoreError,
    is_store_address,
    matching_in_store,
    version_in_store,
)
from smolvlm.notices import notice

_HTTP = re.compile(r"^https?://", re.IGNORECASE)
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of rows that lies elsewhere."""

    url: str
    path: Path
    """Its copy here."""


def is_remote(written: str) -> bool:
    """Say whether a mixture names an address, and no path."""
    return is_store_address(written) or _HTTP.match(written) is not None


def fetched_rows(written: str) -> tuple[RemoteFile, ...]:
    """Fetch the files that an address or a pattern of addresses names, in its order.

    Raises:
        SampleError: a store does not answer or has no such file, or it cannot be fetched.
        ValueError: braces without their pair, or too many alternatives.
    """
    if num_alternatives(written) > MAX_FILES:
        raise ValueError(f"its braces stand for more than {MAX_FILES:,} names")
    files: list[RemoteFile] = []
    for name in braceexpand(written):
        for url in _matching(name):
            path = _kept(url)
            with _alone(path.parent):
                fetch_rows(url, path)
            files.append(RemoteFile(url, path))
    return tuple(files)


def folder_of(url: str) -> str:
    """Return the address that relative names beside a file start from."""
    return url.partition("?")[0].rpartition("/")[0]


def _matching(name: str) -> list[str]:
    if not is_store_address(name):
        if "*" in name:
            raise ValueError("of a web server braces alone name several files")
        return [name]
    try:
        return matching_in_store(name)
    except StoreError as error:
        raise _unreachable(name, error) from error


def _kept(url: str) -> Path:
    """Return where the present version of a file lies, or is to lie."""
    folder = rows_dir() / _digest(url)
    name = PurePosixPath(urlsplit(url).path).name or "rows"
    try:
        version = version_in_store(url) if is_store_address(url) else version_of_answer(url)
        return folder / _digest(version) / name
    except StoreError as error:
        copies = sorted(folder.glob(f"*/{name}"), key=lambda path: path.stat().st_mtime)
        if not copies:
            raise _unreachable(url, error) from error
        day = datetime.fromtimestamp(copies[-1].stat().st_mtime, UTC).date()
        notice(f"{url} cannot be asked for ({error}): its copy of {day} is read")
        return copies[-1]


def _unreachable(url: str, error: StoreError) -> SampleError:
    fix = error.fix or "check the address, the network and the store's credentials"
    return SampleError(f"{url} cannot be read: {error}", kind="bad_file", fix=fix)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from the same file for as long as the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        while (lock := try_lock(folder / ".lock")) is None:
            time.sleep(_POLL_S)
    except LocksUnavailableError:  # each fetches, and the last one stays
        yield
        return
    try:
        yield
    finally:
        lock.release()


def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
