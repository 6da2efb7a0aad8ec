"""Where this program keeps what it downloads and measures, on every machine."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for downloads: `$SMOLVLM_HOME`, or `~/.cache/smolvlm`."""
    home = os.environ.get("SMOLVLM_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "smolvlm"
