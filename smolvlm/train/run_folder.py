"""One folder, one run: what may not lie in a run's output folder before it begins, and that no
second run writes to it meanwhile."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from smolvlm.config.schema import RunConfig
from smolvlm.disk.one_writer import only_writer
from smolvlm.errors import ConfigError

_ANOTHER = "give train.output_dir another folder"


_RANK_VARIABLES = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
"""Of torchrun and of MPI, as accelerate reads them."""


@contextmanager
def only_run(config: RunConfig, *, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Keep other runs out of this one's output folder; of several ranks the first does.

    Raises:
        ConfigError: another run writes there, or the folder cannot be this run's.
        OSError: it cannot be written.
    """
    check_run_folder(config)
    rank = next((os.environ[name] for name in _RANK_VARIABLES if name in os.environ), "0")
    if rank != "0":
        yield
        return
    folder = Path(config.train.output_dir)
    with only_writer(folder, where=f"train.output_dir={folder}", say=say):
        yield


def check_run_folder(config: RunConfig) -> None:
    """Refuse an output folder in which this run would mix with, or destroy, something else.

    Raises:
        ConfigError: it is the folder of the model that the run begins from, or a run of whole
            weights ended in it and this one saves adapters: they would lie side by side, and
            readers take the whole weights; or nothing can be written there.
    """
    folder, model = Path(config.train.output_dir), Path(config.model.path)
    _check_can_be_written(folder)
    if model.is_dir() and folder.resolve() == model.resolve():
        what = "this is the folder of the model itself, which would be written over"
        raise ConfigError(what, where=f"train.output_dir={folder}", fix=_ANOTHER)
    saves_adapters = any(entry.is_adapter for _, entry in config.adapters.entries())
    saves_adapters |= config.token_rows_lr > 0
    whole = sorted(folder.glob("model*.safetensors")) if folder.is_dir() else []
    if saves_adapters and whole:
        what = f"a run of whole weights ended here ({whole[0].name}), and this one saves an adapter"
        raise ConfigError(what, where=f"train.output_dir={folder}", fix=_ANOTHER)


def _check_can_be_written(folder: Path) -> None:
    """Refuse a folder that is a file, lies in a file, or may not be written to; make none."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    where = f"train.output_dir={folder}"
    if not there.is_dir():
        raise ConfigError(f"{there} is a file, not a folder", where=where, fix=_ANOTHER)
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(f"nothing may be written in {there}", where=where, fix=_ANOTHER)
