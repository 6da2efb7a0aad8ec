"""The mixtures that a run file names, whatever else is wrong with it: they are then looked at too,
and all mistakes are said at once."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from smolvlm.config.overrides import apply_overrides
from smolvlm.config.settings_file import read_run_file
from smolvlm.errors import ConfigError

MIXTURE_SETTINGS = ("mixture", "eval_mixture")
"""Of the section `data`."""


def named_mixtures(
    run_file: Path, overrides: Sequence[str]
) -> Iterator[tuple[str, Path | list[Any] | dict[str, Any], Path]]:
    """Yield (`data` setting, mixture, folder that its paths start from) of a run file.

    Those that `load_run_config` has refused already are passed over: a file that is not there, and
    what is neither a file, nor sources.

    Args:
        run_file: one that need not be right.
        overrides: `section.key=value`.
    """
    try:
        content = read_run_file(run_file)
    except ConfigError:
        return
    settings, _ = apply_overrides(
        content if isinstance(content, dict) else {}, overrides, problems=[]
    )
    data = settings.get("data")
    if not isinstance(data, dict):
        return
    run_dir = run_file.expanduser().absolute().parent
    written = data.get("base_dir")
    base_dir = run_dir / os.path.expanduser(written) if isinstance(written, str) else run_dir
    for name in MIXTURE_SETTINGS:
        mixture = data.get(name)
        if isinstance(mixture, str):
            path = base_dir / os.path.expanduser(mixture)
            if os.path.isfile(path):
                yield name, path.absolute(), base_dir
        elif isinstance(mixture, list | dict):
            yield name, mixture, base_dir
