"""The files that weights lie in: there, whole, and weights at all.

In: a hub id or a folder. Out: the files that transformers would read of it, each opened so far that
one which was cut off, or is something else, is refused by name. Of a safetensors file that is its
header, which says how long the file has to be; a pickle is opened by whoever loads it.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils.hub import cached_file

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.config.problems import shown_path
from smolvlm.errors import ConfigError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLE, _PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
"""safetensors' names of the types that weights are stored in."""
DOWNLOAD_AGAIN = "download the file again; it may be cut short"


def weight_files(source: str) -> list[Path]:
    """Return the files of a checkpoint's weights, each of them there and, by its header, whole.

    Args:
        source: hub id or folder of a whole model; what the hub holds is downloaded.

    Raises:
        ConfigError: there are none, one is missing, or one is not what its name says.
    """
    for name in (WHOLE, INDEX, _PICKLE, _PICKLE_INDEX):
        if (path := _file(source, name)) is not None:
            check_not_a_pointer(path)
            paths = _shards(source, path) if name in (INDEX, _PICKLE_INDEX) else [path]
            for one in paths:
                check_weight_file(one)
            return paths
    raise ConfigError(
        f"cannot load the weights: no {WHOLE} here",
        where=source,
        fix=f"put {WHOLE} (or its shards and their index) into the folder",
    )


def check_weight_file(path: Path) -> None:
    """Raise ConfigError for a file that holds no weights, not all of its own, or weights of whole
    numbers, which mean nothing without the scales of whoever quantised them."""
    if path.suffix == ".safetensors":
        with open_tensors(path) as tensors:
            _check_types(tensors, path)
    else:
        check_not_a_pointer(path)


def _check_types(tensors: Any, path: Path) -> None:
    names = tensors.keys()
    for name in names:
        if not name.endswith((".weight", ".bias")):
            continue
        stored = tensors.get_slice(name).get_dtype()
        if stored not in _FLOATS:
            raise ConfigError(
                f"{name} is stored as {stored}: quantised, and nothing says how",
                where=str(path),
                fix="take the weights in float32, bfloat16 or float16; `quantization: {bits: 4}` "
                "quantises while loading",
            )


def open_tensors(path: Path) -> Any:
    """Open a safetensors file; its header is read, and no tensor.

    Raises:
        ConfigError: it is a git-lfs pointer, cut off, or no safetensors file.
    """
    check_not_a_pointer(path)
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file; raises as `open_tensors`."""
    check_not_a_pointer(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def check_not_a_pointer(path: Path) -> None:
    """Raise ConfigError for what git-lfs leaves where it did not fetch the file itself."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        begins = file.read(len(_LFS_POINTER))
    if begins == _LFS_POINTER:
        what = "a git-lfs pointer stands here in place of the file"
        fix = "run `git lfs pull` in the repository that it was cloned from, or download the file"
        raise ConfigError(what, where=str(path), fix=fix)


def _unreadable(path: Path, error: Exception) -> ConfigError:
    what = f"not a readable safetensors file: {error}"
    return ConfigError(what, where=str(path), fix=DOWNLOAD_AGAIN)


def indexed_files(index: Path) -> dict[str, str]:
    """Return tensor -> name of its file, as an index of shards says it.

    Raises:
        ConfigError: it is no index, or a name leads out of its folder.
    """
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        what, fix = "not an index of weights: no `weight_map` of names", "download the file again"
        raise ConfigError(what, where=str(index), fix=fix)
    for name in listed.values():
        if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
            what = f"it names a file outside its folder, {shown_path(name)!r}"
            fix = "do not use this checkpoint unless you know who wrote it"
            raise ConfigError(what, where=str(index), fix=fix)
    return listed


def _shards(source: str, index: Path) -> list[Path]:
    """Return the files that an index names."""
    names = sorted(set(indexed_files(index).values()))
    paths = {name: _file(source, name) for name in names}
    if missing := [name for name, path in paths.items() if path is None]:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        what = f"{len(missing)} of the {len(names)} weight files are missing: {shown}"
        raise ConfigError(what, where=source, fix=f"download these too: {index.name} names them")
    return [path for path in paths.values() if path is not None]


def _file(source: str, name: str) -> Path | None:
    if Path(source).is_dir():
        return path if (path := Path(source) / name).is_file() else None
    try:
        path = cached_file(source, name, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        what = f"cannot load the weights: {str(error).splitlines()[0]}"
        fix = "check the hub id and the network, or give a local folder"
        raise ConfigError(what, where=source, fix=fix) from error
    return None if path is None else Path(path)
