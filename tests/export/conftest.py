"""What the tests of exports share."""

import json
from pathlib import Path
from typing import Any


def set_pictures(folder: Path, **settings: Any) -> None:
    """Set picture settings of a checkpoint's processor."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
