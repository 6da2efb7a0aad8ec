"""Rows from a program's memory, kept as files that training reads like any other.

In: mappings as they would stand in a JSON-lines file, with pictures opened by Pillow, arrays or
encoded bytes among their values. Out: an entry of a mixture, `{memory: DIGEST}`. The same rows give
the same digest on every machine, so a run knows its rows again; they lie in the cache folder
(`home.py`), pictures by their content, and may be deleted once nobody trains on them.
"""

import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image

from smolvlm.datasets.rows.depth import is_too_deep, too_deep
from smolvlm.errors import ConfigError
from smolvlm.home import memory_dir, memory_rows_file

_MEDIA = "media"


def keep_rows(rows: Iterable[Mapping[str, object]], *, name: str = "memory") -> dict[str, str]:
    """Keep rows and return the mixture's entry for them.

    Args:
        rows: as in a file of rows; a `datasets.Dataset` is one. Relative paths in them start from
            the current folder.
        name: of the source.

    Raises:
        ConfigError: there are none, or a value is nothing that a file of rows could hold.
    """
    media = memory_dir() / _MEDIA
    media.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=memory_dir(), prefix=".rows-"))
    try:
        digest = _written(rows, unfinished / memory_rows_file("").name, media, name=name)
        _moved(unfinished, memory_rows_file(digest))
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return {"memory": digest, "name": name, "path": str(Path.cwd())}


def _written(rows: Iterable[Mapping[str, object]], path: Path, media: Path, *, name: str) -> str:
    """Write rows to a file of JSON lines and return the digest of what they say."""
    digest = blake2b(digest_size=16)
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows, start=1):
            where = f"{name}:{number}"
            if not isinstance(row, Mapping):
                raise ConfigError(f"a row is a mapping, not {type(row).__name__}", where=where)
            if is_too_deep(dict(row)):
                error = too_deep()
                raise ConfigError(error.what, where=where, fix=error.fix)
            line = json.dumps(_plain(row, where=where), ensure_ascii=False, sort_keys=True)
            digest.update(line.encode() + b"\n")
            file.write(_with_paths(line, media) + "\n")
    if not number:
        raise ConfigError("no rows", where=name, fix="give at least one")
    return digest.hexdigest()


def _moved(unfinished: Path, kept: Path) -> None:
    """Put a folder of rows in its place; several processes may do so at once with the same rows."""
    if kept.is_file():
        return
    shutil.rmtree(kept.parent, ignore_errors=True)
    unfinished.chmod(0o755)
    try:
        unfinished.rename(kept.parent)
    except OSError:
        if not kept.is_file():
            raise


_MARK = "smolvlm-memory-media:"
"""Stands before the name of a kept picture while the digest is taken, so that no machine's path is
in it."""


def _with_paths(line: str, media: Path) -> str:
    return line.replace(f'"{_MARK}', f'"{json.dumps(str(media))[1:-1]}/')


def _plain(value: object, *, where: str) -> object:
    """Return a value as JSON holds it; pictures and bytes become names of kept files."""
    if isinstance(value, Mapping):
        if value.keys() <= {"bytes", "path"} and isinstance(value.get("bytes"), bytes):
            return _kept(value["bytes"])
        return {str(key): _plain(member, where=where) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member, where=where) for member in value]
    if isinstance(value, Image.Image):
        return _kept(_png(value))
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        return _kept(_png(Image.fromarray(value)))
    if isinstance(value, bytes):
        return _kept(value)
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    what = f"a value of type {type(value).__name__}, which a file of rows cannot hold"
    fix = "give text, numbers, lists, mappings, Pillow images, uint8 arrays, encoded bytes or paths"
    raise ConfigError(what, where=where, fix=fix)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _kept(data: bytes) -> str:
    """Keep encoded bytes under their digest, and return what stands for them in a row."""
    name = blake2b(data, digest_size=16).hexdigest() + _ending(data)
    path = memory_dir() / _MEDIA / name
    if not path.is_file():
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(data)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(path)
    return _MARK + name


def _ending(data: bytes) -> str:
    """Return the usual ending of encoded bytes: a picture's, or else a clip's."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return "." + {"JPEG": "jpg"}.get(str(image.format), str(image.format).lower())
    except OSError:
        return ".mp4"
