"""Files that a command writes when it is done: whether they can be written is asked before it
begins."""

import os
from pathlib import Path

from smolvlm.errors import ConfigError


def check_output_file(path: Path | None, option: str) -> None:
    """Refuse a file that could not be written; none is made.

    Args:
        path: None is not asked for.
        option: that names it.

    Raises:
        ConfigError: it is a folder, its folder is missing, or nothing may be written there.
    """
    if path is None:
        return
    folder, what = path.absolute().parent, None
    if path.is_dir():
        what = "is a folder, not a file"
    elif not folder.is_dir():
        what = f"there is no folder {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        what = "may not be written"
    if what is not None:
        raise ConfigError(what, where=f"{option} {path}", fix="name another file")
