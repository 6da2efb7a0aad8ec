"""Files of object stores and of the hub by their addresses: `s3://bucket/a.png`, `hf://...`.

In: an address. Out: its bytes, written to a file of ours; or the addresses that a pattern names.
fsspec does the work, with the credentials and endpoints of its own settings (environment variables,
`~/.config/fsspec`): nothing of a row or a mixture sets any. What goes wrong there is of a dozen
libraries' kinds, and is told apart here by whether another try may help.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

_PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "hf": "huggingface_hub",
}
"""Protocol -> the package that speaks it."""
STORE_ADDRESS = re.compile(rf"^({'|'.join(_PACKAGES)})://", re.IGNORECASE)
_PATTERN = re.compile(r"[*?\[]")
_CHUNK_BYTES = 4 << 20
MAY_PASS = frozenset({408, 429})
"""Statuses besides 5xx that are tried again: too slow, too many requests."""


class StoreError(Exception):
    """A store's answer that is none; its text says why."""

    def __init__(self, what: str, *, may_pass: bool = False, fix: str | None = None) -> None:
        super().__init__(what)
        self.may_pass = may_pass
        """Whether another try may succeed."""
        self.fix = fix


def is_store_address(text: str) -> bool:
    """Say whether a text is the address of a file in a store."""
    return STORE_ADDRESS.match(text) is not None


def copy_from_store(url: str, sink: BinaryIO, *, max_bytes: int) -> Iterator[int]:
    """Write a store's file to an open one, a piece at a time; yield the bytes written so far.

    Raises:
        StoreError: it is not there, not allowed, too large, or the store does not answer.
        OSError: of the sink alone.
    """
    files, path = _opened(url)
    num_bytes = 0
    with _store_errors():
        size = int(files.info(path).get("size") or 0)
    if size > max_bytes:
        raise StoreError(f"it is larger than the limit of {max_bytes:,} bytes")
    with _store_errors():
        stream = files.open(path, "rb", block_size=_CHUNK_BYTES)
    with stream:
        while True:
            with _store_errors():
                data = stream.read(_CHUNK_BYTES)
            if not data:
                break
            num_bytes += len(data)
            sink.write(data)
            yield num_bytes
    if num_bytes < size:
        raise StoreError(f"{num_bytes:,} of {size:,} bytes came", may_pass=True)
    if not num_bytes:
        raise StoreError("the file is empty")


def version_in_store(url: str) -> str:
    """Return a text that changes when a store's file does: its size, tag or time of change.

    Raises:
        StoreError: as `copy_from_store`.
    """
    files, path = _opened(url)
    with _store_errors():
        return str(files.ukey(path))


def matching_in_store(pattern: str) -> list[str]:
    """Return the addresses of the files that a pattern with `*` names, sorted.

    A name without one is itself, and nothing is asked.

    Raises:
        StoreError: as `copy_from_store`.
    """
    if not _PATTERN.search(pattern):
        return [pattern]
    files, path = _opened(pattern)
    with _store_errors():
        found: Any = files.glob(path, detail=True)
    protocol = pattern.partition("://")[0]
    return [
        f"{protocol}://{name}"
        for name, details in sorted(found.items())
        if details.get("type") == "file"
    ]


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    import fsspec

    protocol = url.partition("://")[0].lower()
    try:
        with _store_errors():
            return fsspec.core.url_to_fs(f"{protocol}{url[len(protocol) :]}")
    except ImportError as error:
        package = _PACKAGES[protocol]
        what = f"`{protocol}://` needs the package {package} ({_first_line(error)})"
        raise StoreError(what, fix=f"pip install {package}") from error


@contextmanager
def _store_errors() -> Iterator[None]:
    """Turn whatever a store's library raises into one error."""
    try:
        yield
    except (StoreError, ImportError):
        raise
    except FileNotFoundError as error:
        raise StoreError("nothing is there") from error
    except PermissionError as error:
        raise StoreError(f"not allowed ({_first_line(error)})") from error
    except (OSError, EOFError) as error:  # a connection's, or an answer of the hub
        status = getattr(getattr(error, "response", None), "status_code", 500)
        may_pass = status >= 500 or status in MAY_PASS
        raise StoreError(_first_line(error), may_pass=may_pass) from error
    except Exception as error:  # a dozen libraries, each with errors of its own
        raise StoreError(f"{type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
