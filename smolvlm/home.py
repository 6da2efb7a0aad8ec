"""Where this program keeps what it downloads, measures and is handed over, on every machine."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for downloads: `$SMOLVLM_HOME`, or `~/.cache/smolvlm`."""
    home = os.environ.get("SMOLVLM_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "smolvlm"


def memory_dir() -> Path:
    """Return the folder that rows from a program's memory are kept in (`datasets.rows.memory`)."""
    return cache_dir() / "memory"


def memory_rows_file(digest: str) -> Path:
    """Return where the rows of a digest lie, if they are here."""
    return memory_dir() / digest / "rows.jsonl"
