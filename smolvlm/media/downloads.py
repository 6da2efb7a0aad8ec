"""Pictures and clips that rows name by address: fetched when first opened, and kept as files.

Comes in: an http or https address and the file that stands for it. Goes out: nothing but that file,
or one `SampleError` that says the address, the cause and the fix. A file is named by a digest of
its address, so that rows, runs and processes share it, and appears by an atomic rename; the price
is that processes which want the same one at the same moment each fetch it. It is never looked for
anew: who knows that it changed deletes the folder.

What an address answers is not trusted. No other protocol is spoken, whatever it redirects to; what
is too large, too slow, cut short or a web page is not kept. Errors that may pass (a server's own,
silence, a connection that breaks) are tried again.
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
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

from smolvlm.errors import ConfigError, SampleError
from smolvlm.home import cache_dir

_CHUNK_BYTES = 1 << 20
_MAY_PASS = frozenset({408, 429})
"""Statuses besides 5xx that are tried again: too slow, too many requests."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadLimits:
    """When an address is given up."""

    kind: Literal["picture", "clip"]
    max_bytes: int
    timeout_s: float = 30.0
    """Longest silence."""
    total_s: float = 1800.0
    """Longest download, however steadily it drips."""
    pauses_s: tuple[float, ...] = (0.5, 2.0)
    """Waits before each further try."""


PICTURE_LIMITS = DownloadLimits(kind="picture", max_bytes=64 << 20)
CLIP_LIMITS = DownloadLimits(kind="clip", max_bytes=1 << 30)


class _MayPassError(Exception):
    """A failure that another try may not meet."""


class _FinalError(Exception):
    """A failure that every try would meet."""


def kept_file(url: str) -> Path:
    """Return the file that stands for an address: `media` in the cache folder, by 20 bytes of
    BLAKE2b."""
    name = blake2b(url.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()
    return cache_dir() / "media" / name[:2] / name


def fetch_missing(url: str, file: Path, limits: DownloadLimits) -> None:
    """Fetch an address into its file, unless that is there already.

    Raises:
        SampleError: nothing is there, no connection, too large, too slow, cut short, or another
            protocol.
        ConfigError: the file cannot be written.
    """
    if file.exists():
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".download-") as folder:
            partial = Path(folder) / file.name
            with partial.open("wb") as sink:
                _fetch(url, sink, limits)
            partial.replace(file)
    except OSError as error:
        raise _not_writable(file, error) from error


def _fetch(url: str, sink: BinaryIO, limits: DownloadLimits) -> None:
    """Write what an address answers; errors of the network end here, not the disk's."""
    cause = ""
    for pause_s in (0.0, *limits.pauses_s):
        time.sleep(pause_s)
        sink.seek(0)
        sink.truncate()
        try:
            _fetch_once(url, sink, limits)
            return
        except _FinalError as error:
            cause = str(error)
            break
        except _MayPassError as error:
            cause = f"{error}, {len(limits.pauses_s) + 1} times"
    raise SampleError(
        f"{limits.kind} {url[:300]} cannot be downloaded: {cause}",
        kind="missing_media",
        fix="check the address and the network, or give the path of a file",
    )


def _fetch_once(url: str, sink: BinaryIO, limits: DownloadLimits) -> None:
    """
    Raises:
        _MayPassError, _FinalError: why not.
        OSError: of the sink alone.
    """
    deadline = time.monotonic() + limits.total_s
    with _ask(url, limits) as response:
        num_announced = response.length
        _check_size(num_announced or 0, limits)
        if response.headers.get_content_type() == "text/html":
            raise _FinalError("the answer is a web page")
        num_bytes = 0
        while num_announced is None or num_bytes < num_announced:
            if not (data := _read_some(response)):
                break
            num_bytes += len(data)
            _check_size(num_bytes, limits)
            if time.monotonic() > deadline:
                raise _FinalError(f"not done after {limits.total_s:g} s")
            sink.write(data)
    if num_announced is not None and num_bytes < num_announced:
        raise _MayPassError(f"{num_bytes:,} of {num_announced:,} bytes came")
    if not num_bytes:
        raise _FinalError("the answer is empty")


def _ask(url: str, limits: DownloadLimits) -> HTTPResponse:
    try:
        request = Request(_as_ascii(url), headers={"User-Agent": "smolvlm"})
        return _opener().open(request, timeout=limits.timeout_s)
    except HTTPError as error:
        with error:
            failure = _MayPassError if error.code >= 500 or error.code in _MAY_PASS else _FinalError
            raise failure(f"status {error.code} {error.reason}") from error
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _MayPassError(f"no answer within {limits.timeout_s:g} s") from error
        raise _FinalError(f"no connection ({error.reason})") from error
    except TimeoutError as error:
        raise _MayPassError(f"no answer within {limits.timeout_s:g} s") from error
    except (InvalidURL, ValueError) as error:
        raise _FinalError(f"not an address ({error})") from error
    except (HTTPException, OSError) as error:
        raise _MayPassError(f"no proper answer ({_said(error)})") from error


def _read_some(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK_BYTES)
    except TimeoutError as error:
        raise _MayPassError("the answer stopped coming") from error
    except (HTTPException, OSError, ValueError) as error:
        raise _MayPassError(f"the answer broke off ({_said(error)})") from error


def _opener() -> OpenerDirector:
    """Return an opener that speaks http and https alone, through the environment's proxies."""
    opener = OpenerDirector()
    for kind in (
        *(ProxyHandler, HTTPHandler, HTTPSHandler, UnknownHandler),
        *(HTTPRedirectHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor),
    ):
        opener.add_handler(kind())
    return opener


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
