"""The folder that a new checkpoint is written to."""

from pathlib import Path

from smolvlm.errors import ConfigError


def check_new_folder(out_dir: Path) -> None:
    """Raise ConfigError unless a folder is still to be made, or is empty."""
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise ConfigError(
            "there is something in it already", where=str(out_dir), fix="give --out another folder"
        )
