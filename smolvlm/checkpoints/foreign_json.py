"""JSON files of checkpoints from elsewhere: an object, or one error that names the file."""

import json
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError

_MAX_BYTES = 1 << 29
"""Tokenizers of a million tokens are a tenth of it."""


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        ConfigError: the file cannot be read, is no JSON object, is nested too deeply or is larger
            than 512 MiB.
    """
    fix = "download the file again, or use the one that belongs to the checkpoint"
    try:
        if (size := path.stat().st_size) > _MAX_BYTES:
            what = f"{size:,} bytes are more than a checkpoint's JSON file has"
            raise ConfigError(what, where=str(path), fix=fix)
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise ConfigError(
            what, where=str(path), fix="check the path and its permissions"
        ) from error
    except RecursionError as error:
        raise ConfigError("not JSON: nested too deeply", where=str(path), fix=fix) from error
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", where=str(path), fix=fix) from error
    if not isinstance(content, dict):
        raise ConfigError("not JSON: no object, {...}", where=str(path), fix=fix)
    return content
