"""Pictures and clips that rows name by address: fetched when first opened, and kept as files.

Comes in: an http or https address, or one of an object store (`object_stores.py`), and the file
that stands for it. Goes out: nothing but that file,
or one `SampleError` that says the address, the cause and the fix. A file is named by a digest of
its address, so that rows, runs and processes share it, and appears by an atomic rename; the price
is that processes which want the same one at the same moment each fetch it. It is never looked for
anew: who knows that it changed deletes the folder, which is held to a bound (`kept_files.py`).

What an address answers is not trusted. No other protocol is spoken, whatever it redirects to, and
no server is asked that is not public (`http_client.py`), unless the run allows it; what is too
large, too slow, cut short or a web page is not kept. Errors that may pass (a server's own, silence,
a connection that breaks) are tried again.
"""

import os
import tempfile
import time
import urllib.parse
from dataclasses import dataclass
from hashlib import blake2b
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.error import HTTPError, URLError

from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.http_client import (
    NotPublicError,
    Patience,
    WrongRedirectError,
    open_url,
)
from smolvlm.media.kept_files import MEDIA, ROWS, KeptFiles, media_dir, rows_dir
from smolvlm.media.object_stores import MAY_PASS, StoreError, copy_from_store, is_store_address

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadLimits:
    """When an address is given up."""

    kind: Literal["picture", "clip", "file of rows"]
    max_bytes: int
    timeout_s: float = 30.0
    """Longest silence."""
    total_s: float = 1800.0
    """Longest download, all tries together, however steadily it drips."""
    pauses_s: tuple[float, ...] = (0.5, 2.0)
    """Waits before each further try."""


PICTURE_LIMITS = DownloadLimits(kind="picture", max_bytes=64 << 20, total_s=300.0)
CLIP_LIMITS = DownloadLimits(kind="clip", max_bytes=1 << 30)
ROWS_LIMITS = DownloadLimits(kind="file of rows", max_bytes=1 << 40, total_s=24 * 3600.0)
ASKED_S = 30.0
"""Longest that a server is asked for a version of a file of rows."""
_KEPT = KeptFiles(MEDIA, media_dir)
_KEPT_ROWS = KeptFiles(ROWS, rows_dir)


class _MayPassError(Exception):
    """A failure that another try may not meet."""


class _FinalError(Exception):
    """A failure that every try would meet."""

    def __init__(self, what: str, fix: str | None = None) -> None:
        super().__init__(what)
        self.fix = fix


def kept_file(url: str) -> Path:
    """Return the file that stands for an address: `media` in the cache folder, by 20 bytes of
    BLAKE2b."""
    name = blake2b(url.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    return media_dir() / name[:2] / name


def fetch_missing(
    url: str, file: Path, limits: DownloadLimits, *, allow_private: bool = False
) -> None:
    """Fetch an address into its file, unless that is there already.

    Args:
        url: http, https, or of a store.
        file: as `kept_file` names it.
        limits: when it is given up.
        allow_private: whether servers may be asked whose addresses are not public.

    Raises:
        SampleError: nothing is there, no connection, too large, too slow, cut short, or another
            protocol.
        ConfigError: the file cannot be written.
    """
    if file.exists():
        _KEPT.used(file)
        return
    _fetch_to(file, url, limits, allow_private=allow_private)
    _KEPT.fetched(file.stat().st_size)


def fetch_rows(url: str, file: Path) -> None:
    """Fetch a file of rows, unless it is there already; whoever wrote the mixture named its server.

    Raises:
        SampleError, ConfigError: as `fetch_missing`.
    """
    _KEPT_ROWS.used(file)
    if not file.exists():
        _fetch_to(file, url, ROWS_LIMITS, allow_private=True)
        _KEPT_ROWS.fetched(file.stat().st_size)


def version_of_answer(url: str) -> str:
    """Return a text that changes when what a web server has at an address does, if it says so.

    Raises:
        StoreError: it does not answer, or with an error.
    """
    patience = Patience(deadline=time.monotonic() + ASKED_S, silence_s=ASKED_S)
    try:
        with _ask(url, ROWS_LIMITS, patience, allow_private=True) as response:
            names = ("ETag", "Last-Modified", "Content-Length")
            return repr([response.headers.get(name) for name in names])
    except (_FinalError, _MayPassError) as error:
        raise StoreError(str(error)) from error


def _fetch_to(file: Path, url: str, limits: DownloadLimits, *, allow_private: bool) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".download-") as folder:
            partial = Path(folder) / file.name
            with partial.open("wb") as sink:
                _fetch(url, sink, limits, allow_private=allow_private)
            partial.replace(file)
    except OSError as error:
        raise _not_writable(file, error) from error


def _fetch(url: str, sink: BinaryIO, limits: DownloadLimits, *, allow_private: bool) -> None:
    """Write what an address answers; errors of the network end here, not the disk's."""
    cause, fix = "", "check the address and the network, or give the path of a file"
    patience = Patience(deadline=time.monotonic() + limits.total_s, silence_s=limits.timeout_s)
    for number, pause_s in enumerate((0.0, *limits.pauses_s), start=1):
        if number > 1 and time.monotonic() + pause_s >= patience.deadline:
            break
        time.sleep(pause_s)
        sink.seek(0)
        sink.truncate()
        try:
            _fetch_once(url, sink, limits, patience, allow_private=allow_private)
            return
        except _FinalError as error:
            cause, fix = str(error), error.fix or fix
            break
        except _MayPassError as error:
            cause = f"{error}, {number} {'time' if number == 1 else 'times'}"
    raise SampleError(
        f"{limits.kind} {url[:300]} cannot be downloaded: {cause}",
        kind="bad_file" if limits.kind == "file of rows" else "missing_media",
        fix=fix,
    )


def _fetch_once(
    url: str, sink: BinaryIO, limits: DownloadLimits, patience: Patience, *, allow_private: bool
) -> None:
    """
    Raises:
        _MayPassError, _FinalError: why not.
        OSError: of the sink alone.
    """
    if is_store_address(url):
        _fetch_from_store(url, sink, limits, patience)
        return
    with _ask(url, limits, patience, allow_private=allow_private) as response:
        num_announced = response.length
        _check_size(num_announced or 0, limits)
        if response.headers.get_content_type() == "text/html":
            raise _FinalError("the answer is a web page")
        num_bytes = 0
        while num_announced is None or num_bytes < num_announced:
            if not (data := _read_some(response, limits, patience)):
                break
            num_bytes += len(data)
            _check_size(num_bytes, limits)
            sink.write(data)
    if num_announced is not None and num_bytes < num_announced:
        raise _MayPassError(f"{num_bytes:,} of {num_announced:,} bytes came")
    if not num_bytes:
        raise _FinalError("the answer is empty")


def _fetch_from_store(url: str, sink: BinaryIO, limits: DownloadLimits, patience: Patience) -> None:
    try:
        for _ in copy_from_store(url, sink, max_bytes=limits.max_bytes):
            if patience.is_past:
                raise _too_slow("", limits, patience)
    except StoreError as error:
        if error.may_pass:
            raise _MayPassError(str(error)) from error
        raise _FinalError(str(error), error.fix) from error


def _ask(
    url: str, limits: DownloadLimits, patience: Patience, *, allow_private: bool
) -> HTTPResponse:
    try:
        return open_url(_as_ascii(url), patience, allow_private=allow_private)
    except HTTPError as error:
        with error:
            failure = _MayPassError if error.code >= 500 or error.code in MAY_PASS else _FinalError
            raise failure(f"status {error.code} {error.reason}") from error
    except NotPublicError as error:
        what = f"{error}; `data.allow_private_urls: true` asks such servers too"
        raise _FinalError(what) from error
    except WrongRedirectError as error:
        raise _FinalError(str(error)) from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _too_slow("no answer", limits, patience) from error
        raise _FinalError(f"no connection ({error.reason})") from error
    except TimeoutError as error:
        raise _too_slow("no answer", limits, patience) from error
    except (InvalidURL, ValueError) as error:
        raise _FinalError(f"not an address ({error})") from error
    except (HTTPException, OSError) as error:
        raise _MayPassError(f"no proper answer ({_said(error)})") from error


def _read_some(response: HTTPResponse, limits: DownloadLimits, patience: Patience) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)
    except TimeoutError as error:
        if patience.is_past:
            raise _too_slow("", limits, patience) from error
        raise _MayPassError("the answer stopped coming") from error
    except (HTTPException, OSError, ValueError) as error:
        raise _MayPassError(f"the answer broke off ({_said(error)})") from error


def _too_slow(what: str, limits: DownloadLimits, patience: Patience) -> Exception:
    if patience.is_past:
        return _FinalError(f"not done after {limits.total_s:g} s")
    return _MayPassError(f"{what} within {limits.timeout_s:g} s")


def _as_ascii(url: str) -> str:
    """Return the address with signs outside ASCII written as the protocol wants them; others stay.

    Raises:
        ValueError: it has no such form.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    path, query = (
        urllib.parse.quote(part, safe="%/:=&?~+!$,;'@()*[]|") for part in (parts.path, parts.query)
    )
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))


def _check_size(num_bytes: int, limits: DownloadLimits) -> None:
    if num_bytes > limits.max_bytes:
        raise _FinalError(f"it is larger than the limit of {limits.max_bytes:,} bytes")


def _not_writable(file: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"a download cannot be kept: {os.strerror(error.errno) if error.errno else error}",
        where=str(file.parent),
        fix="make room there, or let $SMOLVLM_HOME name another folder",
    )


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
